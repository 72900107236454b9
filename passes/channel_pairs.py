"""Pairs of linear operators between which channels may be scaled: `W2 f(W1 x + b1)`, `f(s y) = s f(y)` for s > 0."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from mulshift.ir import Array, attribute, constant, rank, scalar, sole_user, users
from mulshift.passes.linear_weights import Linear, bias_of, linear_of, weight_of
from mulshift.passes.shape_values import dims_of


@dataclass(frozen=True, eq=False)
class Pair:
    """Two linear nodes.

    Attributes:
        first, second: the nodes.
        between: the values from the output of the first to the input of the second.
        clips: Clip nodes on the way whose upper bound is to be dropped.
        axis: of the channels in all of `between`.
        channels: how many.
    """

    first: ir.Node
    second: ir.Node
    between: tuple[ir.Value, ...]
    clips: tuple[ir.Node, ...]
    axis: int
    channels: int


Inactive = Callable[[ir.Value, float], bool]
"""Whether a value is known to stay below a bound."""


def find_pair(graph: ir.Graph, first: ir.Node, inactive: Inactive) -> Pair | str:
    """The pair that starts at a linear node, or why there is none."""
    row = linear_of(first)
    assert row is not None
    w = weight_of(first)
    reason = _unfit(first, row, w)
    if reason or w is None:
        return reason
    value, axis = first.outputs[0], _axis(first.outputs[0], row.axis_out)
    if axis is None:
        return "the rank of its output is unknown"
    between, clips = [value], []
    while True:
        node = sole_user(value)
        if node is None or node.graph is not graph:
            return "its output is a graph output" if value.is_graph_output() else _fork(value)
        if linear_of(node) is not None:
            break
        step = _carry(node, value, axis, inactive)
        if isinstance(step, str):
            return step
        clips += [node] if step else []
        value = node.outputs[0]
        between.append(value)
    second = _second(node, value, axis, row.outputs(first, w))
    return second or Pair(first, node, tuple(between), tuple(clips), axis, row.outputs(first, w))


def _unfit(node: ir.Node, row: Linear, w: Array | None) -> str:
    if w is None:
        return "its weights are not constant"
    if len(users(node.inputs[1])) > 1 or node.inputs[1].is_graph_output():  # type: ignore[arg-type, union-attr]
        return "its weights are shared"
    return "its bias is not constant" if bias_of(node, row, row.outputs(node, w)) is None else ""


def _fork(value: ir.Value) -> str:
    return f"'{value.name}' has {len(users(value))} readers"


def _axis(value: ir.Value | None, axis: int) -> int | None:
    n = rank(value)
    return None if n is None else axis % n


def _second(node: ir.Node, value: ir.Value, axis: int, channels: int) -> str:
    """Why a linear node cannot be the second of a pair; empty if it can."""
    row, w = linear_of(node), weight_of(node)
    assert row is not None
    if w is None or node.inputs[0] is not value or sum(v is value for v in node.inputs) > 1:
        return f"the weights of '{node.name}' are not constant"
    if len(users(node.inputs[1])) > 1 or node.inputs[1].is_graph_output():  # type: ignore[arg-type, union-attr]
        return f"the weights of '{node.name}' are shared"
    if _axis(value, row.axis_in(node)) != axis or row.inputs(node, w) != channels:
        return f"'{node.name}' does not read the same channels"
    return ""


def _carry(node: ir.Node, value: ir.Value, axis: int, inactive: Inactive) -> bool | str:
    """Whether a bound has to be dropped for scales to pass the node; or why they cannot pass."""
    if node.domain != "" or node.inputs[0] is not value:
        return f"scales do not pass '{node.name}' ({node.op_type})"
    if node.op_type == "Clip":
        return _clip(node, inactive)
    if node.op_type in _EVEN or (node.op_type == "PRelu" and constant(node.inputs[1]) is not None):
        return False
    passes = _REDUCING.get(node.op_type)
    if passes is not None and passes(node, axis):
        return False
    return f"scales do not pass '{node.name}' ({node.op_type})"


_EVEN = frozenset({"Relu", "LeakyRelu", "Identity", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"})
"""Positively homogeneous, each channel for itself."""


def _reduces_others(node: ir.Node, axis: int) -> bool:
    """ReduceMean over axes behind the channels."""
    axes, n = constant(node.inputs[1]) if len(node.inputs) > 1 else None, rank(node.inputs[0])
    return axes is not None and n is not None and axes.size > 0 and all(int(a) % n > axis for a in axes)


def _keeps_channels(node: ir.Node, axis: int) -> bool:
    """A reshape of [N, C, 1, ...] to [N, C, 1, ...] of another rank."""
    before, after = dims_of(node.inputs[0]), dims_of(node.outputs[0])
    if axis != 1 or before is None or after is None or min(len(before), len(after)) < 2:
        return False
    same = isinstance(before[1], int) and before[1] == after[1]
    return same and all(d == 1 for d in (*before[2:], *after[2:]))


_REDUCING: dict[str, Callable[[ir.Node, int], bool]] = {
    "ReduceMean": _reduces_others,
    "ReduceSum": _reduces_others,
    "ReduceMax": _reduces_others,
    "Flatten": _keeps_channels,
    "Reshape": _keeps_channels,
    "Squeeze": _keeps_channels,
    "Unsqueeze": _keeps_channels,
}


def _clip(node: ir.Node, inactive: Inactive) -> bool | str:
    """Relu in the shape of a Clip passes; a bound above passes if it is never reached (the Clip becomes a Relu)."""
    ends = [*node.inputs[1:], None, None][:2]
    low, high = (scalar(v) for v in ends)
    if ends[0] is None or low != 0.0 or (ends[1] is not None and high is None):
        return f"scales do not pass '{node.name}' (Clip)"
    if high is None or np.isposinf(high):
        return False
    assert node.inputs[0] is not None
    if inactive(node.inputs[0], high):
        return True
    return f"'{node.name}' clips at {high:g}, and that is not known to be inactive"


# Weights ----------------------------------------------------------------------------------------------------------


def output_rows(node: ir.Node, w: Array) -> Array:
    """W as [output channels, everything else]."""
    if node.op_type == "Conv":
        return w.reshape(w.shape[0], -1)
    if node.op_type == "ConvTranspose":
        return _other_side(node, w)
    return np.moveaxis(_matrix(node, w), -1, 0).reshape(_matrix(node, w).shape[-1], -1)


def input_rows(node: ir.Node, w: Array) -> Array:
    """W as [input channels, everything else]."""
    if node.op_type == "Conv":
        return _other_side(node, w)
    if node.op_type == "ConvTranspose":
        return w.reshape(w.shape[0], -1)
    return np.moveaxis(_matrix(node, w), -2, 0).reshape(_matrix(node, w).shape[-2], -1)


def _matrix(node: ir.Node, w: Array) -> Array:
    """[..., K, N] view."""
    return w.T if node.op_type == "Gemm" and attribute(node, "transB", 0) else w


def _other_side(node: ir.Node, w: Array) -> Array:
    """The channels of axis 1 of grouped weights [A, B/g, k...] as rows: [B, everything else]."""
    g = int(attribute(node, "group", 1))
    grouped = w.reshape(g, w.shape[0] // g, w.shape[1], -1).swapaxes(1, 2)
    return grouped.reshape(g * w.shape[1], -1)
