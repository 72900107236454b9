"""One floating-point type: half, bfloat16 and double become float32, weights, values and interface alike.

Ranges, scales and borders are float32 (docs/architecture.md); eight bits are far below the precision of any of these.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

_OTHERS = frozenset({ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE})
_TYPED = ("to", "dtype")
"""Attributes that name an element type."""


def to_float32(model: ir.Model) -> None:
    """Convert the graph and its subgraphs in place; numbers beyond float32 become its largest.
    Functions are left alone: those of a source are inlined before this.
    """
    for graph in model.graphs():
        _values(graph)
        _attributes(graph)


def _values(graph: ir.Graph) -> None:
    values = [*graph.inputs, *graph.initializers.values(), *(v for node in graph for v in node.outputs)]
    changed = [v for v in dict.fromkeys(values) if v.dtype in _OTHERS]
    for value in changed:
        value.dtype = ir.DataType.FLOAT
        if value.const_value is not None:
            value.const_value = _converted(value.const_value)


def _attributes(graph: ir.Graph) -> None:
    for node in graph:
        for name, attr in list(node.attributes.items()):
            if not _is_typed(attr):
                continue
            if attr.type == ir.AttributeType.TENSOR:
                node.attributes[name] = ir.AttrTensor(name, _converted(attr.as_tensor()))
            else:
                node.attributes[name] = ir.AttrInt64(name, int(ir.DataType.FLOAT))


def _is_typed(attr: ir.Attr) -> bool:
    if attr.type == ir.AttributeType.TENSOR and attr.value is not None:
        return attr.as_tensor().dtype in _OTHERS
    return attr.type == ir.AttributeType.INT and attr.name in _TYPED and attr.value in {int(d) for d in _OTHERS}


def _converted(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    wide, largest = tensor.numpy().astype(np.float64), np.finfo(np.float32).max
    clipped = np.where(np.isinf(wide), wide, np.clip(wide, -largest, largest)).astype(np.float32)
    return ir.Tensor(clipped, dtype=ir.DataType.FLOAT, shape=tensor.shape, name=tensor.name)  # type: ignore[arg-type]
