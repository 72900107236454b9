"""Exact integer sums of products, carried by torch's floating point where that is proven exact.

A sum of integers whose absolute values add up to less than 2^24 (2^53) is exact in float32 (float64) in any order, so
these return the integers that an int32 accumulator holds. Nothing is rounded here. Where 8-bit operands exceed 2^24, x
is split as `16 * high + low` and each part stays below: two sums in float32 are faster than one in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from mulshift.ir.operators.operator import Attributes
from mulshift.ir.tensors import as_tensor
from mulshift.ir.types import Array

if TYPE_CHECKING:
    import torch

_FLOAT32_EXACT, _FLOAT64_EXACT = 2**24, 2**53
_INT32_LIMIT = 2**31


def conv(a: Attributes, x: Array, w: Array) -> Array:
    """`sum (x - x_zero_point) * (w - w_zero_point)`, padding contributes 0.

    x: [N, C, ...], w: [O, C/group, ...] of at most 16 bits -> int32 [N, O, ...], int64 if it might not fit.
    """
    from torch.nn import functional

    rank = w.ndim - 2
    strides, dilations = list(a.get("strides") or [1] * rank), list(a.get("dilations") or [1] * rank)
    pads = list(a.get("pads") or [0] * (2 * rank))
    uneven = [p for i in reversed(range(rank)) for p in (pads[i], pads[rank + i])]
    padding = pads[:rank] if pads[:rank] == pads[rank:] else [0] * rank
    op = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}[rank]

    def product(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        moved = left if any(padding) or not any(pads) else functional.pad(left, uneven)
        return op(moved, right, None, strides, padding, dilations, a.get("group") or 1)

    w_centred = w.astype(np.int32) - int(a.get("w_zero_point", 0))
    weight_sum = int(np.abs(w_centred).reshape(w.shape[0], -1).sum(1, dtype=np.int64).max(initial=0))
    return _exact(product, x, int(a["x_zero_point"]), w_centred, weight_sum)


def matmul(x: Array, y: Array, x_zero_point: int = 0, y_zero_point: int = 0) -> Array:
    """`(x - x_zero_point) @ (y - y_zero_point)` of at most 16-bit integers, numpy's broadcasting -> int32 or int64."""
    import torch

    y_centred = y.astype(np.int32) - y_zero_point
    column_sum = int(np.abs(y_centred).sum(axis=-2 if y.ndim > 1 else -1, dtype=np.int64).max(initial=0))
    return _exact(torch.matmul, x, x_zero_point, y_centred, column_sum)


def _exact(
    product: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    x: Array,
    zero_point: int,
    weight: Array,
    weight_sum: int,
) -> Array:
    """`product(x - zero_point, weight)` as integers; weight_sum = max over outputs of sum |weight|."""
    import torch

    low, high = (int(x.min()), int(x.max())) if x.size else (0, 0)
    magnitude = max(abs(low - zero_point), abs(high - zero_point))
    bound = weight_sum * magnitude
    if bound >= _FLOAT64_EXACT:
        raise OverflowError(f"a sum of products may reach {bound}, beyond 2^53")
    integer = torch.int32 if bound < _INT32_LIMIT else torch.int64
    part_bound = weight_sum * max(15, magnitude // 16 + 1)
    carrier = torch.float64 if part_bound >= _FLOAT32_EXACT else torch.float32
    right, left = as_tensor(weight).to(carrier), as_tensor(x).to(carrier).sub_(zero_point)
    with torch.no_grad(), torch.backends.nnpack.flags(enabled=False):  # NNPACK may use Winograd, which is not exact
        if bound < _FLOAT32_EXACT or carrier == torch.float64:
            return product(left, right).to(integer).numpy()
        upper = torch.floor(left / 16)
        lower = product(left.sub_(upper, alpha=16), right).to(integer)
        return lower.add_(product(upper, right).to(integer), alpha=16).numpy()
