"""Elements picked by position: Slice, Split, Gather, Pad, Resize."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from mulshift.ir.graphs import attribute, ints
from mulshift.ir.torch_ops.common import TorchOp, integers


def _slice(node: ir.Node, v: Sequence[Any]) -> Any:
    if len(v) < 3:
        return NotImplemented  # opset 9: attributes
    x, starts, ends = v[0], integers(v[1]), integers(v[2])
    axes = integers(v[3]) if len(v) > 3 and v[3] is not None else list(range(len(starts)))
    steps = integers(v[4]) if len(v) > 4 and v[4] is not None else [1] * len(starts)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        first, last, _ = slice(start, end, step).indices(x.shape[axis])
        if step > 0:
            index = [slice(None)] * (axis % x.ndim) + [slice(first, max(first, last), step)]
            x = x[tuple(index)]
        else:
            x = _pick(x, axis, list(range(first, last, step)))
    return x


def _split(node: ir.Node, v: Sequence[Any]) -> Any:
    x, axis = v[0], attribute(node, "axis", 0)
    sizes = integers(v[1]) if len(v) > 1 and v[1] is not None else ints(node, "split")
    if sizes is None:
        total, parts = x.shape[axis], len(node.outputs)
        each = -(-total // parts)
        sizes = [each] * (parts - 1) + [total - each * (parts - 1)]
    return tuple(x.split(sizes, axis))


def _gather(node: ir.Node, v: Sequence[Any]) -> Any:
    import torch

    x, index = v[0], v[1].to(torch.int64)
    axis = attribute(node, "axis", 0) % x.ndim
    index = torch.where(index < 0, index + x.shape[axis], index)
    picked = x.index_select(axis, index.reshape(-1))
    return picked.reshape((*x.shape[:axis], *index.shape, *x.shape[axis + 1 :]))


def _gather_elements(node: ir.Node, v: Sequence[Any]) -> Any:
    import torch

    x, index = v[0], v[1].to(torch.int64)
    axis = attribute(node, "axis", 0) % x.ndim
    return x.gather(axis, torch.where(index < 0, index + x.shape[axis], index))


def _gather_nd(node: ir.Node, v: Sequence[Any]) -> Any:
    import torch

    if attribute(node, "batch_dims", 0):
        return NotImplemented
    return v[0][tuple(v[1].to(torch.int64).unbind(-1))]


def _pad(node: ir.Node, v: Sequence[Any]) -> Any:
    from torch.nn import functional

    if len(v) < 2:
        return NotImplemented  # opset 10: attributes
    x, pads = v[0], integers(v[1])
    axes = integers(v[3]) if len(v) > 3 and v[3] is not None else list(range(x.ndim))
    amounts = [(0, 0)] * x.ndim
    for i, axis in enumerate(axes):
        amounts[axis] = (pads[i], pads[i + len(axes)])
    mode = attribute(node, "mode", "constant")
    if mode == "constant":
        fill = v[2].item() if len(v) > 2 and v[2] is not None else 0
        return functional.pad(x, [p for pair in reversed(amounts) for p in pair], value=fill)
    for axis, (begin, end) in enumerate(amounts):
        if begin < 0 or end < 0:
            return NotImplemented
        if begin or end:
            x = _pick(x, axis, np.pad(np.arange(x.shape[axis]), (begin, end), mode=mode).tolist())
    return x


def _pick(x: Any, axis: int, index: list[int]) -> Any:
    import torch

    return x.index_select(axis, torch.tensor(index, dtype=torch.int64))


TABLE: dict[str, TorchOp] = {
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "Pad": _pad,
    "Slice": _slice,
    "Split": _split,
}
