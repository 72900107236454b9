"""Graph inputs and outputs that stay integers, such as a cache of keys and values that only goes from step to step.

An input that one QuantizeLinear reads becomes the integers that it would make; an output that a DequantizeLinear makes
becomes the integers that it reads. Names stay, and the value's metadata (`get_qparams`) tells its scale and zero point.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase

import onnx_ir as ir

from mulshift.ir import UsageError, describe, get_qparams, inherit_origin, is_float, users
from mulshift.passes.base import Pass


def integer_inputs(owner: Pass, model: ir.Model, patterns: Sequence[str]) -> None:
    """Make the float inputs with these names integer.

    Raises:
        UsageError: no input has such a name.
    """
    _open(owner, model.graph, list(model.graph.inputs), patterns, "input", _open_input)


def integer_outputs(owner: Pass, model: ir.Model, patterns: Sequence[str]) -> None:
    """Make the float outputs with these names integer.

    Raises:
        UsageError: no output has such a name.
    """
    _open(owner, model.graph, list(model.graph.outputs), patterns, "output", _open_output)


def _open(
    owner: Pass,
    graph: ir.Graph,
    values: Sequence[ir.Value],
    patterns: Sequence[str],
    what: str,
    one: Callable[[ir.Graph, ir.Value], str],
) -> None:
    for value in _matching(values, patterns, what):
        if not is_float(value):
            continue
        reason = one(graph, value)
        if reason:
            owner.skipped(f"{what} '{value.name}'", f"stays float: {reason}")
        else:
            owner.changed(f"{what} '{value.name}'", "holds integers")


def _matching(values: Sequence[ir.Value], patterns: Sequence[str], what: str) -> list[ir.Value]:
    for pattern in patterns:
        if not any(fnmatchcase(str(v.name), pattern) for v in values):
            there = ", ".join(str(v.name) for v in values)
            raise UsageError("to-integer", f"no {what} is called '{pattern}'", f"there is {there}")
    return [v for v in values if any(fnmatchcase(str(v.name), p) for p in patterns)]


def _open_input(graph: ir.Graph, value: ir.Value) -> str:
    """Put the integers in the place of a float input; else why not."""
    readers = users(value)
    for node in readers:
        if node.op_type != "QuantizeLinear" or node.graph is not graph:
            return f"{describe(node)} reads its floats"
    if len(readers) != 1 or value.is_graph_output():
        return "it is read at several quantizations" if readers else "nothing reads it"
    old = readers[0].outputs[0]
    new = ir.Value(name=value.name, type=old.type, shape=value.shape, doc_string=value.doc_string)
    new.metadata_props.update(value.metadata_props | old.metadata_props)
    graph.inputs[list(graph.inputs).index(value)] = new
    value.name = f"{value.name}.float"
    old.replace_all_uses_with(new, replace_graph_outputs=True)
    graph.remove(readers[0], safe=True)
    return ""


def _open_output(graph: ir.Graph, value: ir.Value) -> str:
    """Put the integers in the place of a float output; else why not."""
    node = value.producer()
    integers = None if node is None or node.op_type != "DequantizeLinear" else node.inputs[0]
    if node is None or integers is None or get_qparams(integers) is None:
        return "nothing dequantizes it"
    if integers.is_graph_output() or integers.is_graph_input():
        copy = ir.node("Identity", [integers], name=f"{node.name}.integers")
        inherit_origin([copy], [node])
        copy.outputs[0].type, copy.outputs[0].shape = integers.type, integers.shape
        copy.outputs[0].metadata_props.update(integers.metadata_props)
        graph.insert_before(node, copy)
        integers = copy.outputs[0]
    name, value.name = value.name, f"{value.name}.float"
    integers.name = name
    for k, output in enumerate(graph.outputs):
        if output is value:
            graph.outputs[k] = integers
    if not value.uses():
        graph.remove(node, safe=True)
    return ""
