"""Cosines and sines of positions as tables: `cos(p * f)` of an integer p and constants f is row p of a table.

No integer kernel computes a cosine; every model with rotary or sinusoidal positions computes the same ones again in
each run. The piece of graph between a Cast of integers `p [..., 1]` and a Cos or Sin `[..., K]` is evaluated for p =
0, 1, ..., rows - 1, as the model would, and `Gather` picks the rows. A longer sequence is an error of Gather that
names the node.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from mulshift.ir import Array, add_initializer, constant, fresh_name, inherit_origin, is_float
from mulshift.passes.base import Pass

_STEPS = frozenset("Add Cast Concat Cos Div Identity Mul Neg Sin Sub".split())
_LONGEST = 32


def fuse_positions(owner: Pass, model: ir.Model, rows: int) -> None:
    """Replace every Cos and Sin of positions by a Gather from a constant of `rows` rows."""
    for node in list(model.graph):
        if node.op_type in ("Cos", "Sin") and node.domain == "" and constant(node.inputs[0]) is None:
            _replace(owner, model.graph, _before_unsqueeze(model.graph, node), rows)


def _before_unsqueeze(graph: ir.Graph, node: ir.Node) -> ir.Node:
    """`cos(unsqueeze(x))` as `unsqueeze(cos(x))`, if that is a function of positions; the cosine."""
    lift = node.inputs[0].producer() if node.inputs[0] is not None else None
    if lift is None or lift.op_type != "Unsqueeze" or constant(lift.inputs[1]) is None or lift.inputs[0] is None:
        return node
    inner = ir.node(node.op_type, [lift.inputs[0]], name=f"{node.name}/{node.op_type}")
    graph.insert_before(node, inner)
    if _piece(inner) is None:
        graph.remove(inner, safe=True)
        return node
    y = inner.outputs[0]
    y.name = fresh_name(graph, f"{node.outputs[0].name}.{node.op_type.lower()}")
    y.type, y.shape = node.outputs[0].type, lift.inputs[0].shape
    outer = ir.node("Unsqueeze", [y, lift.inputs[1]], name=node.name)
    inherit_origin([inner, outer], [node])
    outer.outputs[0].metadata_props.update(node.outputs[0].metadata_props)
    ir.convenience.replace_nodes_and_values(graph, node, [node], [outer], node.outputs, outer.outputs)
    return inner


def _replace(owner: Pass, graph: ir.Graph, node: ir.Node, rows: int) -> None:
    found = _piece(node)
    if found is None:
        return owner.skipped(node, "it is no function of integer positions and constants alone")
    position, nodes = found
    table = _evaluate(position, nodes, rows)
    if table is None:
        return owner.skipped(node, "its constants vary over other axes than the last")
    y = node.outputs[0]
    last = add_initializer(graph, f"{y.name}.last", np.asarray([-1], np.int64))
    squeeze = ir.node("Squeeze", [position, last], name=f"{node.name}/Squeeze")
    squeeze.outputs[0].type = position.type
    squeeze.outputs[0].shape = None if position.shape is None else ir.Shape(list(position.shape)[:-1])
    gather = ir.node(
        "Gather", [add_initializer(graph, f"{y.name}.table", table), squeeze.outputs[0]], {"axis": 0}, name=node.name
    )
    inherit_origin([squeeze, gather], nodes)
    owner.changed(node, f"a table of {rows} positions")
    ir.convenience.replace_nodes_and_values(graph, node, [node], [squeeze, gather], [y], gather.outputs)
    return None


def _piece(last: ir.Node) -> tuple[ir.Value, list[ir.Node]] | None:
    """(integer positions [..., 1], nodes in order of evaluation)."""
    nodes: dict[ir.Node, None] = {}
    positions: dict[ir.Value, None] = {}
    pending = [last]
    while pending:
        node = pending.pop()
        if node.domain != "" or node.op_type not in _STEPS or len(nodes) > _LONGEST:
            return None
        nodes.pop(node, None)
        nodes[node] = None
        for value in node.inputs:
            if value is None or constant(value) is not None:
                continue
            if not is_float(value):
                positions[value] = None
                continue
            made = value.producer()
            if made is None:
                return None
            pending.append(made)
    if len(positions) != 1:
        return None
    position = next(iter(positions))
    ends_in_one = position.shape is not None and len(position.shape) > 0 and position.shape[-1] == 1
    return (position, list(nodes)[::-1]) if ends_in_one else None


def _evaluate(position: ir.Value, nodes: list[ir.Node], rows: int) -> Array | None:
    """[rows, K] in the model's own precision."""
    import torch

    from mulshift.ir.torch_ops import TORCH_OPS

    env: dict[ir.Value, Any] = {position: torch.arange(rows).reshape(rows, 1)}
    for node in nodes:
        values = []
        for value in node.inputs:
            array = constant(value)
            if array is None or value is None:
                values.append(None if value is None else env[value])
                continue
            if array.size != (array.shape[-1] if array.ndim else 1):
                return None
            values.append(torch.from_numpy(np.array(array.reshape(array.shape[-1:]))))
        if node.op_type == "Concat" and not _over_last(node):
            return None
        made = TORCH_OPS["", node.op_type](_flattened(node), values)
        if made is NotImplemented:
            return None
        env[node.outputs[0]] = made
    table = env[nodes[-1].outputs[0]]
    return np.asarray(table.numpy()) if table.ndim == 2 and table.shape[0] == rows else None


def _over_last(node: ir.Node) -> bool:
    axis, shape = node.attributes["axis"].as_int(), node.outputs[0].shape
    return axis == -1 or (shape is not None and axis == len(shape) - 1)


def _flattened(node: ir.Node) -> ir.Node:
    """The node on [rows, K], where the last axis is -1; it reads no value, which would keep its producer alive."""
    if node.op_type != "Concat":
        return node
    return ir.node("Concat", [], {"axis": -1})
