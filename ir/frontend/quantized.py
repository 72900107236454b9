"""Models that come quantized, into the QDQ level with their own scales; their kinds are told apart by operators."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from mulshift.ir.errors import UnsupportedError
from mulshift.ir.frontend.dynamic import undo_dynamic
from mulshift.ir.frontend.qdq import PAIR, tidy_pairs
from mulshift.ir.frontend.qoperator import QOperators
from mulshift.ir.frontend.shapes import infer_shapes
from mulshift.ir.graphs import add_initializer, attribute, constant
from mulshift.ir.metadata import describe, get_level, set_level
from mulshift.ir.types import Array, Level

_REFUSED = {
    "DynamicQuantizeMatMul": "dynamic quantization",
    "DynamicQuantizeLSTM": "dynamic quantization",
    "MatMulIntegerToFloat": "dynamic quantization",
    "QAttention": "fused quantized attention",
    "QEmbedLayerNormalization": "fused quantized embedding",
}
"""Operators of quantized models that have no QDQ form, and why."""


def read_quantized(model: ir.Model) -> ir.Model:
    """Rewrite what is quantized, in place, and record the level: QDQ if a QuantizeLinear is left, else FLOAT.

    Weights alone quantized (no QuantizeLinear) become float weights on their grid, for activations to be calibrated.

    Raises:
        UnsupportedError: names the node whose quantization has no QDQ form.
    """
    if get_level(model) is Level.INTEGER:
        return model
    graph = model.graph
    for node in graph:
        if node.op_type in _REFUSED:
            raise UnsupportedError(describe(node), _REFUSED[node.op_type], "give the float model or a QDQ model")
    undo_dynamic(graph)
    QOperators(graph).rewrite()
    tidy_pairs(graph)
    quantized = any(node.op_type == "QuantizeLinear" for node in graph)
    if not quantized:
        _fold_weights(graph)
    infer_shapes(model)  # what ONNX knows of float operators, it does not of ONNX Runtime's quantized ones
    set_level(model, Level.QDQ if quantized else Level.FLOAT)
    return model


def _fold_weights(graph: ir.Graph) -> None:
    """Replace constants behind a lone DequantizeLinear by their reals."""
    for node in list(graph):
        integers = constant(node.inputs[0]) if node.op_type in PAIR else None
        if integers is None:
            continue
        reals = add_initializer(graph, f"{node.inputs[0].name}.reals", _reals(node, integers))  # type: ignore[union-attr]
        node.outputs[0].replace_all_uses_with(reals, replace_graph_outputs=True)
        graph.remove(node, safe=True)


def _reals(node: ir.Node, integers: Array) -> Array:
    """`s * (q - z)`, with s and z one a tensor, one a channel along `axis`, or one a block of `block_size` along it."""
    scale, axis = constant(node.inputs[1]), int(attribute(node, "axis", 1))
    assert scale is not None
    zero_point = constant(node.inputs[2]) if len(node.inputs) > 2 else None
    zeros = np.zeros(scale.shape, np.int32) if zero_point is None else zero_point.astype(np.int32)
    block = int(attribute(node, "block_size", 0))
    shaped = [_spread(v, integers.shape, axis, block) for v in (scale.astype(np.float32), zeros)]
    return ((integers.astype(np.int32) - shaped[1]) * shaped[0]).astype(scale.dtype)


def _spread(parameter: Array, shape: tuple[int, ...], axis: int, block: int) -> Array:
    if parameter.size == 1:
        return parameter.reshape(())
    if block:
        return np.take(np.repeat(parameter, block, axis=axis), np.arange(shape[axis]), axis=axis)
    wide = [1] * len(shape)
    wide[axis] = -1
    return parameter.reshape(wide)
