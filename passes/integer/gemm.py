"""Gemm, and MatMul with constant weights; MatMul of two activations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from mulshift.ir import AccumulatorOverflowError, Array, attribute, describe, rank
from mulshift.ir.dyadic import INT32_LIMIT
from mulshift.passes.integer.constants import quantized_constant
from mulshift.passes.integer.forms import NoFormError, Output, Quantized
from mulshift.passes.integer.linear import Product, Weights, channel_bias, channel_scale, weights_of
from mulshift.passes.integer.scales import requantization

if TYPE_CHECKING:
    from mulshift.passes.integer.lowering import Lowering


def gemm(low: Lowering, node: ir.Node) -> Product:
    """`alpha * A' @ B' + beta * C` with constant B and C."""
    x = low.as_unsigned(low.require(node.inputs[0]))
    turned = bool(attribute(node, "transB", 0))
    w = weights_of(node.inputs[1], 0 if turned else 1)
    if turned:
        w = Weights(w.q.T, w.scale, w.zero_point, None if w.axis is None else 1 - w.axis)
    if attribute(node, "transA", 0):
        shape = None if x.value.shape is None else ir.Shape(list(x.value.shape)[::-1])
        moved = low.standard("Transpose", [x.value], {"perm": [1, 0]}, ir.DataType.UINT8, shape)
        x = low.hold(moved, x.q, moved)
    alpha, beta = float(attribute(node, "alpha", 1.0)), float(attribute(node, "beta", 1.0))
    bias = channel_bias(node.inputs[2] if len(node.inputs) > 2 else None, w.q.shape[1]) * beta
    return _product(node, x, _scaled(w, alpha), bias)


def matmul_weights(low: Lowering, node: ir.Node) -> Product:
    """`x @ W` with constant W: [K, N]."""
    w = weights_of(node.inputs[1], 1)
    if w.q.ndim != 2 or rank(node.inputs[0]) == 1:
        raise NoFormError("product with a vector or a batch of constant matrices")
    x = low.as_unsigned(low.require(node.inputs[0]))
    return _product(node, x, w, np.zeros(w.q.shape[1]))


def _product(node: ir.Node, x: Quantized, w: Weights, bias: Array) -> Product:
    return Product(
        node=node,
        op="Gemm",
        x=x,
        weights=w.q,
        out_axis=1,
        w_zero_point=w.zero_point,
        scale=float(x.q.scale) * channel_scale(w, 1, w.q.shape[1]),
        bias=bias,
        window={},
        tail=0,
    )


def _scaled(w: Weights, alpha: float) -> Weights:
    """Weights times alpha: into the scale, its sign into the integers."""
    if alpha > 0:
        return Weights(w.q, w.scale * alpha, w.zero_point, w.axis)
    q = -(w.q - w.zero_point)
    if alpha == 0 or np.abs(q).max(initial=0) > 127:
        raise NoFormError(f"alpha {alpha} with these weights")
    return Weights(q, w.scale * -alpha, 0, w.axis)


def has_constant_weights(node: ir.Node) -> bool:
    """Whether the second operand is a quantized constant matrix, perhaps behind Transpose."""
    value = node.inputs[1]
    while value is not None and (producer := value.producer()) is not None and producer.op_type == "Transpose":
        value = producer.inputs[0]
    held = quantized_constant(value)
    return held is not None and held[0].ndim == 2


def matmul(low: Lowering, node: ir.Node, out: Output) -> ir.Value:
    """`x @ y` of two activations: u8 [..., M, K] by s8 [..., K, N]."""
    x, y = low.as_unsigned(low.require(node.inputs[0])), low.as_signed(low.require(node.inputs[1]))
    if rank(node.inputs[0]) == 1 or rank(node.inputs[1]) == 1:
        raise NoFormError("product with a vector")
    most = x.q.magnitude * y.q.magnitude
    depth = _size(node.inputs[0], -1) or _size(node.inputs[1], -2)
    bound = INT32_LIMIT - 1 if depth is None else depth * most
    if bound >= INT32_LIMIT:
        raise AccumulatorOverflowError(
            describe(node), f"its int32 accumulator may reach {bound}, beyond 2^31", "leave it in float"
        )
    ratio = float(x.q.scale) * float(y.q.scale) / float(out.q.scale)
    b, c, width = requantization(np.asarray([ratio]), np.asarray([bound]), out.reach, out.free)
    name = str(out.value.name)
    zero_points = {"x_zero_point": int(x.q.zero_point), "w_zero_point": int(y.q.zero_point)}
    inputs = [x.value, y.value, low.const(f"{name}.b", b), low.const(f"{name}.c", c)]
    product = low.mulshift("MatMul", inputs, zero_points, out, bound, width)
    if depth is None:
        low.assume(product, f"at most {INT32_LIMIT // most} products in a sum")
    return product


def _size(value: ir.Value | None, axis: int) -> int | None:
    if value is None or value.shape is None:
        return None
    size = value.shape[axis]
    return size if isinstance(size, int) else None
