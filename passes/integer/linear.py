"""What Conv, ConvTranspose, Gemm and MatMul by constant weights share: weights, bias, bound, `b / 2^c`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from mulshift.ir import (
    DOMAIN,
    AccumulatorOverflowError,
    Array,
    QParams,
    QuantSpec,
    describe,
    ints,
    rank,
)
from mulshift.ir.dyadic import INT32_LIMIT, accumulator_bound
from mulshift.passes.groups import as_multiples
from mulshift.passes.integer.constants import quantized_constant, real_constant
from mulshift.passes.integer.forms import NoFormError, Output, Quantized
from mulshift.passes.integer.scales import requantization
from mulshift.passes.sparsity.pattern import pass_on

if TYPE_CHECKING:
    from mulshift.passes.integer.lowering import Lowering


@dataclass(frozen=True)
class Weights:
    """Constant integer weights.

    Attributes:
        q: int64, stored values in [-128, 127].
        scale: float64, [] or [channels].
        zero_point: one for all.
        axis: of the channels; None for one scale.
    """

    q: Array
    scale: Array
    zero_point: int
    axis: int | None


@dataclass(frozen=True)
class Product:
    """A convolution or matrix product before its output quantization is known.

    Attributes:
        node: the float node, for errors.
        op: "Conv" or "Gemm".
        x: u8 input.
        weights: stored integers, s8, in the operator's layout.
        out_axis: of the output channels in `weights`.
        w_zero_point: one for all.
        scale: float64 [channels], s_x * s_w.
        bias: float64 [channels].
        window: strides, pads, dilations, group of a Conv.
        tail: dimensions after the channel, 0 for Gemm: bias is shaped [channels, 1, ...].
    """

    node: ir.Node
    op: str
    x: Quantized
    weights: Array
    out_axis: int
    w_zero_point: int
    scale: Array
    bias: Array
    window: dict[str, list[int] | int]
    tail: int


def weights_of(value: ir.Value | None, channels: int) -> Weights:
    """The integer weights behind a value, through Transpose; u8 becomes s8 exactly, groups become one scale a channel.

    Args:
        value: a product's second operand.
        channels: its axis that holds output channels.

    Raises:
        NoFormError: not constant, not quantized, or a form that a product cannot take.
    """
    node = None if value is None else value.producer()
    if node is not None and node.op_type == "Transpose":
        perm = ints(node, "perm") or list(range(rank(value) or rank(node.inputs[0]) or 2))[::-1]
        inner = weights_of(node.inputs[0], perm[channels])
        axis = None if inner.axis is None else perm.index(inner.axis)
        return Weights(inner.q.transpose(perm), inner.scale, inner.zero_point, axis)
    held = quantized_constant(value)
    if held is None:
        what = "activations" if value is None or real_constant(value) is None else "not quantized"
        raise NoFormError(f"its weights are {what}")
    q, params, _ = held
    if params.spec.bits > 8:
        raise NoFormError(f"its weights have {params.spec.bits} bits; products take 8-bit operands")
    if params.spec.group is not None:
        return _ungrouped(q, params, channels)
    zero_points = np.unique(params.zero_point)
    if zero_points.size != 1:
        raise NoFormError("its weights have a different zero point for each channel")
    shift = 0 if params.spec.signed else 2 ** (params.spec.bits - 1)
    return Weights(q - shift, params.scale.astype(np.float64), int(zero_points[0]) - shift, params.spec.axis)


def _ungrouped(q: Array, params: QParams, channels: int) -> Weights:
    """`s[c, g] * (q - z) = s[c] * (m[c, g] * (q - z))` with `s[c, g] = s[c] * m[c, g]`."""
    if channels >= q.ndim or params.scale.ndim != q.ndim or params.spec.axis == channels:
        raise NoFormError("its weights have groups along the output channels")
    found = as_multiples(params.scale, channels)
    if isinstance(found, int):
        raise NoFormError(f"the scales of the groups of channel {found} are no small integer multiples of one scale")
    scale, multiple = found
    assert params.spec.axis is not None and params.spec.group is not None
    each = np.arange(q.shape[params.spec.axis]) // params.spec.group
    whole = (q - params.shaped(q.shape)[1]) * multiple.take(each, axis=params.spec.axis)
    if whole.min(initial=0) < -128 or whole.max(initial=0) > 127:
        raise NoFormError("its weights times the multiples of their groups' scales leave 8 bits")
    return Weights(whole, scale, 0, channels)


def channel_scale(w: Weights, axis: int, channels: int) -> Array:
    """Weight scale of each output channel. Raises NoFormError where scales run along another axis."""
    if w.scale.ndim == 0:
        return np.broadcast_to(w.scale, (channels,))
    if w.axis != axis or w.scale.size != channels:
        raise NoFormError("its weights' scales do not run along the output channels")
    return w.scale


def channel_bias(value: ir.Value | None, channels: int) -> Array:
    """A constant bias as float64 [channels]. Raises NoFormError where it is none or not one a channel."""
    if value is None:
        return np.zeros(channels)
    array = real_constant(value)
    if array is None:
        raise NoFormError("its bias is not constant")
    if array.size not in (1, channels) or (array.size > 1 and array.shape[-1] != channels):
        raise NoFormError("its bias is not one number a channel")
    return np.broadcast_to(array.reshape(-1), (channels,))


def write_product(low: Lowering, p: Product, out: Output, accumulated: bool) -> ir.Value:
    """The product at `out`; through its accumulator where the graph returns that as well."""
    bias, bound = _bias_and_bound(p)
    ratio = p.scale / float(out.q.scale)
    b, c, width = requantization(ratio, bound, out.reach, out.free)
    if np.unique(b).size == 1 and np.unique(c).size == 1:
        b, c = b[:1], c[:1]
    name = str(out.value.name)
    tail = (-1,) + (1,) * p.tail
    bc = [low.const(f"{name}.b", b.reshape(tail)), low.const(f"{name}.c", c.reshape(tail))]
    most = int(bound.max())
    if accumulated:
        acc = accumulate(low, p, out.value)
        return low.mulshift("Requantize", [acc.value, *bc], {"x_zero_point": 0}, out, most, width)
    inputs = [p.x.value, *_constants(low, p, bias, name), *bc]
    made = low.mulshift(p.op, inputs, _attributes(p), out, most, width)
    pass_on(p.node, inputs[1])
    return made


def accumulate(low: Lowering, p: Product, value: ir.Value) -> Quantized:
    """The s32 accumulator itself, for the border; `value` is the float value that it stands for."""
    bias, bound = _bias_and_bound(p)
    if p.node not in low.accumulators:
        inputs = [p.x.value, *_constants(low, p, bias, str(value.name))]
        shape = value.shape
        acc = low.write(f"{p.op}Accumulate", inputs, _attributes(p), DOMAIN, [(ir.DataType.INT32, shape)])[0]
        low.prove(acc, int(bound.max()))
        pass_on(p.node, inputs[1])
        one = np.unique(p.scale).size == 1
        rank = None if shape is None else len(shape)
        axis = 1 if p.op == "Conv" else (rank - 1 if rank is not None else None)
        if not one and axis is None:
            raise NoFormError("its output's rank is not known")
        spec = QuantSpec(32, signed=True, symmetric=True, axis=None if one else axis)
        scale = p.scale[0] if one else p.scale
        q = QParams(np.asarray(scale, np.float32), np.zeros(np.shape(scale), np.int32), spec)
        low.accumulators[p.node] = low.hold(acc, q, value)
    return low.accumulators[p.node]


def _constants(low: Lowering, p: Product, bias: Array, name: str) -> list[ir.Value]:
    tail = (-1,) + (1,) * p.tail
    weights = low.const(f"{name}.weight", p.weights.astype(np.int8))
    return [weights, low.const(f"{name}.bias", bias.reshape(tail).astype(np.int32))]


def _attributes(p: Product) -> dict[str, list[int] | int]:
    return {"x_zero_point": int(p.x.q.zero_point), "w_zero_point": p.w_zero_point, **p.window}


def _bias_and_bound(p: Product) -> tuple[Array, Array]:
    """(`round_half_even(bias / s_acc)`, A a channel). Raises AccumulatorOverflowError."""
    bias = np.rint(p.bias / p.scale)
    if not np.isfinite(bias).all() or (np.abs(bias) >= INT32_LIMIT).any():
        worst = int(np.abs(bias).argmax())
        raise AccumulatorOverflowError(
            describe(p.node),
            f"bias of channel {worst} is {bias[worst]:.3g} steps of its accumulator, beyond 2^31",
            f"raise the weight scale of channel {worst} (it is {p.scale[worst]:.3g} with the input's)",
        )
    bound = accumulator_bound(p.weights - p.w_zero_point, bias.astype(np.int64), p.x.q.magnitude, p.out_axis)
    if (bound >= INT32_LIMIT).any():
        raise AccumulatorOverflowError(
            describe(p.node),
            f"its int32 accumulator may reach {int(bound.max())}, beyond 2^31",
            "use fewer weight bits for it, or leave it in float",
        )
    return bias.astype(np.int64), bound
