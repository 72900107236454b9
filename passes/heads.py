"""Layouts of attention: from [batch, heads, positions, columns] to [batch, positions, heads, columns] and back."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from mulshift.ir import add_initializer, constant, inherit_origin, ints, rank

SWAP = (0, 2, 1, 3)
"""Transpose between the two layouts, its own inverse."""


def insert(
    graph: ir.Graph,
    before: ir.Node,
    op: str,
    inputs: list[ir.Value | None],
    attributes: dict[str, object],
    domain: str = "",
) -> ir.Value:
    """A new node in front of `before`, named after it; type of the first input, shape not known."""
    node = ir.node(op, inputs, attributes, domain=domain, name=f"{before.name}/{op}")  # type: ignore[arg-type]
    inherit_origin([node], [before])
    made = node.outputs[0]
    made.type = None if inputs[0] is None else inputs[0].type
    graph.insert_before(before, node)
    return made


def swapped(graph: ir.Graph, value: ir.Value, before: ir.Node) -> ir.Value:
    """The value with positions and heads exchanged: what its own Transpose read, else through a new one."""
    node = value.producer()
    if node is not None and _perm(node) == SWAP and node.inputs[0] is not None:
        return node.inputs[0]
    made = insert(graph, before, "Transpose", [value], {"perm": list(SWAP)})
    made.shape = None if value.shape is None else ir.Shape([value.shape[i] for i in SWAP])
    return made


def one_head(graph: ir.Graph, value: ir.Value, before: ir.Node) -> ir.Value:
    """[B, S, 1, D] of [B, S, D]."""
    axes = add_initializer(graph, f"{before.name}.axes", np.asarray([2], np.int64))
    made = insert(graph, before, "Unsqueeze", [value, axes], {})
    made.shape = None if value.shape is None else ir.Shape([*value.shape[:2], 1, value.shape[2]])
    return made


def positions_first(graph: ir.Graph, value: ir.Value | None, before: ir.Node) -> ir.Value | None:
    """k as [B, N, G, D] of k^T = `value` [B, H, D, N] or [B, D, N]; None if it is no transposed matrix of heads."""
    node = None if value is None else value.producer()
    if value is None or node is None or node.domain != "":
        return None
    perm = _perm(node)
    if perm == (0, 2, 1) and node.inputs[0] is not None:
        return one_head(graph, node.inputs[0], before)
    if perm == (0, 2, 3, 1):
        return node.inputs[0]
    if perm == (0, 1, 3, 2) and node.inputs[0] is not None:
        return swapped(graph, node.inputs[0], before)
    inner = _merged_transpose(node)
    return None if inner is None else swapped(graph, inner, before)


def _merged_transpose(node: ir.Node) -> ir.Value | None:
    """x of `Reshape(Transpose(Reshape(x, [B * H, N, D]), [0, 2, 1]), [B, H, D, N])`, x [B, H, N, D]."""
    turn = _source(node) if node.op_type == "Reshape" else None
    flat = _source(turn) if turn is not None and _perm(turn) == (0, 2, 1) else None
    x = flat.inputs[0] if flat is not None and flat.op_type == "Reshape" else None
    if x is None or x.shape is None or len(x.shape) != 4 or flat is None:
        return None
    before, after = x.shape, node.outputs[0].shape
    if after is None or len(after) != 4 or flat.outputs[0].shape is None or len(flat.outputs[0].shape) != 3:
        return None
    same = [before[0], before[1], before[3], before[2]] == list(after)
    kept = list(flat.outputs[0].shape)[1:] == list(before)[2:]
    return x if same and kept else None


def _perm(node: ir.Node) -> tuple[int, ...] | None:
    if node.op_type != "Transpose" or node.domain != "":
        return None
    return tuple(ints(node, "perm") or ())


def _source(node: ir.Node | None) -> ir.Node | None:
    return None if node is None or node.inputs[0] is None else node.inputs[0].producer()


def without_repeats(value: ir.Value) -> ir.Value:
    """x [B, G, N, D] of `Reshape(Expand(Unsqueeze(x, 2)))` [B, G * r, N, D], each head r times; else the value."""
    merge = value.producer()
    if merge is None or merge.op_type != "Reshape" or merge.domain != "":
        return value
    spread = _source(merge)
    lift = _source(spread)
    if spread is None or lift is None or (spread.op_type, lift.op_type) != ("Expand", "Unsqueeze"):
        return value
    axes, x = constant(lift.inputs[1]), lift.inputs[0]
    if axes is None or x is None or axes.reshape(-1).tolist() not in ([2], [-3]) or rank(x) != 4:
        return value
    wide, heads = spread.outputs[0].shape, value.shape
    if wide is None or heads is None or len(wide) != 5 or len(heads) != 4 or x.shape is None:
        return value
    groups, times = wide[1], wide[2]
    fits = isinstance(groups, int) and isinstance(times, int) and heads[1] == groups * times
    kept = list(wide)[3:] == list(heads)[2:] == list(x.shape)[2:] and x.shape[1] == groups
    return x if fits and kept else value


def columns(value: ir.Value | None) -> int | None:
    """Size of the last axis."""
    shape = None if value is None else value.shape
    last = None if shape is None or not len(shape) else shape[-1]
    return last if isinstance(last, int) else None
