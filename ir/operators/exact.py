"""Exact integer sums of products, carried by torch's floating point where that is proven exact.

A sum of integers whose absolute values add up to less than 2^24 (2^53) is exact in float32 (float64) in any order, so
these return the integers that an int32 accumulator holds. Nothing is rounded here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mulshift.ir.operators.operator import Attributes
from mulshift.ir.types import Array

if TYPE_CHECKING:
    import torch

_FLOAT32_EXACT = 2**24


def conv(a: Attributes, x: Array, w: Array) -> Array:
    """`sum (x - x_zero_point) * (w - w_zero_point)`, padding contributes 0. x: [N, C, ...] -> int64 [N, O, ...]."""
    import torch
    from torch.nn import functional

    rank = w.ndim - 2
    w_centred = w.astype(np.int64) - a.get("w_zero_point", 0)
    x_centred = x.astype(np.int64) - a["x_zero_point"]
    dtype = _carrier(int(np.abs(w_centred).reshape(w.shape[0], -1).sum(1).max()), x_centred)
    begin, end = _pads(a, rank)
    moved = torch.from_numpy(x_centred).to(dtype)
    if begin == end:
        padding = begin
    else:
        flat = [p for pair in zip(reversed(begin), reversed(end), strict=True) for p in pair]
        moved, padding = functional.pad(moved, flat), [0] * rank
    op = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}[rank]
    y = op(
        moved,
        torch.from_numpy(w_centred).to(dtype),
        stride=list(a.get("strides") or [1] * rank),
        padding=padding,
        dilation=list(a.get("dilations") or [1] * rank),
        groups=a.get("group") or 1,
    )
    return _integers(y)


def matmul(x: Array, y: Array) -> Array:
    """`x @ y` of integers with numpy's broadcasting -> int64."""
    import torch

    x_wide, y_wide = x.astype(np.int64), y.astype(np.int64)
    dtype = _carrier(int(np.abs(y_wide).sum(axis=-2).max(initial=0)), x_wide)
    return _integers(torch.matmul(torch.from_numpy(x_wide).to(dtype), torch.from_numpy(y_wide).to(dtype)))


def _carrier(weight_sum: int, x: Array) -> torch.dtype:
    import torch

    bound = weight_sum * int(np.abs(x).max(initial=0))
    return torch.float32 if bound < _FLOAT32_EXACT else torch.float64


def _integers(y: torch.Tensor) -> Array:
    import torch

    return y.to(torch.int64).numpy()


def _pads(a: Attributes, rank: int) -> tuple[list[int], list[int]]:
    pads = list(a.get("pads") or [0] * (2 * rank))
    return pads[:rank], pads[rank:]
