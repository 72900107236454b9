"""Which nodes of an artifact touch floating point between its borders, read with the onnx package alone."""

from __future__ import annotations

import onnx
from onnx import TensorProto, inliner, shape_inference

_FLOATS = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16}
_BORDERS = {"QuantizeLinear", "DequantizeLinear"}


def float_nodes(path: str) -> list[str]:
    """Names of nodes that read or write a float tensor; not QuantizeLinear of a graph input, nor DequantizeLinear
    of a graph output. Function bodies are opened first, so nothing hides in them."""
    flat = shape_inference.infer_shapes(inliner.inline_local_functions(onnx.load(path)), data_prop=True)
    graph = flat.graph
    kinds = {v.name: v.type.tensor_type.elem_type for v in (*graph.input, *graph.output, *graph.value_info)}
    kinds |= {t.name: t.data_type for t in graph.initializer}
    inputs, outputs = {v.name for v in graph.input}, {v.name for v in graph.output}
    found = []
    for node in graph.node:
        touches = [name for name in (*node.input, *node.output) if kinds.get(name) in _FLOATS]
        unknown = [name for name in node.output if name and name not in kinds]
        border = node.op_type in _BORDERS and (node.input[0] in inputs or node.output[0] in outputs)
        if (touches or unknown) and not border:
            found.append(node.name or node.output[0])
    return found
