"""Mistakes of torch's exporter, mended where the graph arrives; each with the release that was seen to make it."""

from __future__ import annotations

import onnx_ir as ir

from mulshift.ir.graphs import constant


def mend(model: ir.Model) -> None:
    """Apply every row of the list below."""
    for node in list(model.graph.all_nodes()):
        if node.op_type == "Conv":
            _drop_malformed_bias(node)


def _drop_malformed_bias(node: ir.Node) -> None:
    """torch 2.13: a Conv3d without bias gets zeros of shape [O, I] for one. ONNX wants [O] or none."""
    bias = constant(node.inputs[2]) if len(node.inputs) > 2 else None
    if bias is not None and bias.ndim != 1 and not bias.any():
        node.resize_inputs(2)
