"""Attention between Reshapes that only split and join the axis of heads, on flat heads.

Reshape(Attention(Reshape(q), Reshape(k), Reshape(v))) = FlatAttention(q, k, v)
"""

from __future__ import annotations

import onnx_ir as ir

from mulshift.ir import DOMAIN, inherit_origin, sole_user
from mulshift.ir.operators.attention import FLAT
from mulshift.passes.base import Pass
from mulshift.passes.kernels.epilogue import take_over
from mulshift.passes.shape_values import Dim, Dims, dims_of


def fuse_flat_attention(owner: Pass, graph: ir.Graph) -> None:
    """Each that all four Reshapes fit."""
    for node in list(graph):
        if node.domain != DOMAIN or node.op_type not in FLAT:
            continue
        parts = [_before(v) for v in node.inputs[:3]]
        joined = sole_user(node.outputs[0])
        if None in parts or joined is None or not _joins(joined, node.outputs[0]):
            continue
        splits = [part for part in parts if part is not None]
        if _heads(splits[1]) == _heads(splits[2]):
            owner.changed(_fuse(graph, node, splits, joined), "reads and makes flat heads")


def _before(value: ir.Value | None) -> ir.Node | None:
    """The Reshape that alone makes heads for the node that reads them."""
    node = None if value is None else value.producer()
    if value is None or node is None or sole_user(value) is None or not _is_reshape(node):
        return None
    return node if _splits(dims_of(node.inputs[0]), dims_of(value)) else None


def _joins(node: ir.Node, value: ir.Value) -> bool:
    return _is_reshape(node) and node.inputs[0] is value and _splits(dims_of(node.outputs[0]), dims_of(value))


def _is_reshape(node: ir.Node) -> bool:
    return node.domain == "" and node.op_type == "Reshape"


def _splits(flat: Dims | None, heads: Dims | None) -> bool:
    """[B, N, H * D] and [B, N, H, D]: one of B and N is known to be the same, so the other is too."""
    if flat is None or heads is None or (len(flat), len(heads)) != (3, 4):
        return False
    columns, count, depth = flat[2], heads[2], heads[3]
    if not isinstance(columns, int) or not isinstance(count, int) or not isinstance(depth, int):
        return False
    same = any(isinstance(flat[i], int) and flat[i] == heads[i] for i in range(2))
    return same and columns == count * depth > 0


def _heads(split: ir.Node) -> Dim:
    dims = dims_of(split.outputs[0])
    assert dims is not None
    return dims[2]


def _fuse(graph: ir.Graph, node: ir.Node, splits: list[ir.Node], joined: ir.Node) -> ir.Node:
    """In the place of the last Reshape."""
    attributes = {k: a.value for k, a in node.attributes.items()}
    attributes |= {"heads": _heads(splits[0]), "groups": _heads(splits[1])}
    inputs = [*(split.inputs[0] for split in splits), *node.inputs[3:]]
    new = ir.node(FLAT[node.op_type], inputs, attributes, domain=DOMAIN, name=node.name)
    new.metadata_props.update(node.metadata_props)
    inherit_origin([new], [node, *splits, joined])
    graph.insert_before(joined, new)
    take_over(joined.outputs[0], new.outputs[0])
    for gone in dict.fromkeys((joined, node, *splits)):
        graph.remove(gone, safe=True)
    return new
