"""Add, Sub, Mul, Div, Neg and BatchNormalization with constants: one Affine for a whole chain of them.

`y = m * x + t` with constant m, t of any shape: `acc = (q_x - z_x) * w + bias`, `w = sign(m) * 2^k`,
`bias = t / (s_x * |m| / 2^k)`, `b / 2^c = s_x * |m| / (2^k * s_y)`; k gives the bias its fraction bits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from mulshift.ir import Array, attribute, rank
from mulshift.ir.dyadic import INT32_LIMIT
from mulshift.passes.integer.constants import real_constant
from mulshift.passes.integer.forms import NoFormError, Output, Quantized
from mulshift.passes.integer.scales import requantization

if TYPE_CHECKING:
    from mulshift.passes.integer.lowering import Lowering

_FRACTION_BITS = 8
"""Bits below one step of the output that the bias keeps."""


def affine(low: Lowering, node: ir.Node, out: Output) -> ir.Value | None:
    """The Affine of the chain that ends in `node`; None if it is no such chain."""
    chain = _chain(low, node.outputs[0])
    if chain is None:
        return None
    return write_affine(low, *chain, out)


def write_affine(low: Lowering, x: Quantized, m: Array, t: Array, out: Output) -> ir.Value:
    """`m * x + t` at `out`."""
    m, t = np.broadcast_arrays(m, t)
    w, bias, unit, bound = _integers(x, m, t, float(out.q.scale))
    if (bound >= INT32_LIMIT).any():
        raise NoFormError("its constants leave 32 bits")
    ratio = unit / float(out.q.scale)
    b, c, width = requantization(ratio.reshape(-1), bound.reshape(-1), out.reach, out.free)
    name = str(out.value.name)
    parts = {"weight": w, "bias": bias, "b": b.reshape(m.shape), "c": c.reshape(m.shape)}
    inputs = [x.value, *(low.const(f"{name}.{k}", v.astype(np.int32)) for k, v in parts.items())]
    most = int(bound.max(initial=0))
    return low.mulshift("Affine", inputs, {"x_zero_point": int(x.q.zero_point)}, out, most, width)


def _integers(x: Quantized, m: Array, t: Array, s_out: float) -> tuple[Array, Array, Array, Array]:
    """(w, bias, real unit of the accumulator, bound), elementwise."""
    s_x = float(x.q.scale)
    gain = s_x * np.abs(m) / s_out  # steps of the output a step of the input
    k = _FRACTION_BITS + np.ceil(np.log2(np.maximum(gain, 1)))
    constant = gain < 2.0**-40
    unit = np.where(constant, s_out * 2.0**-_FRACTION_BITS, s_x * np.abs(m) * np.exp2(-k))
    w = np.where(constant, 0, np.sign(m) * np.exp2(k))
    bias = np.rint(t / unit)
    return w, bias, unit, np.abs(w) * x.q.magnitude + np.abs(bias)


def _chain(low: Lowering, value: ir.Value) -> tuple[Quantized, Array, Array] | None:
    held = low.lookup(value)
    if held is not None:
        return (held, np.ones(()), np.zeros(())) if held.q.per_tensor else None
    node = value.producer()
    if node is None or node.domain not in ("", "ai.onnx"):
        return None
    if node.op_type == "Neg":
        return _then(_chain_of(low, node.inputs[0]), np.asarray(-1.0), np.zeros(()))
    if node.op_type == "BatchNormalization":
        return _batch_norm(low, node)
    if node.op_type not in ("Add", "Sub", "Mul", "Div") or len(node.inputs) != 2:
        return None
    x, y = real_constant(node.inputs[0]), real_constant(node.inputs[1])
    zero, one = np.zeros(()), np.ones(())
    if y is not None:
        steps = {"Add": (one, y), "Sub": (one, -y), "Mul": (y, zero)}
        if node.op_type == "Div":
            return None if (y == 0).any() else _then(_chain_of(low, node.inputs[0]), 1 / y, zero)
        return _then(_chain_of(low, node.inputs[0]), *steps[node.op_type])
    if x is not None and node.op_type != "Div":
        steps = {"Add": (one, x), "Sub": (-one, x), "Mul": (x, zero)}
        return _then(_chain_of(low, node.inputs[1]), *steps[node.op_type])
    return None


def _chain_of(low: Lowering, value: ir.Value | None) -> tuple[Quantized, Array, Array] | None:
    return None if value is None or real_constant(value) is not None else _chain(low, value)


def _then(chain: tuple[Quantized, Array, Array] | None, m: Array, t: Array) -> tuple[Quantized, Array, Array] | None:
    """The chain followed by `m * x + t`."""
    return None if chain is None else (chain[0], chain[1] * m, chain[2] * m + t)


def _batch_norm(low: Lowering, node: ir.Node) -> tuple[Quantized, Array, Array] | None:
    parts = [real_constant(v) for v in node.inputs[1:5]]
    dims = rank(node.inputs[0])
    if any(p is None for p in parts) or dims is None or attribute(node, "training_mode", 0):
        return None
    gamma, beta, mean, variance = (p for p in parts if p is not None)
    m = gamma / np.sqrt(variance + float(attribute(node, "epsilon", 1e-5)))
    shape = (-1,) + (1,) * (dims - 2)
    return _then(_chain_of(low, node.inputs[0]), m.reshape(shape), (beta - mean * m).reshape(shape))
