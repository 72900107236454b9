"""Reductions over axes, running sums, and the choice of largest elements."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import onnx_ir as ir

from mulshift.ir.graphs import attribute
from mulshift.ir.torch_ops.common import TorchOp, axes_of


def _reduce(f: Callable[[Any, tuple[int, ...], bool], Any], floats_only: bool = False) -> TorchOp:
    """`f(x, axes, keepdims)`; axes from the input or the attribute; the element type stays."""

    def run(node: ir.Node, v: Sequence[Any]) -> Any:
        x, axes = v[0], axes_of(node, v)
        if x.numel() == 0 or (floats_only and not x.is_floating_point()):
            return NotImplemented
        if not axes and attribute(node, "noop_with_empty_axes", 0):
            return NotImplemented if node.op_type in _NOT_NOOP else x
        over = tuple(a % x.ndim for a in axes) if axes else tuple(range(x.ndim))
        return f(x, over, bool(attribute(node, "keepdims", 1))).to(x.dtype) if over else NotImplemented

    return run


_NOT_NOOP = {"ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare"}


def _product(x: Any, axes: tuple[int, ...], keep: bool) -> Any:
    for axis in sorted(axes, reverse=True):
        x = x.prod(axis, keepdim=keep)
    return x


def _arg(name: str) -> TorchOp:
    def run(node: ir.Node, v: Sequence[Any]) -> Any:
        import torch

        x, axis = v[0], attribute(node, "axis", 0)
        keep = bool(attribute(node, "keepdims", 1))
        if not attribute(node, "select_last_index", 0):
            return getattr(torch, name)(x, axis, keepdim=keep)
        return x.shape[axis] - 1 - getattr(torch, name)(x.flip(axis), axis, keepdim=keep)

    return run


def _top_k(node: ir.Node, v: Sequence[Any]) -> Any:
    """Of equal elements the one with the lower index comes first."""
    import torch

    x, k, axis = v[0], int(v[1]), attribute(node, "axis", -1)
    largest = bool(attribute(node, "largest", 1))
    values, indices = torch.sort(x, dim=axis, descending=largest, stable=True)
    return values.narrow(axis, 0, k), indices.narrow(axis, 0, k)


def _running_sum(node: ir.Node, v: Sequence[Any]) -> Any:
    x, axis = v[0], int(v[1])
    reverse, exclusive = attribute(node, "reverse", 0), attribute(node, "exclusive", 0)
    x = x.flip(axis) if reverse else x
    y = x.cumsum(axis, dtype=x.dtype)
    if exclusive:
        y = y.roll(1, axis).index_fill(axis, y.new_zeros([1], dtype=_int64()), 0)
    return y.flip(axis) if reverse else y


def _int64() -> Any:
    import torch

    return torch.int64


TABLE: dict[str, TorchOp] = {
    "ArgMax": _arg("argmax"),
    "ArgMin": _arg("argmin"),
    "CumSum": _running_sum,
    "ReduceL1": _reduce(lambda x, axes, keep: x.abs().sum(axes, keepdim=keep)),
    "ReduceL2": _reduce(lambda x, axes, keep: x.square().sum(axes, keepdim=keep).sqrt(), floats_only=True),
    "ReduceLogSum": _reduce(lambda x, axes, keep: x.sum(axes, keepdim=keep).log(), floats_only=True),
    "ReduceLogSumExp": _reduce(lambda x, axes, keep: x.logsumexp(axes, keepdim=keep), floats_only=True),
    "ReduceMax": _reduce(lambda x, axes, keep: x.amax(axes, keepdim=keep)),
    "ReduceMean": _reduce(lambda x, axes, keep: x.mean(axes, keepdim=keep), floats_only=True),
    "ReduceMin": _reduce(lambda x, axes, keep: x.amin(axes, keepdim=keep)),
    "ReduceProd": _reduce(_product),
    "ReduceSum": _reduce(lambda x, axes, keep: x.sum(axes, keepdim=keep)),
    "ReduceSumSquare": _reduce(lambda x, axes, keep: x.square().sum(axes, keepdim=keep)),
    "TopK": _top_k,
}
