"""Rotary position embeddings that an exporter took apart, as `mulshift.float::RotaryEmbedding` (arXiv:2104.09864).

    y = x * cos + concat(-x2, x1) * sin,    x = concat(x1, x2) along the last axis

cos and sin come from tables whose two halves are equal (`fuse_positions` makes them); the operator takes one half.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from mulshift.ir import add_initializer, constant
from mulshift.ir.float_functions import DOMAIN, domain_of
from mulshift.passes.base import Pass
from mulshift.passes.heads import SWAP, columns, insert, swapped


def fuse_rotary(owner: Pass, model: ir.Model) -> None:
    """Replace `Add(Mul(x, cos), Mul(halves of x turned, sin))` on [B, H, S, D]."""
    for node in list(model.graph):
        if node.op_type == "Add" and node.domain == "":
            _try(owner, model, node)


def _try(owner: Pass, model: ir.Model, node: ir.Node) -> None:
    graph = model.graph
    for straight, turned in (node.inputs, node.inputs[::-1]):
        for x, cos in _factors(straight):
            for half_turn, sin in _factors(turned):
                if x is None or not _turns(half_turn, x):
                    continue
                size = columns(x)
                if x.shape is None or len(x.shape) != 4 or size is None or size % 2:
                    return owner.skipped(node, "rotary embedding of other than [batch, heads, positions, even]")
                angles = [_half(graph, v, size, node) for v in (cos, sin)]
                if any(a is None for a in angles):
                    return owner.skipped(node, "rotary embedding whose cosines or sines are no table with equal halves")
                domain_of(model, "RotaryEmbedding")
                y = insert(graph, node, "RotaryEmbedding", [swapped(graph, x, node), *angles], {}, DOMAIN)
                y.shape = ir.Shape([x.shape[i] for i in SWAP])
                made = insert(graph, node, "Transpose", [y], {"perm": list(SWAP)})
                made.metadata_props.update(node.outputs[0].metadata_props)
                made.shape = node.outputs[0].shape
                owner.changed(node, "RotaryEmbedding")
                ir.convenience.replace_nodes_and_values(graph, node, [node], [], node.outputs, [made])
                return None
    return None


def _factors(value: ir.Value | None) -> list[tuple[ir.Value | None, ir.Value | None]]:
    node = None if value is None else value.producer()
    if node is None or node.op_type != "Mul" or node.domain != "":
        return []
    x, y = node.inputs
    return [(x, y), (y, x)]


def _turns(value: ir.Value | None, x: ir.Value) -> bool:
    """Whether the value is `concat(-x2, x1)`."""
    node = None if value is None else value.producer()
    size = columns(x)
    if node is None or node.op_type != "Concat" or len(node.inputs) != 2 or size is None:
        return False
    second, first = node.inputs
    negated = None if second is None else second.producer()
    if negated is None or negated.op_type != "Neg":
        return False
    return _part(negated.inputs[0], x) == (size // 2, size) and _part(first, x) == (0, size // 2)


def _part(value: ir.Value | None, x: ir.Value) -> tuple[int, int] | None:
    """(first, end) along the last axis of a Slice or Split of x."""
    node = None if value is None else value.producer()
    size = columns(x)
    if value is None or node is None or size is None or node.inputs[0] is not x:
        return None
    if node.op_type == "Split":
        axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 0
        width = columns(value)
        if axis not in (-1, 3) or width is None or 2 * width != size or len(node.outputs) != 2:
            return None
        first = width * int(value.index() or 0)
        return first, first + width
    if node.op_type != "Slice" or len(node.inputs) < 4:
        return None
    numbers = [constant(v) for v in node.inputs[1:]]
    if any(n is None or n.size != 1 for n in numbers):
        return None
    start, end, axis, *step = (int(n.reshape(-1)[0]) for n in numbers if n is not None)
    if axis not in (-1, 3) or step not in ([], [1]):
        return None
    return start if start >= 0 else start + size, min(end, size) if end >= 0 else end + size


def _half(graph: ir.Graph, value: ir.Value | None, size: int, before: ir.Node) -> ir.Value | None:
    """[B or 1, S, 1, size / 2] of cosines or sines [B or 1, 1, S, size]: an Unsqueeze of a Gather from a table."""
    lift = None if value is None else value.producer()
    if lift is None or lift.op_type != "Unsqueeze" or lift.inputs[0] is None:
        return _constant_half(graph, value, size)
    axes, gather = constant(lift.inputs[1]), lift.inputs[0].producer()
    if axes is None or axes.reshape(-1).tolist() not in ([1], [-3]) or gather is None or gather.op_type != "Gather":
        return None
    table = constant(gather.inputs[0])
    axis = gather.attributes["axis"].as_int() if "axis" in gather.attributes else 0
    if table is None or table.ndim != 2 or table.shape[1] != size or axis:
        return None
    half = table[:, : size // 2]
    if not np.array_equal(half, table[:, size // 2 :]) or gather.inputs[1] is None:
        return None
    name = f"{gather.inputs[0].name}.half"  # type: ignore[union-attr]
    rows = graph.initializers[name] if name in graph.initializers else add_initializer(graph, name, half)
    taken = insert(graph, before, "Gather", [rows, gather.inputs[1]], {"axis": 0})
    two = add_initializer(graph, f"{before.name}.axis", np.asarray([2], np.int64))
    return insert(graph, before, "Unsqueeze", [taken, two], {})


def _constant_half(graph: ir.Graph, value: ir.Value | None, size: int) -> ir.Value | None:
    array = constant(value)
    if array is None or array.ndim < 2 or array.shape[-1] != size:
        return None
    wide = array.reshape((1,) * (4 - array.ndim) + array.shape)
    half = wide[..., : size // 2]
    if wide.shape[1] != 1 or not np.array_equal(half, wide[..., size // 2 :]):
        return None
    return add_initializer(graph, f"{value.name}.half", np.ascontiguousarray(half.transpose(SWAP)))  # type: ignore[union-attr]
