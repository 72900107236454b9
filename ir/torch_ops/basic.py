"""Convolution, products, elementwise arithmetic and quantization."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import onnx_ir as ir

from mulshift.ir.graphs import attribute, ints


def _conv(node: ir.Node, v: Sequence[Any]) -> Any:
    from torch.nn import functional

    x, w, bias = (*v, None)[:3]
    n = w.ndim - 2
    if n not in (1, 2, 3) or attribute(node, "auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        return NotImplemented
    pads = ints(node, "pads") or [0] * (2 * n)
    begin, end = pads[:n], pads[n:]
    padding: list[int] = begin
    if begin != end:
        x = functional.pad(x, [p for i in reversed(range(n)) for p in (begin[i], end[i])])
        padding = [0] * n
    op = (functional.conv1d, functional.conv2d, functional.conv3d)[n - 1]
    return op(
        x,
        w,
        bias,
        ints(node, "strides") or [1] * n,
        padding,
        ints(node, "dilations") or [1] * n,
        attribute(node, "group", 1),
    )


def _gemm(node: ir.Node, v: Sequence[Any]) -> Any:
    a, b, c = (*v, None)[:3]
    a = a.T if attribute(node, "transA", 0) else a
    b = b.T if attribute(node, "transB", 0) else b
    y = a @ b
    alpha, beta = attribute(node, "alpha", 1.0), attribute(node, "beta", 1.0)
    y = y if alpha == 1 else y * alpha
    return y if c is None else y + (c if beta == 1 else c * beta)


def _clip(node: ir.Node, v: Sequence[Any]) -> Any:
    import torch

    x, low, high = (*v, None, None)[:3]
    y = x if low is None else torch.maximum(x, low)
    return y if high is None else torch.minimum(y, high)


def _relu(node: ir.Node, v: Sequence[Any]) -> Any:
    return v[0].relu()


def _arithmetic(name: str) -> Callable[[ir.Node, Sequence[Any]], Any]:
    def run(node: ir.Node, v: Sequence[Any]) -> Any:
        import torch

        return getattr(torch, name)(v[0], v[1])

    return run


TABLE: dict[str, Callable[[ir.Node, Sequence[Any]], Any]] = {
    "Conv": _conv,
    "Gemm": _gemm,
    "MatMul": _arithmetic("matmul"),
    "Add": _arithmetic("add"),
    "Sub": _arithmetic("sub"),
    "Mul": _arithmetic("mul"),
    "Relu": _relu,
    "Clip": _clip,
}
