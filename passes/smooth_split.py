"""A place for scales where none is: after a norm whose output is read by more than linear operators, as in post-norm
blocks (BERT), and after a nonlinear function.

    y = norm(x);  z = y + ...;  W y   becomes   W (y * 1)

The product by ones is a maker that absorbs scales; what is left at one goes again. After a norm it costs nothing at run
time: the 16-bit stream has to be requantized to 8 bits for the product in any case, and one scale a channel is as fast
as one for all. After a function it costs a pass over the activation, whose table then has 16-bit entries.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from mulshift.ir import add_initializer, constant, inherit_origin, is_float
from mulshift.ir.float_functions import DOMAIN as FLOAT_DOMAIN
from mulshift.passes.channel_flow import plain_weight
from mulshift.passes.linear_weights import drop_unused, linear_of
from mulshift.passes.quant_rules import SMOOTHS

_NORMS = frozenset({"LayerNormalization", "RMSNormalization"})
_FUNCTIONS = frozenset("Gelu Swish Mish HardSwish Softplus Elu Celu Selu".split())
"""Unbounded functions of one tensor that scales do not pass."""


def split(graph: ir.Graph, functions: bool) -> list[ir.Node]:
    """Put a Mul by ones in front of linear readers, where nothing before them absorbs scales; the new nodes.

    Args:
        functions: after nonlinear functions too, not only after norms.
    """
    added: list[ir.Node] = []
    for node in list(graph):
        y = node.outputs[0]
        norm = node.op_type in _NORMS
        if node.domain not in ("", FLOAT_DOMAIN) or not (norm or (functions and node.op_type in _FUNCTIONS)):
            continue
        linear = [u.node for u in y.uses() if u.idx == 0 and u.node.graph is graph and _is_product(u.node)]
        alone = len(linear) == len(y.uses()) and not y.is_graph_output()
        channels = None if y.shape is None or not len(y.shape) else y.shape[-1]
        if linear and isinstance(channels, int) and channels > 1 and is_float(y) and not (norm and alone):
            added.append(_insert(graph, node, linear, channels))
    return added


def _is_product(node: ir.Node) -> bool:
    """Over the last axis."""
    return node.op_type in ("MatMul", "Gemm") and linear_of(node) is not None and plain_weight(node) is not None


def _insert(graph: ir.Graph, maker: ir.Node, readers: list[ir.Node], channels: int) -> ir.Node:
    y = maker.outputs[0]
    assert y.dtype is not None
    ones = add_initializer(graph, f"{y.name}.smooth", np.ones(channels, y.dtype.numpy()))
    node = ir.node("Mul", [y, ones], name=f"{maker.name}/smooth")
    inherit_origin([node], [maker])
    node.metadata_props[SMOOTHS] = "channels"
    made = node.outputs[0]
    made.name, made.type, made.shape = f"{y.name}_smooth", y.type, y.shape
    graph.insert_after(maker, node)
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
