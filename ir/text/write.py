"""A model as text: one value or node a line, deterministic and complete (see `mulshift.ir.text`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from mulshift.ir.errors import UnsupportedError
from mulshift.ir.text.literals import SHORT_TYPES, float_text, key, node_name, string_text, tensor_text, value_name

HEADER = "mulshift text 1"
MODEL_FIELDS = ("ir_version", "producer_name", "producer_version", "domain", "model_version")


@dataclass(frozen=True)
class Style:
    """What to leave out."""

    elide: bool = False
    metadata: bool = True


def model_lines(model: ir.Model, style: Style) -> Iterator[str]:
    """The lines of a model."""
    yield HEADER
    fields = {name: getattr(model, name) for name in MODEL_FIELDS if getattr(model, name) is not None}
    yield "model {" + ", ".join(f"{k}={_scalar(v)}" for k, v in fields.items()) + "}"
    yield from _notes("", model.doc_string, model.metadata_props, style)
    yield from _graph("graph ", model.graph, style)
    for function in model.functions.values():
        yield from _function(function, style)


def _function(function: ir.Function, style: Style) -> Iterator[str]:
    head = "function " + operator_text(function.domain, function.name, function.overload)
    parameters = [f"{key(a.name)}: {a.type.name.lower()}" for a in function.attributes.values() if a.value is None]
    defaults = [a for a in function.attributes.values() if a.value is not None]
    if parameters:
        head += " <" + ", ".join(parameters) + ">"
    yield head
    yield from _notes("  ", function.doc_string, function.metadata_props, style)
    for attr in defaults:
        yield from _prefixed("  default ", _attribute(attr, style))
    yield from _graph("  graph ", function.graph, style, function_body=True)


def _graph(head: str, graph: ir.Graph, style: Style, function_body: bool = False) -> Iterator[str]:
    indent = " " * (len(head) - len(head.lstrip()))
    name = "" if function_body or not graph.name else string_text(graph.name)
    inputs = ", ".join(_typed(v) for v in graph.inputs)
    outputs = ", ".join(value_name(v.name) for v in graph.outputs)
    yield f"{head}{name}({inputs}) -> ({outputs}) {{"
    inner = indent + "  "
    for domain, version in graph.opset_imports.items():
        yield f"{inner}opset {string_text(domain)} = {version}"
    if not function_body:
        yield from _notes(inner, graph.doc_string, graph.metadata_props, style)
    for value in graph.inputs:
        yield from _value_notes(inner, value, style)
    for value in graph.initializers.values():
        yield from _initializer(inner, value, style)
    for node in graph:
        yield from _node(inner, node, style)
    yield indent + "}"


def _initializer(indent: str, value: ir.Value, style: Style) -> Iterator[str]:
    tensor = value.const_value
    if tensor is None:
        yield f"{indent}{_typed(value)} = none"
    else:
        same = value.dtype == tensor.dtype and value.shape == tensor.shape
        declared = "" if same else f": {type_text(value.type, value.shape)}"
        literal = f"{type_text(ir.TensorType(tensor.dtype), tensor.shape)} {tensor_text(tensor, style.elide)}"
        yield f"{indent}{value_name(value.name)}{declared} = {literal}"
    if not value.is_graph_input():
        yield from _value_notes(indent, value, style)


def _node(indent: str, node: ir.Node, style: Style) -> Iterator[str]:
    outputs = ", ".join(_typed(v) for v in node.outputs)
    inputs = ", ".join("_" if v is None else value_name(v.name) for v in node.inputs)
    operator = operator_text(node.domain, node.op_type, node.overload)
    line = f"{indent}{outputs}{' ' if outputs else ''}= {operator}({inputs})"
    attributes = [node.attributes[k] for k in sorted(node.attributes)]
    comment = f" // {node_name(node.name)}" if node.name else ""
    if any(a.type in _GRAPHS and not a.is_ref() for a in attributes):
        yield line + " {"
        for attr in attributes:
            yield from _prefixed(indent + "  ", _attribute(attr, style))
        yield indent + "}" + comment
    else:
        flat = ", ".join(next(_attribute(a, style)) for a in attributes)
        yield line + (f" {{{flat}}}" if flat else "") + comment
    inner = indent + "  "
    yield from _notes(inner, node.doc_string, node.metadata_props, style)
    for value in node.outputs:
        yield from _value_notes(inner, value, style)


_GRAPHS = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)


def _attribute(attr: ir.Attr, style: Style) -> Iterator[str]:
    """`name=value`; several lines only if the value holds graphs."""
    head = f"{key(attr.name)}="
    if attr.is_ref():
        yield f"{head}@{key(str(attr.ref_attr_name))}: {attr.type.name.lower()}"
    elif attr.type == ir.AttributeType.GRAPH:
        yield from _prefixed(head, _graph("graph ", attr.as_graph(), style))
    elif attr.type == ir.AttributeType.GRAPHS:
        yield head + "graphs["
        for graph in attr.as_graphs():
            yield from _prefixed("  ", _graph("graph ", graph, style))
        yield "]"
    else:
        yield head + attribute_text(attr, style.elide)


def attribute_text(attr: ir.Attr, elide: bool = False) -> str:
    """An attribute's value, unless it holds graphs.

    Raises:
        UnsupportedError: a sparse tensor.
    """
    kinds, value = ir.AttributeType, attr.value
    if attr.type in (kinds.TENSOR, kinds.TYPE_PROTO):
        return _item(attr, value, elide)
    if attr.type in (kinds.TENSORS, kinds.TYPE_PROTOS):
        return attr.type.name.lower() + "[" + ", ".join(_item(attr, v, elide) for v in value) + "]"
    if attr.type in (kinds.INT, kinds.STRING):
        return _scalar(value)
    if attr.type == kinds.FLOAT:
        return float_text(value)
    if attr.type in (kinds.INTS, kinds.STRINGS, kinds.FLOATS):
        text = [float_text(v) if attr.type == kinds.FLOATS else _scalar(v) for v in value]
        return ("" if text else attr.type.name.lower()) + "[" + ", ".join(text) + "]"
    raise UnsupportedError(f"attribute '{attr.name}'", f"{attr.type.name} has no text form")


def _item(attr: ir.Attr, value: Any, elide: bool) -> str:
    if attr.type in (ir.AttributeType.TYPE_PROTO, ir.AttributeType.TYPE_PROTOS):
        return "type " + type_text(value.type, value.shape)
    name = f" {string_text(value.name)}" if value.name else ""
    kind = type_text(ir.TensorType(value.dtype), value.shape)
    return f"tensor{name} {kind} {tensor_text(value, elide)}"


def operator_text(domain: str, op_type: str, overload: str = "") -> str:
    """`Conv`, `mulshift::Conv`, `my::F:overload`."""
    text = (f"{key(domain)}::" if domain else "") + key(op_type)
    return text + (f":{key(overload)}" if overload else "")


def type_text(kind: ir.TypeProtocol | None, shape: ir.ShapeProtocol | None) -> str:
    """`f32[1,N,?]`; `f32[*]` of unknown rank; `_` where the type is unknown; `seq(...)`, `optional(...)`."""
    if kind is None:
        return "_" + _shape(shape)
    if isinstance(kind, ir.TensorType):
        return SHORT_TYPES[kind.dtype] + _shape(shape)
    if isinstance(kind, ir.SequenceType):
        return f"seq({type_text(kind.elem_type, shape)})"
    if isinstance(kind, ir.OptionalType):
        return f"optional({type_text(kind.elem_type, shape)})"
    raise UnsupportedError(f"type {kind}", "has no text form")


def _shape(shape: ir.ShapeProtocol | None) -> str:
    if shape is None:
        return "[*]"
    return "[" + ",".join(_dimension(d) for d in shape) + "]"


def _dimension(d: Any) -> str:
    if isinstance(d, int):
        return str(d)
    return "?" if d.value is None else key(str(d.value))


def _typed(value: ir.Value) -> str:
    if value.type is None and value.shape is None:
        return value_name(value.name)
    return f"{value_name(value.name)}: {type_text(value.type, value.shape)}"


def _value_notes(indent: str, value: ir.Value, style: Style) -> Iterator[str]:
    yield from _notes(indent, value.doc_string, value.metadata_props, style, f"{value_name(value.name)} ")


def _notes(indent: str, doc: str | None, metadata: Mapping[str, str], style: Style, subject: str = "") -> Iterator[str]:
    if not style.metadata:
        return
    if doc:
        yield f"{indent}. {subject}doc: {string_text(doc)}"
    for name in sorted(metadata):
        yield f"{indent}. {subject}{key(name)} = {string_text(metadata[name])}"


def _scalar(value: Any) -> str:
    return string_text(value) if isinstance(value, str | bytes) else str(int(value))


def _prefixed(prefix: str, lines: Iterator[str] | Sequence[str]) -> Iterator[str]:
    """The first line behind `prefix`, the others indented as far as the prefix is."""
    indent = " " * (len(prefix) - len(prefix.lstrip()))
    for i, line in enumerate(lines):
        yield (indent if i else prefix) + line
