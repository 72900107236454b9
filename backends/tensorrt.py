"""The qdq form as TensorRT reads it: every integer s8, every zero point 0, biases in float.

TensorRT takes its 2:4 kernels only for INT8 in and INT8 out: a pair in front of each product, on its weights and on its
output, behind a fused Relu. `insert-fake-quant` with target "signed" places them; here they are checked and stored.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from mulshift.backends.qdq import accumulator_scale, dequantizer, freeze, on_accumulator
from mulshift.ir import UnsupportedError, add_initializer, attribute, constant, describe
from mulshift.passes.pairs import BITS
from mulshift.passes.quant_rules import product_of_bias

_NARROW = (ir.DataType.INT4, ir.DataType.INT2)


def freeze_signed(model: ir.Model) -> ir.Model:
    """Turn a QDQ-level graph, in place, into that form.

    Weights of 4 bits and fewer are stored in s8, which changes none of them; zeros stay zeros.

    Raises:
        UnsupportedError: a pair that is not s8 with zero point 0, or that has groups: the model came with it.
    """
    graph = model.graph
    pairs = [n for n in graph if n.domain == "" and n.op_type in ("QuantizeLinear", "DequantizeLinear")]
    for node in pairs:
        _widen(graph, node)
    for node in pairs:
        _check(node)
    made = freeze(model, signed=True)
    for node in made.graph:
        _round_bias(made.graph, node)
    return made


def _round_bias(graph: ir.Graph, node: ir.Node) -> None:
    """The bias that an Add brings to a MatMul, on the grid of its accumulator; those of Conv and Gemm are already."""
    product = product_of_bias(node)
    x, w = (None, None) if product is None else (dequantizer(v) for v in product.inputs[:2])
    if product is None or x is None or w is None:
        return
    index = next(i for i, v in enumerate(node.inputs) if constant(v) is not None)
    value, bias = node.inputs[index], constant(node.inputs[index])
    assert value is not None and bias is not None
    scale = accumulator_scale(product, x, w, bias.size)
    if scale is not None:
        rounded = (on_accumulator(bias, scale) * scale).astype(np.float32)
        node.replace_input_with(index, add_initializer(graph, f"{value.name}.frozen", rounded))


def _widen(graph: ir.Graph, node: ir.Node) -> None:
    """A pair of low-bit weights as s8: clipped to their few values before, they round to the same."""
    integers = node.inputs[0] if node.op_type == "DequantizeLinear" else node.outputs[0]
    zero_point = node.inputs[2] if len(node.inputs) > 2 else None
    if zero_point is None or zero_point.dtype not in _NARROW or integers is None:
        return
    array = constant(zero_point)
    if array is None or BITS not in node.metadata_props:
        return
    node.replace_input_with(2, add_initializer(graph, f"{zero_point.name}.s8", array.astype(np.int8)))
    integers.type = ir.TensorType(ir.DataType.INT8)


def _check(node: ir.Node) -> None:
    zero_point = constant(node.inputs[2]) if len(node.inputs) > 2 else None
    if attribute(node, "block_size", 0):
        raise UnsupportedError(describe(node), "weights with groups have no INT8 form in TensorRT", "leave groups out")
    if zero_point is None or zero_point.dtype != np.int8 or zero_point.any():
        told = "u8" if zero_point is None or zero_point.dtype == np.uint8 else str(zero_point.dtype)
        cause = f"its integers are {told}, not s8 with zero point 0, which alone TensorRT reads"
        raise UnsupportedError(describe(node), cause, "compile from the float model")


__all__ = ["freeze_signed"]
