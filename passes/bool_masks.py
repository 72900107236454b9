"""Masks that are added to attention scores, as the booleans that they were made from.

A mask is 0 where a key may be attended and a large negative number (-1e4 and below) elsewhere. However an exporter
wrote it, `as_bool` follows it back to what decided: a comparison, a 0/1 input, a constant. Softmax then leaves keys
out instead of adding numbers that no integer range can hold beside real scores.
"""

from __future__ import annotations

import onnx_ir as ir

from mulshift.ir import Array, add_initializer, constant, inherit_origin, is_float
from mulshift.passes.masks import MASK

_MOVERS = frozenset("Expand Flatten Gather Identity Reshape Slice Squeeze Tile Transpose Unsqueeze".split())
_ARITHMETIC = frozenset("Add Cast Div Identity Mul Neg Sub".split())
_DEEPEST = 32


def as_bool(graph: ir.Graph, mask: ir.Value | None, before: ir.Node, depth: int = _DEEPEST) -> ir.Value | None:
    """A bool value that is true where `mask` is 0 and false where it rules out; None if that cannot be told.

    New nodes are written in front of `before`.
    """
    if mask is None or depth == 0:
        return None
    array = constant(mask)
    if array is not None:
        return _constant(graph, mask, array)
    node = mask.producer()
    if node is None or node.domain != "":
        return None
    if node.op_type in _MOVERS:
        moved = as_bool(graph, node.inputs[0], before, depth - 1)
        return None if moved is None else _write(graph, node, node.op_type, [moved, *node.inputs[1:]], before)
    if node.op_type == "Where":
        return _of_where(graph, node, before, depth)
    if node.op_type in ("Add", "Min") and len(node.inputs) == 2 and all(is_float(v) for v in node.inputs):
        parts = [as_bool(graph, v, before, depth - 1) for v in node.inputs]
        if all(p is not None for p in parts):
            return _write(graph, node, "And", parts, before)
    return _of_flag(graph, mask, before)


def _constant(graph: ir.Graph, mask: ir.Value, array: Array) -> ir.Value | None:
    keeps = array == 0
    if array.dtype.kind != "f" or not (keeps | (array <= MASK)).all():
        return None
    return add_initializer(graph, f"{mask.name}.attend", keeps)


def _of_where(graph: ir.Graph, node: ir.Node, before: ir.Node, depth: int) -> ir.Value | None:
    """`Where(condition, a, b)`: each side rules out, is 0, or is a mask itself."""
    condition, a, b = node.inputs
    yes, no = _verdict(a), _verdict(b)
    if yes is False and _asks_for(condition, b):
        no = True  # b is 0 wherever it is chosen
    condition = _plain(graph, condition, before)
    if yes is True and no is False:
        return condition
    if yes is False and no is True:
        return _write(graph, node, "Not", [condition], before)
    inner = as_bool(graph, b if yes is False else a, before, depth - 1) if False in (yes, no) else None
    if inner is None:
        return None
    keep = _write(graph, node, "Not", [condition], before) if yes is False else condition
    return _write(graph, node, "And", [keep, inner], before)


def _asks_for(condition: ir.Value | None, value: ir.Value | None) -> bool:
    """Whether a condition is `value != 0`."""
    node = None if condition is None else condition.producer()
    return node is not None and node.op_type == "Cast" and node.domain == "" and node.inputs[0] is value


def _verdict(value: ir.Value | None) -> bool | None:
    """True for a constant of zeros, False for one of masking numbers, None for anything else."""
    array = constant(value)
    if array is None or array.dtype.kind != "f" or not array.size:
        return None
    return True if not array.any() else False if (array <= MASK).all() else None


def _plain(graph: ir.Graph, condition: ir.Value | None, before: ir.Node) -> ir.Value | None:
    """A condition without float arithmetic: `m * flag + t != 0` is the flag or its opposite."""
    node = None if condition is None else condition.producer()
    found = _affine(node.inputs[0]) if node is not None and node.op_type == "Cast" and node.domain == "" else None
    if found is None:
        return condition
    leaf, m, t = found
    if t == 0 and m != 0:
        return _flag(graph, leaf, before)
    return _write(graph, leaf.producer(), "Not", [_flag(graph, leaf, before)], before) if m + t == 0 else condition


def _of_flag(graph: ir.Graph, mask: ir.Value, before: ir.Node) -> ir.Value | None:
    """`m * flag + t` of a flag that is 0 or 1, an integer or a boolean before a Cast: what it is at both."""
    found = _affine(mask)
    if found is None:
        return None
    leaf, m, t = found
    if m + t == 0 and t <= MASK:
        return _flag(graph, leaf, before)
    if t == 0 and m <= MASK:
        return _write(graph, leaf.producer(), "Not", [_flag(graph, leaf, before)], before)
    return None


def _affine(value: ir.Value | None) -> tuple[ir.Value, float, float] | None:
    """(flag, m, t) of a float value `m * flag + t`."""
    m, t = 1.0, 0.0
    while value is not None and is_float(value):
        node = value.producer()
        step = None if node is None or node.domain != "" or node.op_type not in _ARITHMETIC else _step(node)
        if step is None:
            return None
        value, (factor, shift) = step
        m, t = m * factor, m * shift + t
    return None if value is None else (value, m, t)


def _flag(graph: ir.Graph, leaf: ir.Value, before: ir.Node) -> ir.Value:
    if leaf.dtype == ir.DataType.BOOL:
        return leaf
    return _write(graph, leaf.producer(), "Cast", [leaf], before, to=int(ir.DataType.BOOL))


def _step(node: ir.Node) -> tuple[ir.Value, tuple[float, float]] | None:
    """The operand of an affine step that is not constant, and the step's factor and shift."""
    if node.op_type in ("Cast", "Identity"):
        return (node.inputs[0], (1.0, 0.0)) if node.inputs[0] is not None else None
    if node.op_type == "Neg":
        return (node.inputs[0], (-1.0, 0.0)) if node.inputs[0] is not None else None
    x, y = node.inputs
    cx, cy = constant(x), constant(y)
    if x is not None and cx is None and cy is not None and cy.size == 1:
        c = float(cy.reshape(-1)[0])
        return x, {"Add": (1.0, c), "Sub": (1.0, -c), "Mul": (c, 0.0), "Div": (1 / c if c else 0.0, 0.0)}[node.op_type]
    if y is not None and cy is None and cx is not None and cx.size == 1 and node.op_type != "Div":
        c = float(cx.reshape(-1)[0])
        return y, {"Add": (1.0, c), "Sub": (-1.0, c), "Mul": (c, 0.0)}[node.op_type]
    return None


def _write(
    graph: ir.Graph,
    like: ir.Node | None,
    op: str,
    inputs: list[ir.Value | None],
    before: ir.Node,
    **attributes: int,
) -> ir.Value:
    """A bool node; a mover keeps the attributes and the shape of the node that it copies."""
    copied = dict(like.attributes) if like is not None and op == like.op_type else attributes
    base = before.name if like is None else like.name
    node = ir.node(op, inputs, copied, name=f"{base}/{op}")
    inherit_origin([node], [like or before])
    made = node.outputs[0]
    made.dtype = ir.DataType.BOOL
    made.shape = None if like is None else like.outputs[0].shape
    graph.insert_before(before, node)
    return made
