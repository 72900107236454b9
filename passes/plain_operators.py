"""Operators with many forms in one: Gemm without transA or an ignored bias, Sum and Mean as additions of two; and
ConstantOfShape of a constant, which constant folding leaves alone, as that constant.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from mulshift.ir import add_initializer, attribute, constant, is_float
from mulshift.passes.base import Pass
from mulshift.passes.heads import insert

_FILLED = 1 << 16
"""Most elements of a ConstantOfShape that is written out."""

_NEUTRAL_BETA = 0.0


def plain_operators(owner: Pass, model: ir.Model) -> None:
    """Rewrite the operators of the table."""
    for node in list(model.graph):
        rewrite = _REWRITES.get(node.op_type)
        if rewrite is not None and node.domain == "":
            rewrite(owner, model.graph, node)


def _gemm(owner: Pass, graph: ir.Graph, node: ir.Node) -> None:
    """`Gemm(A, B, C, transA=1, beta=0)` is `Gemm(Transpose(A), B)`."""
    if len(node.inputs) > 2 and node.inputs[2] is not None and attribute(node, "beta", 1.0) == _NEUTRAL_BETA:
        node.resize_inputs(2)
        del node.attributes["beta"]
        owner.changed(node, "beta 0 ignores the bias")
    if not attribute(node, "transA", 0):
        return
    x = node.inputs[0]
    shape = None if x is None or x.shape is None else ir.Shape(list(x.shape)[::-1])
    turned = insert(graph, node, "Transpose", [x], {"perm": [1, 0]})
    turned.shape = shape
    node.replace_input_with(0, turned)
    del node.attributes["transA"]
    owner.changed(node, "transA is a Transpose of its input")


def _sum(owner: Pass, graph: ir.Graph, node: ir.Node) -> None:
    """`Sum(a, b, c)` is `Add(Add(a, b), c)`: the order in which runtimes add."""
    _replace(owner, graph, node, list(node.inputs))


def _mean(owner: Pass, graph: ir.Graph, node: ir.Node) -> None:
    """`Mean(a, b, c)` is `Sum(a, b, c) * (1 / 3)`."""
    if not is_float(node.outputs[0]):
        return  # its type is not known
    share = np.asarray(1 / len(node.inputs), np.float32)
    _replace(owner, graph, node, list(node.inputs), add_initializer(graph, f"{node.outputs[0].name}.share", share))


def _fill(owner: Pass, graph: ir.Graph, node: ir.Node) -> None:
    shape, y = constant(node.inputs[0]), node.outputs[0]
    if shape is None or np.prod(shape) > _FILLED or y.is_graph_output():
        return
    given = attribute(node, "value")
    number = np.zeros(1, np.float32) if given is None else given.numpy()
    filled = add_initializer(graph, f"{y.name}.filled", np.full(tuple(shape), number.reshape(()), number.dtype))
    owner.changed(node, "a constant")
    y.replace_all_uses_with(filled)
    graph.remove(node, safe=True)


def _replace(
    owner: Pass, graph: ir.Graph, node: ir.Node, terms: list[ir.Value | None], share: ir.Value | None = None
) -> None:
    """Additions of two in the node's place, and at last a Mul by `share`."""
    total = terms[0]
    for term in terms[1:]:
        total = insert(graph, node, "Add", [total, term], {})
    if share is not None:
        total = insert(graph, node, "Mul", [total, share], {})
    if total is terms[0]:
        total = insert(graph, node, "Identity", [total], {})
    assert total is not None
    owner.changed(node, "two operands at a time")
    ir.convenience.replace_nodes_and_values(graph, node, [node], [], node.outputs, [total])


_REWRITES: dict[str, Callable[[Pass, ir.Graph, ir.Node], None]] = {
    "Gemm": _gemm,
    "Sum": _sum,
    "Mean": _mean,
    "ConstantOfShape": _fill,
}
