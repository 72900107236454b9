"""Division of a row by its sum, without dividing: `multiplier / (2^shift * total)` as `b / 2^c`, one pair a row.

total: s64 in [1, 2^40). `L = floor(log2 total)` by counting leading zeros, `m = total * 2^(30-L)`, floored, in
[2^30, 2^31). R approximates 2^60 / m from below: the tangent of 1/x at 0.75 (off by at most 1/9), then three Newton
steps, each of which squares that error: 9^-8 < 2^-25, and floors of a few units of 2^-29.

    R = 1431655764 - ((m * 477218589) >> 30)                        2^29 * (8/3 - 16/9 * m/2^31)
    R = (R * (2^31 - (((m * R) >> 30) + 1))) >> 30                  three times
    b = (R * multiplier + 2^29) >> 30,  c = shift + L

R <= 2^30 and m < 2^31, so every product is below 2^62; b <= multiplier. multiplier: [0, 2^31).
"""

from __future__ import annotations

import numpy as np

from mulshift.ir.types import Array

_BITS = 40
_STEP = """
  product{n} = Mul (m, r{n})
  part{n} = BitShift <direction = "RIGHT"> (product{n}, thirty)
  less{n} = Sub (two_less_one, part{n})
  better{n} = Mul (r{n}, less{n})
  r{next} = BitShift <direction = "RIGHT"> (better{n}, thirty)
"""

RECIPROCAL = (
    f"""
  powers = Constant <value = int64[{_BITS - 1}] {{{", ".join(str(2**k) for k in range(1, _BITS))}}}> ()
  reached = GreaterOrEqual (total, powers)
  reached_wide = Cast <to = 7> (reached)
  last_axis = Constant <value = int64[1] {{-1}}> ()
  log_wide = ReduceSum <keepdims = 1> (reached_wide, last_axis)
  log = Cast <to = 13> (log_wide)
  most = Constant <value = uint64 {{{_BITS - 1}}}> ()
  up = Sub (most, log)
  total_bits = Cast <to = 13> (total)
  total_up = BitShift <direction = "LEFT"> (total_bits, up)
  nine = Constant <value = uint64 {{{_BITS - 31}}}> ()
  m = BitShift <direction = "RIGHT"> (total_up, nine)
  thirty = Constant <value = uint64 {{30}}> ()
  slope = Constant <value = uint64 {{477218589}}> ()
  sloped = Mul (m, slope)
  sloped_part = BitShift <direction = "RIGHT"> (sloped, thirty)
  intercept = Constant <value = uint64 {{1431655764}}> ()
  r0 = Sub (intercept, sloped_part)
  two_less_one = Constant <value = uint64 {{2147483647}}> ()
"""
    + "".join(_STEP.format(n=n, next=n + 1) for n in range(3))
    + """
  multiplier_wide = Constant <value_int: int = @multiplier> ()
  multiplier_bits = Cast <to = 13> (multiplier_wide)
  scaled = Mul (r3, multiplier_bits)
  half = Constant <value = uint64 {536870912}> ()
  scaled_half = Add (scaled, half)
  b_wide = BitShift <direction = "RIGHT"> (scaled_half, thirty)
  b = Cast <to = 6> (b_wide)
  shift_wide = Constant <value_int: int = @shift> ()
  c_wide = Add (log_wide, shift_wide)
  c = Cast <to = 6> (c_wide)
"""
)
"""Statements of a body: total (s64 [..., 1]) to b and c (s32 [..., 1]), with the attributes multiplier and shift."""


def reciprocal(total: Array) -> tuple[Array, Array]:
    """(R, L) of int64 totals: 1 / total = R / 2^(30+L), R from below by at most 2^-24 of it."""
    wide = np.asarray(total, np.int64)
    log = sum((wide >= 2**k).astype(np.int64) for k in range(1, _BITS))
    m = ((wide << (_BITS - 1 - log)) >> (_BITS - 31)).astype(np.uint64)
    thirty = np.uint64(30)
    r = np.uint64(1431655764) - ((m * np.uint64(477218589)) >> thirty)
    for _ in range(3):
        r = (r * (np.uint64(2**31 - 1) - ((m * r) >> thirty))) >> thirty
    return r.astype(np.int64), np.asarray(log, np.int64)


def row_dyadics(total: Array, multiplier: int, shift: int) -> tuple[Array, Array]:
    """b, c of each row, int64: `b / 2^c` is about `multiplier / (2^shift * total)`."""
    r, log = reciprocal(total)
    return (r * multiplier + 2**29) >> 30, log + shift
