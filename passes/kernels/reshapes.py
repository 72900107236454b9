"""Channels-last forms of what changes a shape: where the elements of the twin lie in the order that is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from mulshift.ir import attribute, constant, ints, static_shape
from mulshift.ir.layout import AXES
from mulshift.passes.kernels.axes import axes_input, axes_of, check_order, spread
from mulshift.passes.kernels.relayout import Relayout, StaysError
from mulshift.passes.shape_values import dims_of, shape_values


def transpose(state: Relayout, node: ir.Node) -> None:
    """One Transpose of the twin, or none."""
    r = state.ranked(node.inputs[0])
    perm = ints(node, "perm") or list(range(r))[::-1]
    moved = [AXES[r][a] for a in perm]
    x = state.twin(node.inputs[0], node)
    if r == 3 and moved != [0, 2, 3]:
        raise StaysError("it is no move of channels last")
    if r == 3:
        _become(node, "Squeeze", [x, state.const("height.axis", np.asarray([1]))])
    elif moved == [0, 1, 2, 3] and not node.outputs[0].is_graph_output():
        node.outputs[0].replace_all_uses_with(x)
    elif moved == [0, 1, 2, 3]:
        _become(node, "Identity", [x])
    else:
        node.replace_input_with(0, x)
        node.attributes["perm"] = ir.AttrInt64s("perm", moved)


def squeeze(state: Relayout, node: ir.Node) -> None:
    """[N, C, L] from an image of height or width 1 has a twin; otherwise what is left must keep its order."""
    r = state.ranked(node.inputs[0])
    shape = static_shape(node.inputs[0])
    ones = None if shape is None else [i for i, d in enumerate(shape) if d == 1]
    axes = axes_of(node, 1, ones, r)
    if axes in ([2], [3]) and r == 4:
        _move_height(state, node, AXES[4][axes[0]], 1, 3)
        return
    check_order(axes, r)
    value = axes_input(state, node, 1, axes, r, lifted=True)
    node.resize_inputs(2)
    node.replace_input_with(1, value)
    node.replace_input_with(0, state.twin(node.inputs[0], node))


def unsqueeze(state: Relayout, node: ir.Node) -> None:
    """An image of height or width 1 from [N, C, L]."""
    axes = axes_of(node, 1, None, 4)
    if state.ranked(node.inputs[0]) != 3 or axes not in ([2], [3]):
        raise StaysError("it makes no image of height or width 1")
    _move_height(state, node, 1, AXES[4][axes[0]], 4)


def _move_height(state: Relayout, node: ir.Node, before: int, after: int, r: int) -> None:
    """The twin with its axis of size 1 at another place; r: rank of the result."""
    x = state.twin(node.inputs[0], node)
    if before == after:
        state.rewrite(node, [x], {}, r, "Identity")
        return
    removed, added = (state.const(f"{node.outputs[0].name}.axis", np.asarray([a])) for a in (before, after))
    state.rewrite(node, [state.write(node, "Squeeze", [x, removed], {}, x.dtype), added], {}, r, "Unsqueeze")


def flatten(state: Relayout, node: ir.Node) -> None:
    """The same elements in the same order, where only one of channels and positions is more than one."""
    _check_same_order(state, node)
    if int(attribute(node, "axis", 1)) not in (0, 1):
        raise StaysError("it splits channels from positions")
    node.replace_input_with(0, state.twin(node.inputs[0], node))


def reshape(state: Relayout, node: ir.Node) -> None:
    """The same where the elements keep their order; positions alone may be arranged anew between twins."""
    wanted = shape_values(node.inputs[1])
    if wanted is None or None in wanted:
        raise StaysError("its shape is not known")
    zeros = [] if attribute(node, "allowzero", 0) else [i for i, d in enumerate(wanted) if d == 0]
    if constant(node.inputs[1]) is not None and _arranges_positions(node, zeros):
        _rearrange(state, node, wanted)
        return
    _check_same_order(state, node)
    if any(zeros):
        raise StaysError("it copies sizes of axes")
    node.replace_input_with(0, state.twin(node.inputs[0], node))


def _check_same_order(state: Relayout, node: ir.Node) -> None:
    dims, r = dims_of(node.inputs[0]), state.ranked(node.inputs[0])
    if dims is None or not (dims[1] == 1 or dims[2:r] == (1,) * (r - 2)):
        raise StaysError("it mixes channels and positions")


def _arranges_positions(node: ir.Node, zeros: Sequence[int]) -> bool:
    """[N, C, positions] to [N, C, other positions], C known; no size of a position is copied."""
    x, y = dims_of(node.inputs[0]), dims_of(node.outputs[0])
    if x is None or y is None or len(x) not in AXES or len(y) not in AXES:
        return False
    return x[:2] == y[:2] and x[0] is not None and isinstance(x[1], int) and max(zeros, default=0) < 2


def _rearrange(state: Relayout, node: ir.Node, wanted: Sequence[Any]) -> None:
    dims, given = dims_of(node.outputs[0]), node.inputs[1]
    assert dims is not None and given is not None
    r = len(wanted)
    target = spread([wanted[0], dims[1], *wanted[2:]], r, 1)
    shape = state.derived(given, f"target{r}", "nhwc", np.asarray(target, np.int64))
    state.rewrite(node, [state.twin(node.inputs[0], node), shape], node.attributes, r)


def shape(state: Relayout, node: ir.Node) -> None:
    """The twin's sizes in the plain order."""
    x = node.inputs[0]
    r = state.ranked(x)
    picked = AXES[r][slice(attribute(node, "start", 0), attribute(node, "end"))]
    sizes = state.write(node, "Shape", [state.twin(x, node)], {}, ir.DataType.INT64)
    sizes.shape = ir.Shape([4])
    order = state.const(f"{node.outputs[0].name}.axes", np.asarray(picked, np.int64))
    _become(node, "Gather", [sizes, order])


def _become(node: ir.Node, op: str, inputs: Sequence[ir.Value]) -> None:
    node.op_type = op
    node.attributes.clear()
    node.resize_inputs(len(inputs))
    for i, value in enumerate(inputs):
        node.replace_input_with(i, value)
