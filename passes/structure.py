"""What must be true of a graph after every pass, whatever the pass did: sorted, closed, valid, same outputs."""

from __future__ import annotations

from typing import TypeAlias

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import CheckerPass

from mulshift.ir import VerificationError, describe, get_level, levels
from mulshift.passes.reals import is_quantized

Signature: TypeAlias = tuple[tuple[str | None, str], ...]


def signature(model: ir.Model) -> Signature:
    """Names and element types of the graph outputs, in order; "?" for one that is unknown, or integers for reals."""
    return tuple((v.name, "?" if v.dtype is None or is_quantized(v) else str(v.dtype)) for v in model.graph.outputs)


def check_structure(model: ir.Model, outputs: Signature, culprit: str) -> None:
    """Check the graph that `culprit` left.

    Args:
        model: any level.
        outputs: `signature` of the graph before; "?" as a type agrees with any.
        culprit: the pass, for messages.

    Raises:
        VerificationError: a value is read before it is made or never made, two values have one name, the outputs'
            names or types changed, the ONNX checker refuses the graph, or its level forbids something in it.
    """
    where = f"pass '{culprit}'"
    _check_order(model.graph, where)
    _check_names(model.graph, where)
    _check_outputs(signature(model), outputs, where)
    try:
        CheckerPass()(_without_files(model))
    except onnx.checker.ValidationError as e:
        raise VerificationError(where, f"left an invalid graph: {str(e).strip().splitlines()[0]}") from e
    illegal = levels.check(model)
    if illegal:
        more = f" (and {len(illegal) - 1} more)" if len(illegal) > 1 else ""
        raise VerificationError(where, f"left what level {get_level(model)} forbids: {illegal[0]}{more}")


def _without_files(model: ir.Model) -> ir.Model:
    """A copy in which weights that lie in files are inputs: the checker would look for them in the working folder."""
    copy = model.clone()
    graph = copy.graph
    for name, value in list(graph.initializers.items()):
        if isinstance(value.const_value, ir.ExternalTensor):
            del graph.initializers[name]
            value.const_value = None
            if value not in graph.inputs:
                graph.inputs.append(value)
    return copy


def _check_order(graph: ir.Graph, where: str, outer: frozenset[ir.Value] = frozenset()) -> None:
    known = set(outer) | set(graph.inputs) | set(graph.initializers.values())
    for node in graph:
        for value in node.inputs:
            if value is not None and value not in known:
                raise VerificationError(where, f"{describe(node)} reads '{value.name}' before anything makes it")
        for attr in node.attributes.values():
            for sub in subgraphs(attr):
                _check_order(sub, where, frozenset(known))
        known.update(node.outputs)
    for value in graph.outputs:
        if value not in known:
            raise VerificationError(where, f"nothing makes the output '{value.name}'")


def subgraphs(attr: ir.Attr) -> list[ir.Graph]:
    """The graphs in an attribute (If, Loop, Scan)."""
    if attr.type == ir.AttributeType.GRAPH:
        return [attr.as_graph()]
    return list(attr.as_graphs()) if attr.type == ir.AttributeType.GRAPHS else []


def _check_names(graph: ir.Graph, where: str) -> None:
    seen: dict[str, ir.Value] = {}
    made = [v for node in graph for v in node.outputs if v.name != "" or v.uses()]
    for value in [*graph.inputs, *graph.initializers.values(), *made]:
        name = value.name
        if not name:
            raise VerificationError(where, f"left a value of {_maker(value)} without a name")
        if seen.setdefault(name, value) is not value:
            raise VerificationError(where, f"left two values named '{name}'")


def _maker(value: ir.Value) -> str:
    node = value.producer()
    return "the graph" if node is None else describe(node)


def _check_outputs(after: Signature, before: Signature, where: str) -> None:
    names, expected = [n for n, _ in after], [n for n, _ in before]
    if names != expected:
        raise VerificationError(where, f"changed the outputs from {expected} to {names}")
    for (name, old), (_, new) in zip(before, after, strict=True):
        if "?" not in (old, new) and old != new:
            raise VerificationError(where, f"changed the type of output '{name}' from {old} to {new}")
