"""The reciprocal square root of an integer, by a table and Newton steps: no division, no float.

    v in [1, 2^62) = m * 4^e       c = how many of 1, 4, ..., 4^30 are at most v; e = c - 16
    m = (v << (62 - 2c)) >> 30     in [2^30, 2^32), truncated where e > 0
    r = TABLE[(m >> 27) - 8]       floor(2^46 / sqrt((i + 1) * 2^27)), i = m >> 27: at most 5.8 % too small
    three times                    t = m * ((r * r >> 30) + 1);  r = (r * ((3 * 2^62 - t) >> 32)) >> 31

so that v^(-1/2) = r * 2^(-46 - e), r below 2^31. A step is r <- r * (3 - m r^2) / 2, which never exceeds 1/sqrt(m);
t is rounded up and all else down, so r stays below 2^46 / sqrt(m) <= 2^31. Every product has two factors below 2^32.
Errors of 0.057, then 1.5 e^2: 4.9e-3, 3.7e-5, 2.0e-9. With three roundings of at most 2^-30 and the truncation of m
r is from 2^-28 too small to 2^-31 too large, relatively. Its least value is 2^30 - 1 (at m = 2^32 - 1).
"""

from __future__ import annotations

from math import isqrt

import numpy as np

from mulshift.ir.types import Array

FRACTION_BITS = 46
STEPS = 3
TABLE = tuple(isqrt(2**65 // (i + 1)) for i in range(8, 32))
_POWERS = tuple(4**i for i in range(31))
_EXPONENT_OF_ONE = 16


def inverse_root(v: Array) -> tuple[Array, Array]:
    """v: int64 in [1, 2^62) -> r, e of int64 with v^(-1/2) = r * 2^(-46 - e)."""
    c = (v[..., None] >= np.array(_POWERS)).sum(axis=-1).astype(np.uint64)
    m = (v.astype(np.uint64) << (np.uint64(62) - 2 * c)) >> np.uint64(30)
    r = np.array(TABLE, np.uint64)[(m >> np.uint64(27)).astype(np.int64) - 8]
    for _ in range(STEPS):
        t = m * ((r * r >> np.uint64(30)) + np.uint64(1))
        r = (r * ((np.uint64(3 * 2**62) - t) >> np.uint64(32))) >> np.uint64(31)
    return r.astype(np.int64), c.astype(np.int64) - _EXPONENT_OF_ONE


def _step(number: int) -> str:
    r, made = f"r{number}", f"r{number + 1}"
    return f"""
  {r}_square = Mul ({r}, {r})
  {r}_square_high = BitShift <direction = "RIGHT"> ({r}_square, thirty)
  {r}_square_up = Add ({r}_square_high, one)
  {r}_t = Mul (m, {r}_square_up)
  {r}_rest = Sub (three, {r}_t)
  {r}_factor = BitShift <direction = "RIGHT"> ({r}_rest, thirty_two)
  {r}_product = Mul ({r}, {r}_factor)
  {made} = BitShift <direction = "RIGHT"> ({r}_product, thirty_one)
"""


BODY = (
    f"""
  powers = Constant <value_ints = [{", ".join(map(str, _POWERS))}]> ()
  is_reached = GreaterOrEqual (v, powers)
  reached = Cast <to = 7> (is_reached)
  last_axis = Constant <value_ints = [-1]> ()
  c_wide = ReduceSum (reached, last_axis)
  c = Cast <to = 13> (c_wide)
  one = Constant <value = uint64 {{1}}> ()
  twenty_seven = Constant <value = uint64 {{27}}> ()
  thirty = Constant <value = uint64 {{30}}> ()
  thirty_one = Constant <value = uint64 {{31}}> ()
  thirty_two = Constant <value = uint64 {{32}}> ()
  sixty_two = Constant <value = uint64 {{62}}> ()
  three_small = Constant <value = uint64 {{3}}> ()
  three = BitShift <direction = "LEFT"> (three_small, sixty_two)
  less_c = Sub (sixty_two, c)
  up = Sub (less_c, c)
  v_bits = Cast <to = 13> (v)
  v_raised = BitShift <direction = "LEFT"> (v_bits, up)
  m = BitShift <direction = "RIGHT"> (v_raised, thirty)
  m_high = BitShift <direction = "RIGHT"> (m, twenty_seven)
  m_index = Cast <to = 7> (m_high)
  first_entry = Constant <value_int = 8> ()
  entry = Sub (m_index, first_entry)
  table = Constant <value = uint64[24] {{{", ".join(map(str, TABLE))}}}> ()
  r0 = Gather <axis = 0> (table, entry)
"""
    + "".join(map(_step, range(STEPS)))
    + f"  r = Cast <to = 7> (r{STEPS})\n"
)
"""Statements in ONNX text: from `v`, s64 [..., 1], make `r`, s64 [..., 1], and `c`, u64 [..., 1]; also `one`, u64."""
