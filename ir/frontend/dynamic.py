"""Dynamically quantized models: their activations are float, so they are read as such; weights stay on their grid.

`DynamicQuantizeLinear(x) = (q, s, z)` chooses s and z anew for each input, to approximate `x = s * (q - z)`. With
`q = x, s = 1, z = 0` in its place the algebra around it holds exactly, without the rounding, and MatMulInteger and
ConvInteger become `MatMul(x, w - z_w)`; the Mul by `s * s_w` behind them keeps the weights' scale.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from mulshift.ir.errors import UnsupportedError
from mulshift.ir.graphs import add_initializer, constant
from mulshift.ir.metadata import describe, inherit_origin
from mulshift.ir.types import Array

_FLOAT_FORM = {"MatMulInteger": "MatMul", "ConvInteger": "Conv"}


def undo_dynamic(graph: ir.Graph) -> None:
    """Read the graph's dynamic quantization as float, in place.

    Raises:
        UnsupportedError: another operator than MatMulInteger, ConvInteger or Cast reads the integers.
    """
    floats: set[ir.Value] = set()
    """Values that were integers before."""
    for node in list(graph):
        handed_out = any(v.is_graph_output() for v in node.outputs)
        if handed_out and (node.op_type == "DynamicQuantizeLinear" or not floats.isdisjoint(node.inputs)):
            raise UnsupportedError(describe(node), "hands dynamically quantized integers out", "give the float model")
        if node.op_type == "DynamicQuantizeLinear":
            floats.add(_identity(graph, node))
        elif node.op_type in _FLOAT_FORM and node.inputs[0] in floats:
            floats.add(_product(graph, node))
        elif node.op_type != "Cast" and not floats.isdisjoint(node.inputs):
            raise UnsupportedError(describe(node), "reads dynamically quantized integers", "give the float model")


def _identity(graph: ir.Graph, node: ir.Node) -> ir.Value:
    """q = x, s = 1, z = 0."""
    made = ir.node("Identity", [node.inputs[0]], name=node.name)
    x = made.outputs[0]
    x.dtype, x.shape = ir.DataType.FLOAT, node.outputs[0].shape
    x.name = f"{node.outputs[0].name}.float"
    one = add_initializer(graph, f"{node.outputs[1].name}.one", np.ones((), np.float32))
    zero = add_initializer(graph, f"{node.outputs[2].name}.zero", np.zeros((), np.uint8))
    for old, new in zip(node.outputs, (x, one, zero), strict=True):
        old.replace_all_uses_with(new)
    _replace(graph, node, made)
    return x


def _product(graph: ir.Graph, node: ir.Node) -> ir.Value:
    weight = _constant(node, 1)
    zero_point = _constant(node, 3) if len(node.inputs) > 3 and node.inputs[3] is not None else np.zeros((), np.uint8)
    if node.op_type == "ConvInteger" and zero_point.size > 1:
        zero_point = zero_point.reshape(-1, *[1] * (weight.ndim - 1))
    centred = weight.astype(np.float32) - zero_point.astype(np.float32)
    w = add_initializer(graph, f"{node.inputs[1].name}.float", centred)  # type: ignore[union-attr]
    made = ir.node(_FLOAT_FORM[node.op_type], [node.inputs[0], w], node.attributes, name=node.name)
    y = made.outputs[0]
    y.dtype, y.shape, y.name = ir.DataType.FLOAT, node.outputs[0].shape, f"{node.outputs[0].name}.float"
    node.outputs[0].replace_all_uses_with(y)
    _replace(graph, node, made)
    return y


def _constant(node: ir.Node, index: int) -> Array:
    array = constant(node.inputs[index])
    if array is None:
        raise UnsupportedError(describe(node), "dynamic quantization of two activations", "give the float model")
    return array


def _replace(graph: ir.Graph, node: ir.Node, made: ir.Node) -> None:
    graph.insert_before(node, made)
    inherit_origin([made], [node])
    graph.remove(node, safe=True)
