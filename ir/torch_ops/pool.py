"""Pools over 1 to 3 spatial axes; axis by axis where torch's own lack dilation, end padding or integers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx_ir as ir

from mulshift.ir.graphs import attribute, ints
from mulshift.ir.torch_ops.common import TorchOp, Window, pad_spatial, window


def _max_pool(node: ir.Node, v: Sequence[Any]) -> Any:
    import torch
    from torch.nn import functional

    x = v[0]
    if len([o for o in node.outputs if o.name]) > 1:
        return NotImplemented
    win = window(node, x.shape[2:], ints(node, "kernel_shape") or [])
    symmetric = win.begin == win.end and all(p <= k // 2 for p, k in zip(win.begin, win.kernel, strict=True))
    if x.is_floating_point() and symmetric and len(win.kernel) <= 3:
        op = (functional.max_pool1d, functional.max_pool2d, functional.max_pool3d)[len(win.kernel) - 1]
        return op(x, win.kernel, win.strides, win.begin, win.dilations)
    lowest = -torch.inf if x.is_floating_point() else torch.iinfo(x.dtype).min
    return _slide(pad_spatial(x, win.begin, win.end, lowest), win, "amax")


def _average_pool(node: ir.Node, v: Sequence[Any]) -> Any:
    import torch
    from torch.nn import functional

    x = v[0]
    if not x.is_floating_point():
        return NotImplemented
    size = list(x.shape[2:])
    win = window(node, size, ints(node, "kernel_shape") or [])
    if win.begin == win.end == [0] * len(size) and set(win.dilations) == {1} and len(size) <= 3:
        op = (functional.avg_pool1d, functional.avg_pool2d, functional.avg_pool3d)[len(size) - 1]
        return op(x, win.kernel, win.strides)
    counted = x.new_ones([1, 1, *size])
    if attribute(node, "count_include_pad", 0):
        declared = (ints(node, "pads") or [0] * (2 * len(size)))[len(size) :]
        behind = win.end if attribute(node, "auto_pad", "NOTSET") != "NOTSET" else declared
        counted = x.new_ones([1, 1, *(b + s + e for b, s, e in zip(win.begin, size, behind, strict=True))])
        beyond = [e - d for e, d in zip(win.end, behind, strict=True)]
        counts = _slide(pad_spatial(counted, [0] * len(size), beyond), win, "sum")
    else:
        counts = _slide(pad_spatial(counted, win.begin, win.end), win, "sum")
    return _slide(pad_spatial(x, win.begin, win.end), win, "sum") / torch.clamp(counts, min=1)


def _slide(x: Any, win: Window, reduction: str) -> Any:
    """Reduces every window, one spatial axis after the other; x is padded already."""
    first = x.ndim - len(win.kernel)
    for i, (k, s, d) in enumerate(zip(win.kernel, win.strides, win.dilations, strict=True)):
        windows = x.unfold(first + i, (k - 1) * d + 1, s)[..., ::d]
        x = getattr(windows, reduction)(-1)
    return x


def _global(reduction: str) -> TorchOp:
    def run(node: ir.Node, v: Sequence[Any]) -> Any:
        return getattr(v[0], reduction)(tuple(range(2, v[0].ndim)), keepdim=True)

    return run


TABLE: dict[str, TorchOp] = {
    "MaxPool": _max_pool,
    "AveragePool": _average_pool,
    "GlobalAveragePool": _global("mean"),
    "GlobalMaxPool": _global("amax"),
}
