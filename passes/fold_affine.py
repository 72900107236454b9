"""Fold a chain of per-channel nodes into the linear operator before or after it, or write it as one Mul and one Add."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from mulshift.ir import Array, add_initializer, describe, fresh_name, inherit_origin, sole_user, users
from mulshift.ir.metadata import RANGE
from mulshift.passes.channel_affine import MOVERS, Chain, across
from mulshift.passes.linear_weights import bias_of, drop_unused, linear_of, set_bias, set_weight, weight_of


def into_producer(graph: ir.Graph, chain: Chain) -> ir.Node | str:
    """`a * (W u + bias) + b`. Returns the linear node, or why it cannot be ("" where there is nothing to fold into)."""
    path: list[ir.Node] = []
    value, affine, reader = chain.x, chain.affine, chain.nodes[0]
    while (node := value.producer()) is not None and node.op_type in MOVERS and node.domain == "":
        moved = across(node, affine, down=False)
        if sole_user(value) is not reader or moved is None or node.inputs[0] is None:
            return ""
        path, value, affine, reader = [node, *path], node.inputs[0], moved, node
    row = linear_of(node)
    if node is None or row is None or node.graph is not graph:
        return ""
    if sole_user(value) is not reader:
        return f"{describe(node)} is read by others too"
    w = weight_of(node)
    if w is None:
        return f"the weights of {describe(node)} are not constant"
    vectors = affine.along(row.axis_out, row.outputs(node, w))
    bias = bias_of(node, row, row.outputs(node, w))
    if vectors is None or bias is None:
        return f"it does not follow the channels of {describe(node)}, or the bias of that is not constant"
    a, b = vectors
    if row.bias is None and len(chain.nodes) == 1 and (a == 1).all():
        return ""  # MatMul and its Add: nothing to gain
    set_weight(graph, node, row.scale_out(node, w, a))
    if row.bias is None:
        value = add_after(graph, node, b) if b.any() else value
    elif (a * bias + b).any() or len(node.inputs) > row.bias:
        set_bias(graph, node, row, a * bias + b)
    inherit_origin([node], [node, *chain.nodes])
    for mover in path:
        _rename(graph, mover.inputs[0])
    _end_at(graph, chain, chain.x if path else value)
    return node


def into_consumer(graph: ir.Graph, chain: Chain) -> ir.Node | str:
    """`W (a * x + b) + bias`. Returns the linear node, or why it cannot be ("" where there is nothing to fold into)."""
    path: list[ir.Node] = []
    value, affine = chain.y, chain.affine
    while (node := sole_user(value)) is not None and node.op_type in MOVERS and node.domain == "":
        moved = across(node, affine, down=True)
        if moved is None or node.inputs[0] is not value:
            return ""
        path, value, affine = [*path, node], node.outputs[0], moved
    row = linear_of(node)
    if node is None or row is None or node.graph is not graph:
        linear = [n for n in users(value) if linear_of(n) is not None]
        return f"others than {describe(linear[0])} read it too" if linear else ""
    w = weight_of(node) if node.inputs[0] is value else None
    if w is None:
        return f"the weights of {describe(node)} are not constant"
    vectors = affine.along(row.axis_in(node), row.inputs(node, w))
    bias = bias_of(node, row, row.outputs(node, w))
    if vectors is None or bias is None:
        return f"it does not follow the channels of {describe(node)}, or the bias of that is not constant"
    a, b = vectors
    shift = row.shift_in(node, w, b)
    if shift is None:
        return f"its shift meets zeros at the border of {describe(node)}, so it is not the same everywhere"
    set_weight(graph, node, row.scale_in(node, w, a))
    if row.bias is not None and shift.any():
        set_bias(graph, node, row, bias + shift)
    elif row.bias is None and shift.any():
        add_after(graph, node, shift)
    inherit_origin([node], [*chain.nodes, node])
    for mover in path:
        _rename(graph, mover.outputs[0])
    chain.y.replace_all_uses_with(chain.x)
    _remove(graph, chain)
    return node


def write_mul_add(graph: ir.Graph, chain: Chain) -> None:
    """Put `Mul(x, a)` and `Add(., b)` in the chain's place, each only where it does something."""
    steps = [("Mul", chain.affine.a, (chain.affine.a != 1).any()), ("Add", chain.affine.b, chain.affine.b.any())]
    name, like, value = str(chain.y.name), chain.y, chain.x
    made: list[ir.Node] = []
    for op, array, needed in steps:
        if needed:
            c = add_initializer(graph, f"{name}.{op.lower()}", _narrow(array).astype(_dtype(like)))
            made.append(ir.node(op, [value, c], name=f"{chain.nodes[-1].name}.{op.lower()}"))
            value = made[-1].outputs[0]
    if not made:
        made.append(ir.node("Identity", [value], name=chain.nodes[-1].name))
        value = made[-1].outputs[0]
    graph.insert_after(chain.nodes[-1], made)
    inherit_origin(made, chain.nodes)
    for node in made[:-1]:
        node.outputs[0].name = fresh_name(graph, f"{name}.scaled")
        node.outputs[0].type, node.outputs[0].shape = like.type, like.shape
    _end_at(graph, chain, value)


def _narrow(array: Array) -> Array:
    """Without leading dimensions of one: [1, C, 1, 1] as [C, 1, 1]."""
    shape = array.shape
    while shape and shape[0] == 1:
        shape = shape[1:]
    return array.reshape(shape)


def _dtype(value: ir.Value) -> np.dtype[np.generic]:
    return np.dtype(np.float32) if value.dtype is None else value.dtype.numpy()


def add_after(graph: ir.Graph, node: ir.Node, b: Array) -> ir.Value:
    """An Add of [channels] between a MatMul and its readers; it takes the name of what it replaces."""
    y = node.outputs[0]
    stem = str(node.name if node.inputs[1] is None else node.inputs[1].name).removesuffix(".weight")
    add = ir.node("Add", [None, add_initializer(graph, f"{stem}.bias", b.astype(_dtype(y)))], name=f"{node.name}.bias")
    out = add.outputs[0]
    out.type, out.shape = y.type, y.shape
    out.metadata_props.update(y.metadata_props)
    y.replace_all_uses_with(out, replace_graph_outputs=True)
    out.name, y.name = y.name, fresh_name(graph, f"{y.name}.product")
    y.metadata_props.pop(RANGE, None)
    add.replace_input_with(0, y)
    graph.insert_after(node, add)
    inherit_origin([add], [node])
    return out


def _rename(graph: ir.Graph, value: ir.Value | None) -> None:
    """A value that stands for other numbers now gets another name, and loses its calibrated range."""
    if value is not None:
        value.name = fresh_name(graph, f"{value.name}.folded")
        value.metadata_props.pop(RANGE, None)


def _end_at(graph: ir.Graph, chain: Chain, value: ir.Value) -> None:
    """Let `value` be what the chain made: its readers, its name, its metadata; remove the chain."""
    y, name = chain.y, chain.y.name
    value.metadata_props.pop(RANGE, None)
    value.metadata_props.update(y.metadata_props)
    value.type, value.shape = y.type or value.type, y.shape or value.shape
    y.replace_all_uses_with(value, replace_graph_outputs=True)
    _remove(graph, chain)
    value.name = name


def _remove(graph: ir.Graph, chain: Chain) -> None:
    read = [v for node in chain.nodes for v in node.inputs]
    for node in reversed(chain.nodes):
        graph.remove(node, safe=True)
    for value in read:
        drop_unused(graph, value)
