"""The integers of a LayerNorm or RmsNorm node out of its real gamma, beta, eps and scales.

    w = round(gamma * 2^(shift - fraction) / s_y)
    bias = round(beta * 2^shift / s_y)
    epsilon = round(eps * n^2 / s_x^2)

In steps of y, before the one rounding, element i is off by at most

    (|w| / 2 + Z * 2^fraction * |w - its real| + |bias - its real|) / 2^shift + |y| * (2^-28 + 1 / (4 v))

where Z is the largest |u / sqrt(v)| that y does not clamp: z, w and bias are rounded, then r, and epsilon in a row of
that v (v >= n - 1 in a LayerNorm row that varies, v >= n in an RmsNorm row that is not zero). Of the pairs `fraction`,
`shift` that fit 32 bits the one with the least first term is taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import numpy as np

from mulshift.ir.dyadic import INT32_LIMIT
from mulshift.ir.operators.norm import MAX_EPSILON, MAX_FRACTION, MAX_TERMS, largest_normalized
from mulshift.ir.types import Array

MIN_SHIFT, MAX_SHIFT = 2, 31


@dataclass(frozen=True)
class NormConstants:
    """What a node takes.

    Attributes:
        w, bias: s32 [n].
        epsilon, fraction, shift: attributes.
        bound: max |z * w + bias|, proven for any x; with 2^(shift-1) it is below 2^31, so the width is "narrow".
        error: the first term of the error above, in steps of y.
    """

    w: Array
    bias: Array
    epsilon: int
    fraction: int
    shift: int
    bound: int
    error: float


def norm_bound(w: Array, bias: Array, fraction: int) -> int:
    """max |z * w + bias| over any x; w, bias: [n]."""
    z = largest_normalized(w.size, fraction)
    return max(int(size) * z + int(offset) for size, offset in zip(_size(w), _size(bias), strict=True))


def norm_constants(
    gamma: Array, beta: Array, epsilon: float, x_scale: float, y_scale: float, span: int
) -> NormConstants:
    """The most accurate constants whose accumulator fits 32 bits.

    Args:
        gamma, beta: [n], real.
        epsilon: eps of the real operator, added to the variance or to the mean of squares.
        x_scale, y_scale: real steps of x and y.
        span: the largest |y - zero_point| that y can hold.

    Raises:
        ValueError: n or epsilon is out of range, or no shift from 2 on fits.
    """
    n = gamma.size
    if not 1 <= n <= MAX_TERMS:
        raise ValueError(f"a norm over {n} elements; from 1 to {MAX_TERMS} fit")
    real_epsilon = epsilon * n * n / (x_scale * x_scale)
    if not 0 <= real_epsilon <= MAX_EPSILON:
        raise ValueError(f"epsilon {epsilon:g} is {real_epsilon:g} steps, not from 0 to 2^60")
    slope, offset = (np.asarray(v, np.float64) / y_scale for v in (gamma, beta))
    if not (np.isfinite(slope).all() and np.isfinite(offset).all()):
        raise ValueError("gamma or beta is not finite in steps of y")
    fitting = (_fit(slope, offset, span, fraction) for fraction in range(MAX_FRACTION + 1))
    found = [candidate for candidate in fitting if candidate is not None]
    if not found:
        raise ValueError("gamma and beta are so many steps of y that no accumulator of 32 bits holds them")
    w, bias, fraction, shift, error = min(found, key=lambda candidate: candidate[-1])
    bound = norm_bound(w, bias, fraction)
    return NormConstants(w, bias, int(np.floor(real_epsilon + 0.5)), fraction, shift, bound, error)


def _fit(slope: Array, offset: Array, span: int, fraction: int) -> tuple[Array, Array, int, int, float] | None:
    """(w, bias, fraction, shift, error) with the largest shift that fits, if one does.

    slope, offset: gamma and beta in steps of y.
    """
    real_z = largest_normalized(slope.size, fraction) / 2**fraction
    most = float((np.abs(slope) * real_z + np.abs(offset)).max()) + 0.5
    start = min(MAX_SHIFT, int(np.floor(np.log2(INT32_LIMIT / most))) + 1)
    for shift in range(start, MIN_SHIFT - 1, -1):
        real_w, real_bias = np.ldexp(slope, shift - fraction), np.ldexp(offset, shift)
        w, bias = np.floor(real_w + 0.5), np.floor(real_bias + 0.5)
        if max(np.abs(w).max(), np.abs(bias).max()) >= INT32_LIMIT:
            continue
        if norm_bound(w, bias, fraction) + 2 ** (shift - 1) < INT32_LIMIT:
            z = _unclamped(slope, offset, span)
            wrong = np.abs(w) / 2 + np.ldexp(z, fraction) * np.abs(w - real_w) + np.abs(bias - real_bias)
            error = float(np.ldexp(wrong, -shift).max())
            return w.astype(np.int32), bias.astype(np.int32), fraction, shift, error
    return None


def _unclamped(slope: Array, offset: Array, span: int) -> Array:
    """The largest |u / sqrt(v)| of each element for which y is not clamped."""
    largest = np.full(slope.shape, sqrt(slope.size))
    reach = np.divide(span + 1 + np.abs(offset), np.abs(slope), out=largest.copy(), where=slope != 0)
    return np.asarray(np.minimum(largest, reach))


def _size(values: Array) -> Array:
    return np.abs(values.astype(np.int64))
