"""Scaled dot-product attention, recognized and marked; it stays MatMul, Softmax, MatMul until a kernel takes it."""

from __future__ import annotations

import onnx_ir as ir

from mulshift.ir import attribute, constant, rank, sole_user
from mulshift.passes.base import Pass

ATTENTION = "mulshift.attention"
"""In `metadata_props` of each node from the scores to the output: the name of its last MatMul."""

_BETWEEN = ("Mul", "Div", "Add", "Where", "Reshape", "Identity", "Cast", "Dropout")
_MOVERS = ("Reshape", "Identity", "Cast", "Dropout")
_LONGEST = 8


def name_attention(owner: Pass, model: ir.Model) -> None:
    """Mark `softmax(scale * Q K^T + mask) V`: both products of two activations, the softmax over the last axis."""
    for softmax in model.graph:
        if softmax.op_type != "Softmax" or softmax.domain != "" or ATTENTION in softmax.metadata_props:
            continue
        before, after = _scores(softmax.inputs[0], _LONGEST), _values(softmax)
        if before and after and _over_last_axis(softmax):
            nodes = [*before, softmax, *after]
            for node in nodes:
                node.metadata_props[ATTENTION] = str(nodes[-1].name)
            owner.changed(softmax, f"attention of {len(nodes)} nodes, named '{nodes[-1].name}'")
        elif before or after:
            missing = "the softmax runs over another axis than the last"
            missing = missing if before and after else "one of its two products of activations is missing"
            owner.skipped(softmax, f"no attention: {missing}")


def _over_last_axis(softmax: ir.Node) -> bool:
    n = rank(softmax.inputs[0])
    return attribute(softmax, "axis", -1) in (-1, None if n is None else n - 1)


def _scores(value: ir.Value | None, depth: int) -> list[ir.Node] | None:
    """The nodes from the product of queries and keys to a value, through scale and mask; None if there are none."""
    node = None if value is None or constant(value) is not None else value.producer()
    if node is None or node.domain != "" or depth == 0:
        return None
    if _is_product(node):
        return [node]
    for source in node.inputs if node.op_type in _BETWEEN else ():
        found = _scores(source, depth - 1)
        if found:
            return [*found, node]
    return None


def _values(softmax: ir.Node) -> list[ir.Node] | None:
    """On from the softmax to the MatMul that reads it first."""
    path: list[ir.Node] = []
    node = sole_user(softmax.outputs[0])
    while node is not None and node.domain == "" and node.op_type in _MOVERS and len(path) < _LONGEST:
        path.append(node)
        node = sole_user(node.outputs[0])
    return [*path, node] if node is not None and _is_product(node) else None


def _is_product(node: ir.Node) -> bool:
    return node.op_type == "MatMul" and node.domain == "" and all(constant(v) is None for v in node.inputs)
