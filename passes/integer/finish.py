"""After the walk: borders, removal of the float graph, names, and the list of float islands."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedFunctionsPass, RemoveUnusedNodesPass, RemoveUnusedOpsetsPass

from mulshift.ir.levels import float_nodes
from mulshift.passes.integer.forms import asked_to_stay
from mulshift.passes.integer.lowering import Lowering


def finish(low: Lowering) -> list[tuple[ir.Node, str]]:
    """Dequantize where float is still read, drop what nobody reads, rename; (island, reason) in graph order."""
    _replace(low)
    _dequantize(low)
    RemoveUnusedNodesPass()(low.model)
    RemoveUnusedFunctionsPass()(low.model)  # type: ignore[no-untyped-call]
    RemoveUnusedOpsetsPass()(low.model)
    low.graph.sort()
    drop_unused_initializers(low.graph)
    _rename(low)
    return list(_islands(low))


def _replace(low: Lowering) -> None:
    for old, new in low.replaced.items():
        name = old.name
        if old.is_graph_output():
            old.name = low.unique(f"{name}_float")
            new.name = name
            low.wanted.pop(new, None)
        old.replace_all_uses_with(new, replace_graph_outputs=True)


def _dequantize(low: Lowering) -> None:
    """A DequantizeLinear for every float value that a live node or the graph's user reads and that has integers."""
    live, needed = _live(low)
    for value in needed:
        held = low.known[value]
        axis = held.q.spec.axis
        scale, zero_point = low.qparam_constants(held.q, str(value.name))
        inputs = [held.value, scale] if held.q.spec.bits == 32 else [held.value, scale, zero_point]
        attributes = {} if held.q.per_tensor else {"axis": axis}
        with low.writing(*_made_by(value)):
            y = low.standard("DequantizeLinear", inputs, attributes, ir.DataType.FLOAT, value.shape)
        _take_over(value, y, live, low)


def _made_by(value: ir.Value) -> tuple[ir.Node, ...]:
    node = value.producer()
    return () if node is None else (node,)


def _take_over(value: ir.Value, y: ir.Value, live: set[ir.Node], low: Lowering) -> None:
    for use in list(value.uses()):
        if use.node in live or use.node.graph is not low.graph:
            use.node.replace_input_with(use.idx, y)
    if not value.is_graph_output():
        return
    name = value.name
    value.name = low.unique(f"{name}_float")
    y.name, y.type = name, value.type
    outputs = low.graph.outputs
    for k, output in enumerate(outputs):
        if output is value:
            outputs[k] = y


def _live(low: Lowering) -> tuple[set[ir.Node], list[ir.Value]]:
    """(nodes that the outputs need, float values to dequantize), integers taken in place of known floats."""
    live: set[ir.Node] = set()
    needed: dict[ir.Value, None] = {}
    pending = list(low.graph.outputs)
    seen: set[ir.Value] = set()
    while pending:
        value = pending.pop()
        if value in seen:
            continue
        seen.add(value)
        if value in low.known:
            needed[value] = None
            pending.append(low.known[value].value)
            continue
        node = value.producer()
        if node is not None and node not in live:
            live.add(node)
            pending.extend(_reads(node))
    return live, list(needed)


def _reads(node: ir.Node) -> Iterator[ir.Value]:
    """Inputs of a node and of the nodes in its subgraphs."""
    yield from (v for v in node.inputs if v is not None)
    for attr in node.attributes.values():
        graphs = [attr.value] if attr.type == ir.AttributeType.GRAPH else []
        graphs = list(attr.value) if attr.type == ir.AttributeType.GRAPHS else graphs
        for graph in graphs:
            yield from graph.outputs
            for inner in graph.all_nodes():
                yield from (v for v in inner.inputs if v is not None)


def drop_unused_initializers(graph: ir.Graph) -> None:
    """Initializers that nothing reads."""
    for name, value in list(graph.initializers.items()):
        if not value.uses() and not value.is_graph_output() and not value.is_graph_input():
            del graph.initializers[name]


def _rename(low: Lowering) -> None:
    """Names that the float graph has given up: values as they stand for, nodes as they came from, constants plainly."""
    graph = low.graph
    values = [v for n in graph for v in n.outputs if v.name] + list(graph.initializers.values())
    moving = [v for v in values if v in low.wanted and not v.is_graph_output()]
    taken = {str(v.name) for v in graph.inputs} | {str(v.name) for n in graph.all_nodes() for v in n.outputs}
    taken = (taken | set(graph.initializers)) - {str(v.name) for v in moving}
    for k, value in enumerate(moving):  # out of each other's way
        value.name = f"mulshift.moving.{k}"
    for value in moving:
        value.name = next(n for n in _names(low.wanted[value]) if n not in taken)
        taken.add(value.name)
    _rename_nodes(low)


def _rename_nodes(low: Lowering) -> None:
    taken = {str(n.name) for n in low.graph.all_nodes() if n not in low.node_names}
    for node in low.graph:
        if node in low.node_names:
            base = low.node_names[node]
            node.name = next(n for n in (base, *(f"{base}.{k}" for k in range(1, len(taken) + 2))) if n not in taken)
            taken.add(node.name)


def _names(name: str) -> Iterator[str]:
    yield name
    yield f"{name}.q"
    k = 1
    while True:
        yield f"{name}.q{k}"
        k += 1


def _islands(low: Lowering) -> Iterator[tuple[ir.Node, str]]:
    for node in float_nodes(low.model):
        yield node, low.reasons.get(node, _reason(low, node))


def _reason(low: Lowering, node: ir.Node) -> str:
    if reason := asked_to_stay(node):
        return reason
    if node.op_type in low.rules or node.op_type in low.movers:
        return "its result is not quantized"
    return f"no integer form of {node.op_type}"
