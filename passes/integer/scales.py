"""Choosing `b / 2^c` for many channels at once, and its width by range analysis (ARITHMETIC.md sections 2 and 3).

The same numbers as `mulshift.ir.dyadic.to_dyadic` and `narrow_dyadic`, in numpy; a test compares them.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np

from mulshift.ir import Array
from mulshift.ir.dyadic import INT32_LIMIT, MAX_MANTISSA_BITS, MAX_SHIFT, MIN_SHIFT, is_narrow
from mulshift.passes.integer.forms import FREE, NoFormError

Width: TypeAlias = Literal["narrow", "wide"]


def dyadics(ratio: Array, bits: Array | int) -> tuple[Array, Array]:
    """The nearest `b / 2^c` with at most `bits` bits each, as `to_dyadic`. ratio: float64 >= 0; returns int64.

    Raises:
        NoFormError: a ratio is 2^29 or more.
    """
    ratio = np.asarray(ratio, np.float64)
    exponent = np.frexp(ratio)[1].astype(np.int64)
    width = np.broadcast_to(np.asarray(bits, np.int64), ratio.shape)
    c = np.minimum(width - exponent, MAX_SHIFT)
    b = np.floor(np.ldexp(ratio, c) + 0.5)
    carried = b >= np.ldexp(1.0, width)
    c = np.where(carried, c - 1, c)
    b = np.where(carried, np.floor(np.ldexp(ratio, c) + 0.5), b)
    b = np.where(c < MIN_SHIFT, np.ldexp(b, np.maximum(MIN_SHIFT - c, 0)), b)
    c = np.maximum(c, MIN_SHIFT)
    if (b >= INT32_LIMIT).any():
        raise NoFormError(f"ratio {ratio.max():g} of its scales is too large for a dyadic number")
    zero = ratio == 0
    return np.where(zero, 0, b).astype(np.int64), np.where(zero, MAX_SHIFT, c)


def narrow_dyadics(ratio: Array, bound: Array, min_bits: int = 1) -> tuple[Array, Array, Array]:
    """The most precise `b / 2^c` with `A*b + 2^(c-1) < 2^31`, as `narrow_dyadic`; (b, c, found).

    A ratio so small that every result rounds to 0 (`A * M < 1/2`) becomes (0, 2), which is exact.
    """
    ratio = np.asarray(ratio, np.float64)
    limit = np.broadcast_to(np.asarray(bound, object), ratio.shape)
    b, c = np.zeros(ratio.shape, np.int64), np.full(ratio.shape, MIN_SHIFT, np.int64)
    found = limit.astype(np.float64) * ratio < 0.5
    for bits in range(MAX_MANTISSA_BITS, min_bits - 1, -1):
        if found.all():
            break
        b_try, c_try = dyadics(ratio, bits)
        fits = ~found & (b_try > 0) & is_narrow(b_try, c_try, limit)
        b, c, found = np.where(fits, b_try, b), np.where(fits, c_try, c), found | fits
    return b, c, found


def requantization(ratio: Array, bound: Array, reach: int, free: float = FREE) -> tuple[Array, Array, Width]:
    """(b, c, width): narrow if every channel can be at no cost (`free`), else 31 bits for all.

    Args:
        ratio: float64 [channels], M = s_acc / s_y.
        bound: [channels], A >= max |acc|, below 2^31.
        reach: largest difference of two results in steps, which a relative error of M is multiplied with.
        free: error in steps that a shortened mantissa may cost; negative for none, and wide throughout.
    """
    b, c, found = narrow_dyadics(ratio, bound)
    if found.all() and free >= 0:
        peak = np.minimum(np.asarray(bound, np.float64) * ratio + 1, reach)
        error = np.abs(np.ldexp(b.astype(np.float64), -c) - ratio)
        with np.errstate(divide="ignore", invalid="ignore"):
            steps = np.where(b == 0, 0, error / ratio * peak)
        if (steps <= free).all():
            return b.astype(np.int32), c.astype(np.int32), "narrow"
    b, c = dyadics(ratio, MAX_MANTISSA_BITS)
    return b.astype(np.int32), c.astype(np.int32), "wide"


def identity_dyadic() -> tuple[Array, Array, Width]:
    """The number 1: `(x * 4 + 2) >> 2 = x`, exact for 16-bit x."""
    return np.asarray([4], np.int32), np.asarray([2], np.int32), "narrow"
