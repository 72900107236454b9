"""Sums of products: convolutions, matrix products, and their exact integer forms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx_ir as ir

from mulshift.ir.graphs import attribute, ints
from mulshift.ir.torch_ops.common import TorchOp, elementwise, pad_spatial, window


def _conv(node: ir.Node, v: Sequence[Any]) -> Any:
    from torch.nn import functional

    x, w, bias = (*v, None)[:3]
    n = w.ndim - 2
    if n not in (1, 2, 3):
        return NotImplemented
    win = window(node, x.shape[2:], w.shape[2:])
    padding: list[int] = win.begin
    if win.begin != win.end:
        x, padding = pad_spatial(x, win.begin, win.end), [0] * n
    op = (functional.conv1d, functional.conv2d, functional.conv3d)[n - 1]
    return op(x, w, bias, win.strides, padding, win.dilations, attribute(node, "group", 1))


def _conv_transpose(node: ir.Node, v: Sequence[Any]) -> Any:
    from torch.nn import functional

    x, w, bias = (*v, None)[:3]
    n = w.ndim - 2
    if n not in (1, 2, 3) or attribute(node, "auto_pad", "NOTSET") != "NOTSET" or ints(node, "output_shape"):
        return NotImplemented
    pads = ints(node, "pads") or [0] * (2 * n)
    extra = ints(node, "output_padding") or [0] * n
    op = (functional.conv_transpose1d, functional.conv_transpose2d, functional.conv_transpose3d)[n - 1]
    strides, dilations = ints(node, "strides") or [1] * n, ints(node, "dilations") or [1] * n
    y = op(x, w, bias, strides, 0, 0, attribute(node, "group", 1), dilations)
    end = [e - p for e, p in zip(extra, pads[n:], strict=True)]
    if max(end) > 0 and bias is not None:
        return NotImplemented  # rows beyond the last product hold the bias, not zero
    return pad_spatial(y, [-p for p in pads[:n]], end)


def _gemm(node: ir.Node, v: Sequence[Any]) -> Any:
    a, b, c = (*v, None)[:3]
    if not a.is_floating_point():
        return NotImplemented
    a = a.T if attribute(node, "transA", 0) else a
    b = b.T if attribute(node, "transB", 0) else b
    alpha, beta = attribute(node, "alpha", 1.0), attribute(node, "beta", 1.0)
    if c is not None and alpha == beta == 1 and c.ndim == 1:
        import torch

        return torch.addmm(c, a, b)
    y = a @ b
    y = y if alpha == 1 else y * alpha
    return y if c is None else y + (c if beta == 1 else c * beta)


def _einsum(node: ir.Node, v: Sequence[Any]) -> Any:
    import torch

    return torch.einsum(attribute(node, "equation"), *v)


def _conv_integer(node: ir.Node, v: Sequence[Any]) -> Any:
    import torch

    x, w, zx, zw = (*v, None, None)[:4]
    per_channel = zw is not None and zw.numel() > 1
    zw = zw.reshape(-1, *[1] * (w.ndim - 1)) if per_channel else zw
    y = _conv(node, (_centred(x, zx), _centred(w, zw)))
    return y if y is NotImplemented else y.to(torch.int32)


def _matmul_integer(node: ir.Node, v: Sequence[Any]) -> Any:
    import torch

    x, w, zx, zw = (*v, None, None)[:4]
    zx = zx.reshape(*zx.shape, 1) if zx is not None and zx.ndim == 1 and zx.numel() > 1 else zx
    return torch.matmul(_centred(x, zx), _centred(w, zw)).to(torch.int32)


def _centred(x: Any, zero_point: Any) -> Any:
    """`x - zero_point` in float64, which holds every sum of fewer than 2^36 products of 8-bit integers exactly."""
    import torch

    wide = x.to(torch.float64)
    return wide if zero_point is None else wide - zero_point


TABLE: dict[str, TorchOp] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "MatMul": elementwise("matmul"),
    "Einsum": _einsum,
    "ConvInteger": _conv_integer,
    "MatMulInteger": _matmul_integer,
}
