"""A Hadamard transform of an activation, in front of the linear operator whose weights undo it."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from mulshift.ir import Array, add_initializer, attribute, fresh_name, inherit_origin, rank
from mulshift.ir.float_functions import domain_of
from mulshift.passes.base import Pass
from mulshift.passes.hadamard import hadamard, largest_order
from mulshift.passes.linear_weights import drop_unused
from mulshift.passes.rotation.regions import MARK, Region
from mulshift.passes.rotation.ties import ATTENTIONS, is_constant, is_weight
from mulshift.passes.rotation.weights import in_axis, turned, weight
from mulshift.passes.shape_values import dims_of

_SMALLEST = 4
_MOVERS = ("Reshape", "Transpose", "Identity", "Squeeze", "Unsqueeze", "Flatten")
_ACTIVATIONS = (
    "Gelu", "Swish", "Relu", "Sigmoid", "Tanh", "HardSwish", "HardSigmoid", "Mish", "Elu", "Selu", "Celu", "LeakyRelu",
    "PRelu", "Clip", "Softplus", "Softsign", "ThresholdedRelu", *ATTENTIONS,
)  # fmt: skip
_PRODUCTS = ("Mul", "MatMul")
"""Nonlinear where both operands are activations: a gate, or the values of an attention."""


def online_regions(owner: Pass, graph: ir.Graph, block: int) -> list[Region]:
    """Each activation that a nonlinearity made and nothing has rotated, with the MatMul and Gemm nodes that read it."""
    found: dict[ir.Value, Region] = {}
    for node in graph:
        x = _input(node)
        dims = dims_of(x)
        if x is None or not dims:
            continue
        order = largest_order(dims[-1], block) if isinstance(dims[-1], int) else 1
        if order < _SMALLEST or x.dtype is None:
            owner.skipped(node, f"no Hadamard matrix has an order that divides {dims[-1]}")
            continue
        region = found.setdefault(x, Region(order, {x: len(dims) - 1}))
        region.readers[node] = None
    return list(found.values())


def write_online(owner: Pass, model: ir.Model, region: Region) -> None:
    """`x W = (x H) (H^T W)`, H in groups of the region's order; graphs keep one H of each order and type."""
    graph, order, h = model.graph, region.order, hadamard(region.order)
    (x,) = region.values
    assert h is not None and x.dtype is not None
    array = h.astype(x.dtype.numpy())
    known = graph.initializers.get(f"hadamard.{order}")
    if known is None or known.dtype != x.dtype or not np.array_equal(weight(known), array):
        known = add_initializer(graph, f"hadamard.{order}", array)
    y = _transform(model, x, known, order)
    for node in region.readers:
        _absorb(graph, node, y, h)
        owner.changed(node, f"an online Hadamard of order {order} on {(dims_of(x) or (0,))[-1]} channels before it")


def _input(node: ir.Node) -> ir.Value | None:
    """What a linear node reads, if that comes from a nonlinearity and nothing has rotated it."""
    if node.domain != "" or node.op_type not in ("MatMul", "Gemm") or attribute(node, "transA", 0):
        return None
    x, w = node.inputs[0], node.inputs[1]
    if x is None or not is_weight(w) or rank(w) != 2 or MARK in x.metadata_props:
        return None
    source = x.producer()
    while source is not None and source.domain == "" and source.op_type in _MOVERS and source.inputs[0] is not None:
        source = source.inputs[0].producer()
    if source is None:
        return None
    product = source.op_type in _PRODUCTS and not any(is_constant(v) for v in source.inputs)
    return x if product or source.op_type in _ACTIVATIONS else None


def _transform(model: ir.Model, x: ir.Value, h: ir.Value, order: int) -> ir.Value:
    graph, maker = model.graph, x.producer()
    assert maker is not None
    made = ir.node("Hadamard", [x, h], domain=domain_of(model, "Hadamard"), name=f"{maker.name}.hadamard")
    y = made.outputs[0]
    y.name, y.type, y.shape = fresh_name(graph, f"{x.name}.hadamard"), x.type, x.shape
    y.metadata_props[MARK] = f"online {order}"
    inherit_origin([made], [maker])
    graph.insert_after(maker, made)
    return y


def _absorb(graph: ir.Graph, node: ir.Node, x: ir.Value, h: Array) -> None:
    old = node.inputs[1]
    assert old is not None
    w = turned(weight(old), in_axis(node), h)
    node.replace_input_with(0, x)
    node.replace_input_with(1, None)
    drop_unused(graph, old)
    node.replace_input_with(1, add_initializer(graph, fresh_name(graph, str(old.name)), np.ascontiguousarray(w)))
