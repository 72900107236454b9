"""The arithmetic's only definition in Python (ARITHMETIC.md); kernels and function bodies are compared with it.

Every function works on integers only. Arrays are int64 inside: with |acc| < 2^31, b < 2^31 and c <= 62 the sum
`acc * b + 2^(c-1)` stays below 2^62 + 2^61 < 2^63, so nothing here can wrap.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np

from mulshift.ir.types import Array, Dyadic

INT32_LIMIT = 2**31
MAX_MANTISSA_BITS = 31
MIN_SHIFT, MAX_SHIFT = 2, 62
_RATIO_LIMIT = 2**29
_SMALLEST_RATIO = Fraction(1, 2 ** (MAX_SHIFT + 1))  # rounds up to 1 / 2^62


def to_dyadic(ratio: float | Fraction, bits: int = MAX_MANTISSA_BITS) -> Dyadic:
    """The nearest `b / 2^c` with a mantissa of at most `bits` bits.

    Args:
        ratio: real M >= 0, below 2^29. Below 2^-62 the mantissa shrinks, and M becomes zero in the end.
        bits: 1 to 31.

    Raises:
        ValueError: ratio negative, not finite or too large.
    """
    if not 1 <= bits <= MAX_MANTISSA_BITS:
        raise ValueError(f"a mantissa has 1 to {MAX_MANTISSA_BITS} bits, not {bits}")
    if not 0 <= ratio < _RATIO_LIMIT:
        raise ValueError(f"ratio {ratio} is not in [0, 2^29)")
    exact = Fraction(ratio)
    if exact < _SMALLEST_RATIO:
        return Dyadic(0, MAX_SHIFT)
    exponent = math.frexp(float(exact))[1]  # 2^(exponent-1) <= ratio < 2^exponent
    c = min(bits - exponent, MAX_SHIFT)
    b = _round_half_up(exact * Fraction(2) ** c)
    if b >= 2**bits:  # the mantissa rounded up to a power of two
        b, c = _round_half_up(exact * Fraction(2) ** (c - 1)), c - 1
    if c < MIN_SHIFT:
        b, c = b << (MIN_SHIFT - c), MIN_SHIFT
    if b >= INT32_LIMIT:
        raise ValueError(f"ratio {float(exact):g} needs b >= 2^31 at c = {MIN_SHIFT}")
    return Dyadic(b, c)


def _round_half_up(x: Fraction) -> int:
    return math.floor(x + Fraction(1, 2))


def normalize(d: Dyadic) -> Dyadic:
    """The same number with b in [2^30, 2^31), as TVM and CMSIS-NN want it; same bits out (section 2).

    Stops at c = 62, where the mantissa stays shorter.
    """
    if d.b == 0:
        return d
    shift = min(MAX_MANTISSA_BITS - d.b.bit_length(), MAX_SHIFT - d.c)
    return Dyadic(d.b << shift, d.c + shift)


def shift_round_half_up(x: Array, c: Array | int) -> Array:
    """`(x + 2^(c-1)) >> c`: round to nearest, halves up, once. x: int64; c >= 1, broadcast against x."""
    wide = np.asarray(x, np.int64)
    shift = np.asarray(c, np.int64)
    return np.asarray((wide + (np.int64(1) << (shift - 1))) >> shift, np.int64)


def requantize(acc: Array, b: Array | int, c: Array | int, zero_point: int, qmin: int, qmax: int) -> Array:
    """`clamp(((acc * b + 2^(c-1)) >> c) + zero_point, qmin, qmax)` (section 2).

    Args:
        acc: int32 values in any integer dtype, any shape.
        b, c: broadcast against acc.

    Returns:
        int64 in [qmin, qmax].
    """
    multiplier, shift = np.broadcast_arrays(np.asarray(b, np.int64), np.asarray(c, np.int64))
    y = np.asarray(np.multiply(acc, multiplier, dtype=np.int64))
    y += np.int64(1) << (shift - 1)
    y >>= shift
    y += zero_point
    return np.clip(y, qmin, qmax, out=y)


def is_narrow(b: Array | int, c: Array | int, bound: Array | int) -> Array:
    """Whether `A*b + 2^(c-1) < 2^31`, so that a 32-bit epilogue is exact; elementwise over channels."""
    b_, c_, a_ = (np.asarray(v, object) for v in (b, c, bound))
    return np.asarray(a_ * b_ + 2 ** (c_ - 1) < INT32_LIMIT, bool)


def narrow_dyadic(ratio: float | Fraction, bound: int, min_bits: int) -> Dyadic | None:
    """The most precise b / 2^c for which a 32-bit epilogue is exact, or None below `min_bits` of mantissa.

    Args:
        ratio: M > 0.
        bound: A >= max |acc|, proven.
        min_bits: fewest mantissa bits that the caller accepts.
    """
    for bits in range(MAX_MANTISSA_BITS, min_bits - 1, -1):
        d = to_dyadic(ratio, bits)
        if d.b and bool(is_narrow(d.b, d.c, bound)):
            return d
    return None


def accumulator_bound(weight: Array, bias: Array | None, magnitude: int, out_axis: int = 0) -> Array:
    """`|bias_c| + sum |q_w| * max|q_x - z_x|` per output channel (section 3).

    Args:
        weight: integers, channels along `out_axis`.
        bias: [channels] integers, or None.
        magnitude: max |q_x - z_x|.

    Returns:
        [channels] of Python integers (dtype object): it may exceed int64 and must not wrap.
    """
    moved = np.moveaxis(np.abs(weight.astype(np.int64)), out_axis, 0)
    sums = moved.reshape(moved.shape[0], -1).sum(axis=1).astype(object)
    bound = sums * magnitude
    return np.asarray(bound if bias is None else bound + np.abs(bias.astype(np.int64)).astype(object), object)
