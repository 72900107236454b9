"""The qdq form: weights frozen to integers behind DequantizeLinear, biases to s32, activations u8.

What it is for: runtimes that fuse standard Q/DQ pairs into their own kernels (ONNX Runtime, OpenVINO, QNN).
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from mulshift.ir import (
    Array,
    add_initializer,
    attribute,
    constant,
    fresh_name,
    inherit_origin,
    ints,
    is_float,
    scalar,
    users,
)
from mulshift.ir.float_functions import DOMAIN as FLOAT_DOMAIN
from mulshift.passes.groups import as_multiples
from mulshift.passes.quant_rules import channel_axis

_BIAS = {"Conv": 2, "ConvTranspose": 2, "Gemm": 2}
"""Operators whose bias an integer kernel adds to the accumulator, and at which input."""
_S8_TO_U8 = 128


def freeze(model: ir.Model, signed: bool = False) -> ir.Model:
    """Turn a QDQ-level graph, in place, into the form that other runtimes expect.

    Integers that an imported model brought are kept as they are.

    Args:
        model: QDQ level.
        signed: activations stay s8, and biases are stored as the reals that their integers stand for.
    """
    graph = model.graph
    for node in list(graph):
        if _is(node, "QuantizeLinear"):
            _freeze_weight(graph, node)
    for node in list(graph):
        index = _BIAS.get(node.op_type)
        if index is not None and node.domain == "" and len(node.inputs) > index:
            _freeze_bias(graph, node, index, not signed)
    if not signed and any(_is_u8_by_s8(node) or _is_attention(node) for node in graph):
        _raise_activations(graph)
    for node in graph:
        _count_what_is_there(node)
    for name, value in list(graph.initializers.items()):
        if not value.uses() and not value.is_graph_output():
            del graph.initializers[name]
    return model


def _is(node: ir.Node | None, op_type: str) -> bool:
    return node is not None and node.domain == "" and node.op_type == op_type


def quantize(x: Array, scale: Array, zero_point: Array, axis: int, block: int = 0) -> Array:
    """ONNX QuantizeLinear, per tensor or along `axis`: `saturate(round_half_even(x / scale) + zero_point)`.

    block: elements along `axis` that share a scale; 0 for one scale at each place of `axis`.
    """
    low, high = _limits(ir.DataType.from_numpy(zero_point.dtype))
    wide = np.rint(x.astype(np.float32) / _spread(scale, x.shape, axis, block)).astype(np.float64)
    z = _spread(zero_point.astype(np.float64), x.shape, axis, block)
    return np.clip(wide + z, low, high).astype(zero_point.dtype)


def _spread(p: Array, shape: tuple[int, ...], axis: int, block: int) -> Array:
    """A scale or zero point that broadcasts against a tensor of this shape."""
    if not p.ndim:
        return p
    if block:
        return p.take(np.arange(shape[axis]) // block, axis=axis)
    return p.reshape([-1 if i == axis % len(shape) else 1 for i in range(len(shape))])


def _limits(dtype: ir.DataType) -> tuple[int, int]:
    bits = int(dtype.bitwidth)
    return (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if dtype.is_signed() else (0, (1 << bits) - 1)


def _freeze_weight(graph: ir.Graph, node: ir.Node) -> None:
    x, scale, zero_point = constant(node.inputs[0]), constant(node.inputs[1]), _zero_point(node)
    if x is None or scale is None or zero_point is None or node.outputs[0].is_graph_output():
        return
    q = quantize(x, scale, zero_point, attribute(node, "axis", 1), attribute(node, "block_size", 0))
    node.outputs[0].replace_all_uses_with(add_initializer(graph, f"{node.outputs[0].name}.frozen", q))
    graph.remove(node, safe=True)


def _zero_point(node: ir.Node) -> Array | None:
    given = node.inputs[2] if len(node.inputs) > 2 else None
    return np.zeros((), np.uint8) if given is None else constant(given)


def _channel_scale(product: ir.Node, w: ir.Node) -> Array | None:
    """The weights' scale, [] or [channels]; of groups the one that theirs are multiples of."""
    scale = constant(w.inputs[1])
    if scale is None or not attribute(w, "block_size", 0):
        return scale
    found = as_multiples(scale, channel_axis(product, scale.ndim))
    return None if isinstance(found, int) else found[0]


def accumulator_scale(product: ir.Node, x: ir.Node, w: ir.Node, channels: int) -> Array | None:
    """`s_x * s_w` of its operands' DequantizeLinear nodes, float32 [] or [channels]; None where it has no such."""
    s_x, s_w = scalar(x.inputs[1]), _channel_scale(product, w)
    if s_x is None or s_w is None or s_w.ndim > 1 or s_w.size not in (1, channels):
        return None
    return (np.float32(s_x) * s_w.astype(np.float32)).astype(np.float32)


def on_accumulator(bias: Array, scale: Array) -> Array:
    """The s32 integers that a bias is in an accumulator."""
    limit = 2**31 - 1
    return np.clip(np.rint(bias.astype(np.float64) / scale.astype(np.float64)), -limit, limit).astype(np.int32)


def _freeze_bias(graph: ir.Graph, node: ir.Node, index: int, integers: bool) -> None:
    """`bias -> DequantizeLinear(s32, s_x * s_w)`, or its result; left as it is where the operator is not quantized."""
    bias, x, w = constant(node.inputs[index]), dequantizer(node.inputs[0]), dequantizer(node.inputs[1])
    if bias is None or x is None or w is None or not is_float(node.inputs[index]) or bias.ndim != 1:
        return
    if attribute(node, "alpha", 1.0) != 1.0 or attribute(node, "beta", 1.0) != 1.0:
        return
    scale = accumulator_scale(node, x, w, bias.size)
    if scale is None:
        return
    q = on_accumulator(bias, scale)
    base = str(node.inputs[index].name)  # type: ignore[union-attr]
    if not integers:
        node.replace_input_with(index, add_initializer(graph, f"{base}.frozen", (q * scale).astype(np.float32)))
        return
    inputs = [
        add_initializer(graph, f"{base}.frozen", q),
        add_initializer(graph, f"{base}.scale", scale),
        add_initializer(graph, f"{base}.zero_point", np.zeros(scale.shape, np.int32)),
    ]
    attributes = {"axis": 0} if scale.ndim else {}
    name = fresh_name(graph, f"{base}.dequantized")
    made = ir.node("DequantizeLinear", inputs, attributes, name=name)
    made.outputs[0].name = name
    made.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    made.outputs[0].shape = ir.Shape(bias.shape)
    inherit_origin([made], [node])
    graph.insert_before(node, made)
    node.replace_input_with(index, made.outputs[0])


def dequantizer(value: ir.Value | None) -> ir.Node | None:
    """The DequantizeLinear that makes a value."""
    node = None if value is None else value.producer()
    return node if _is(node, "DequantizeLinear") else None


def _count_what_is_there(node: ir.Node) -> None:
    """Without pads, `count_include_pad` says nothing; ONNX Runtime's QLinearAveragePool then divides a window that
    `ceil_mode` lets hang over the edge by its full size (1.31: 3.2 for 6.5), so it must go.
    """
    if _is(node, "AveragePool") and not any(ints(node, "pads") or []):
        node.attributes.pop("count_include_pad", None)


def _is_u8_by_s8(node: ir.Node) -> bool:
    """A product of two activations, u8 by s8: its sums saturate on x86 without VNNI, whatever the session says."""
    if not _is(node, "MatMul"):
        return False
    sides = [dequantizer(v) for v in node.inputs]
    types = [s.inputs[0].dtype if s is not None and s.inputs[0] is not None else None for s in sides]
    second = sides[1]
    return types == [ir.DataType.UINT8, ir.DataType.INT8] and second is not None and constant(second.inputs[0]) is None


def _is_attention(node: ir.Node) -> bool:
    """Its products stand in a function body, where ONNX Runtime inlines them: the same holds. And version 1.31 moves
    pairs through a Transpose into it, as s8 with an `output_dtype`, makes the zero point u8, and refuses the two.
    """
    return node.domain == FLOAT_DOMAIN and node.op_type in ("Attention", "MaskedAttention")


def _raise_activations(graph: ir.Graph) -> None:
    """Store every s8 activation as u8, `q + 128, z + 128`: an exact rewrite of what u8 x u8 kernels then multiply."""
    pairs = [(q.outputs[0], [q, *users(q.outputs[0])]) for q in graph if _is(q, "QuantizeLinear")]
    for value, ends in pairs:
        if value.dtype is not ir.DataType.INT8 or not all(_is(n, "DequantizeLinear") for n in ends[1:]):
            continue  # an integer operator between the pair (imported) wants the type that it has
        for node in ends:
            zero_point = _zero_point(node)
            if zero_point is None or zero_point.dtype != np.int8:
                break
            raised = (zero_point.astype(np.int16) + _S8_TO_U8).astype(np.uint8)
            node.replace_input_with(2, add_initializer(graph, f"{value.name}.zero_point", raised))
        else:
            value.type = ir.TensorType(ir.DataType.UINT8)


__all__ = ["accumulator_scale", "dequantizer", "freeze", "on_accumulator", "quantize"]
