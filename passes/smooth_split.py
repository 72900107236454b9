"""A place for scales where a norm's output is read by more than linear operators, as in post-norm blocks (BERT).

    y = norm(x);  z = y + ...;  W y   becomes   W (y * 1)

The product by ones is a maker that absorbs scales. It costs nothing at run time: the 16-bit stream has to be
requantized to 8 bits for the product in any case, and one scale a channel is as fast as one for all. What is left at
one goes again.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from mulshift.ir import add_initializer, constant, inherit_origin
from mulshift.passes.channel_flow import FLOAT_DOMAIN, plain_weight
from mulshift.passes.linear_weights import drop_unused, linear_of

_NORMS = frozenset({"LayerNormalization", "RMSNormalization"})


def split_norms(graph: ir.Graph) -> list[ir.Node]:
    """Put a Mul by ones between norms and their linear readers, where they have others too; the new nodes."""
    added: list[ir.Node] = []
    for node in list(graph):
        if node.op_type not in _NORMS or node.domain not in ("", FLOAT_DOMAIN):
            continue
        y, scale = node.outputs[0], constant(node.inputs[1])
        linear = [u for u in y.uses() if u.idx == 0 and u.node.graph is graph and _is_linear(u.node)]
        alone = len(linear) == len(y.uses()) and not y.is_graph_output()
        if linear and not alone and scale is not None and scale.ndim == 1:
            added.append(_insert(graph, node, [u.node for u in linear], scale.size))
    return added


def _is_linear(node: ir.Node) -> bool:
    return linear_of(node) is not None and plain_weight(node) is not None


def _insert(graph: ir.Graph, norm: ir.Node, readers: list[ir.Node], channels: int) -> ir.Node:
    y = norm.outputs[0]
    ones = add_initializer(graph, f"{y.name}.smooth", np.ones(channels, np.float32))
    node = ir.node("Mul", [y, ones], name=f"{norm.name}/smooth")
    inherit_origin([node], [norm])
    made = node.outputs[0]
    made.name, made.type, made.shape = f"{y.name}_smooth", y.type, y.shape
    graph.insert_after(norm, node)
    for reader in readers:
        reader.replace_input_with(0, made)
    return node


def drop_idle(graph: ir.Graph, added: list[ir.Node]) -> None:
    """Take out the products that are still by ones."""
    for node in added:
        x, scale = node.inputs
        factor = constant(scale)
        if x is None or factor is None or (factor != 1).any():
            continue
        node.outputs[0].replace_all_uses_with(x)
        graph.remove(node, safe=True)
        drop_unused(graph, scale)
