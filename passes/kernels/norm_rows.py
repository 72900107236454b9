"""A norm and the RowQuantize that alone reads it, as one node: RowQuantize(RmsNorm(x)) = RmsNormRowQuantize(x)."""

from __future__ import annotations

import onnx_ir as ir

from mulshift.ir import DOMAIN, attribute, inherit_origin, sole_user
from mulshift.ir.operators.norm import NORM_ROWS
from mulshift.passes.base import Pass
from mulshift.passes.kernels.epilogue import take_over


def fuse_norm_rows(owner: Pass, graph: ir.Graph) -> None:
    """Each that fits."""
    for node in list(graph):
        rows = sole_user(node.outputs[0]) if node.domain == DOMAIN and node.op_type in NORM_ROWS else None
        if rows is not None and (rows.domain, rows.op_type) == (DOMAIN, "RowQuantize"):
            owner.changed(_fuse(graph, node, rows), "makes the rows at once")


def _fuse(graph: ir.Graph, norm: ir.Node, rows: ir.Node) -> ir.Node:
    attributes = {k: a.value for k, a in norm.attributes.items()}
    attributes["q_x_zero_point"] = attribute(rows, "x_zero_point")
    name = NORM_ROWS[norm.op_type]
    new = ir.node(name, norm.inputs, attributes, domain=DOMAIN, num_outputs=2, name=norm.name)
    new.metadata_props.update(norm.metadata_props)
    inherit_origin([new], [norm, rows])
    graph.insert_before(rows, new)
    for before, after in zip(rows.outputs, new.outputs, strict=True):
        take_over(before, after)
    for node in (rows, norm):
        graph.remove(node, safe=True)
    return new
