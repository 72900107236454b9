"""A Hadamard transform of an activation, in front of the linear operator whose weights undo it."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from mulshift.ir import Array, add_initializer, attribute, fresh_name, inherit_origin, rank
from mulshift.passes.base import Pass
from mulshift.passes.float_functions import domain_of
from mulshift.passes.hadamard import hadamard, largest_order
from mulshift.passes.linear_weights import drop_unused
from mulshift.passes.rotation.regions import MARK
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


def insert_online(owner: Pass, model: ir.Model, block: int) -> None:
    """`x W = (x H) (H^T W)` for every MatMul and Gemm behind a nonlinearity; H is blockdiag of orders up to `block`."""
    graph = model.graph
    matrices: dict[tuple[int, ir.DataType], ir.Value] = {}
    turned_inputs: dict[ir.Value, ir.Value] = {}
    for node in list(graph):
        x = _input(node)
        if x is None:
            continue
        channels = (dims_of(x) or (None,))[-1]
        order = largest_order(channels, block) if isinstance(channels, int) else 1
        h = hadamard(order)
        if order < _SMALLEST or h is None or x.dtype is None or not isinstance(channels, int):
            owner.skipped(node, f"no Hadamard matrix has an order that divides {channels}")
            continue
        if x not in turned_inputs:
            key = (order, x.dtype)
            if key not in matrices:
                matrices[key] = add_initializer(graph, f"hadamard.{order}", h.astype(x.dtype.numpy()))
            turned_inputs[x] = _transform(model, x, matrices[key], order)
        _absorb(graph, node, turned_inputs[x], h)
        owner.changed(node, f"an online Hadamard of order {order} on {channels // order} x {order} channels before it")


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
