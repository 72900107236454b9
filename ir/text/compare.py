"""Whether two models are the same, and in words where they first differ.

Names, types, numbers, attributes and metadata count; the order of attributes, metadata, initializers and functions does
not, nor do NaN payloads.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import zip_longest
from typing import Any

import numpy as np
import onnx_ir as ir

from mulshift.ir.metadata import describe
from mulshift.ir.text.literals import SMALL, tensor_text
from mulshift.ir.text.write import MODEL_FIELDS, attribute_text, operator_text, type_text


def difference(a: ir.Model, b: ir.Model) -> str | None:
    """The first difference, e.g. `node 'conv1' (Conv): attribute 'pads' is [0, 0], not [1, 1]`; None if equal."""
    for left, right in zip_longest(_facts(a), _facts(b)):
        if left is None or right is None or left[1] != right[1]:
            where, what, _ = left or right
            return f"{where}: {what} is only in one of the two"
        if left[2] != right[2]:
            return f"{left[0]}: {left[1]} is {left[2]!r}, not {right[2]!r}"
    return None


def equal(a: ir.Model, b: ir.Model) -> bool:
    """Whether the two are the same in every fact that `difference` compares."""
    return difference(a, b) is None


_Fact = tuple[str, str, Any]


def _facts(model: ir.Model) -> Iterator[_Fact]:
    for name in MODEL_FIELDS:
        yield "model", name, getattr(model, name)
    yield from _notes("model", model)
    yield from _graph_facts("graph", model.graph)
    functions = {operator_text(*f.identifier()): f for f in model.functions.values()}
    yield "model", "functions", sorted(functions)
    for name, function in sorted(functions.items()):
        where = f"function '{name}'"
        yield from _notes(where, function)
        for key in sorted(function.attributes):
            yield from _attribute_facts(where, function.attributes[key])
        yield from _graph_facts(where, function.graph, named=False)


def _graph_facts(where: str, graph: ir.Graph, named: bool = True) -> Iterator[_Fact]:
    if named:
        yield where, "name", graph.name or ""
        yield from _notes(where, graph)
    yield where, "opset", dict(sorted(graph.opset_imports.items()))
    for what, values in (("inputs", graph.inputs), ("outputs", graph.outputs)):
        yield where, what, [v.name for v in values]
    yield where, "initializers", sorted(graph.initializers)
    for value in (*graph.inputs, *(graph.initializers[k] for k in sorted(graph.initializers))):
        yield from _value_facts(value)
    yield where, "number of nodes", len(graph)
    for node in graph:
        yield from _node_facts(node)


def _node_facts(node: ir.Node) -> Iterator[_Fact]:
    where = describe(node)
    yield where, "operator", operator_text(node.domain, node.op_type, node.overload)
    yield where, "name", node.name or ""
    yield where, "inputs", [None if v is None else v.name for v in node.inputs]
    yield where, "outputs", [v.name or "" for v in node.outputs]
    yield where, "attributes", sorted(node.attributes)
    for key in sorted(node.attributes):
        yield from _attribute_facts(where, node.attributes[key])
    yield from _notes(where, node)
    for value in node.outputs:
        yield from _value_facts(value)


def _attribute_facts(where: str, attr: ir.Attr) -> Iterator[_Fact]:
    what = f"attribute '{attr.name}'"
    yield where, f"{what} (type)", attr.type.name
    if attr.is_ref():
        yield where, what, f"@{attr.ref_attr_name}"
    elif attr.value is None:
        yield where, what, None
    elif attr.type == ir.AttributeType.GRAPH:
        yield from _graph_facts(f"{where}, {attr.name}", attr.as_graph())
    elif attr.type == ir.AttributeType.GRAPHS:
        yield where, what, len(attr.as_graphs())
        for i, graph in enumerate(attr.as_graphs()):
            yield from _graph_facts(f"{where}, {attr.name}[{i}]", graph)
    elif attr.type == ir.AttributeType.TENSOR:
        yield where, what, _tensor(attr.as_tensor())
    else:
        yield where, what, attribute_text(attr)


def _value_facts(value: ir.Value) -> Iterator[_Fact]:
    where = f"value '{value.name}'"
    yield where, "type", type_text(value.type, value.shape)
    yield from _notes(where, value)
    if value.is_initializer():
        yield where, "data", None if value.const_value is None else _tensor(value.const_value)


def _notes(where: str, thing: Any) -> Iterator[_Fact]:
    yield where, "documentation", thing.doc_string or ""
    yield where, "metadata keys", sorted(thing.metadata_props)
    for key in sorted(thing.metadata_props):
        yield where, f"metadata '{key}'", thing.metadata_props[key]


def _tensor(tensor: ir.TensorProtocol) -> str:
    """Type and numbers in words short enough to show; NaNs are all alike."""
    kind = type_text(ir.TensorType(tensor.dtype), tensor.shape)
    if tensor.size <= SMALL or tensor.dtype == ir.DataType.STRING:
        return f"{kind} {tensor_text(tensor, elide=False)}"
    array = tensor.numpy()
    if tensor.dtype.is_floating_point() and np.isnan(array.astype(np.float32)).any():
        array = np.where(np.isnan(array.astype(np.float32)), np.full_like(array, np.nan), array)
    digest = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:12]
    return f"{kind} <sha256:{digest}>"
