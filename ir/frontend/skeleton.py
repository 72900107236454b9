"""A model's proto without its big weights, for ONNX's C++ tools: they copy what they get, and stop at 2 GB."""

from __future__ import annotations

import onnx
import onnx_ir as ir

SMALL = 1024
"""Bytes up to which a weight stays: the tools read axes, shapes and scales, never kernels."""


def skeleton(model: ir.Model) -> onnx.ModelProto:
    """The proto with every initializer of the main graph declared as an input too, big ones without their data.

    The model is left as it was.
    """
    graph = model.graph
    inputs, initializers = list(graph.inputs), dict(graph.initializers)
    try:
        for name, value in initializers.items():
            tensor = value.const_value
            if tensor is not None:
                value.dtype = value.dtype or tensor.dtype
                value.shape = value.shape or ir.Shape(tensor.shape.numpy())
            if tensor is None or tensor.nbytes > SMALL:
                del graph.initializers[name]
            if not value.is_graph_input():
                graph.inputs.append(value)
        return ir.serde.serialize_model(model)
    finally:
        graph.inputs.clear()
        graph.inputs.extend(inputs)
        graph.initializers.clear()
        graph.initializers.update(initializers)
