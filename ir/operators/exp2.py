"""`2^(-t / 4096)` in integers, for softmax: the octave by a shift, the fraction by a cubic.

t: s32 >= 0, in 4096ths of a base-2 logarithm. `i = t >> 12`, `f = t & 4095`, and

    p = 65536 - ((f * (45341 - ((f * (15200 - ((f * 2632) >> 12))) >> 12))) >> 12)

is 2^16 * 2^(-f/4096) to within 5 units, falls with f from 65536 to 32769, and has no product of 2^28. The coefficients
are the best of a search around the minimax cubic, over all 4096 values of f with these floors.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from mulshift.ir.dyadic import INT32_LIMIT, MIN_SHIFT, to_dyadic
from mulshift.ir.types import Array, Dyadic

OCTAVE = 4096
"""Units of t in which the power halves."""
COEFFICIENTS = (65536, 45341, 15200, 2632)
_ENOUGH = 2**10
"""A multiplier of 11 bits is off by 2^-11: a weight of 8 bits by 1/16 of its unit at most (at t = 1.44 octaves)."""

EXP2 = """
  t_bits = Cast <to = 12> (t)
  twelve = Constant <value = uint32 {12}> ()
  i = BitShift <direction = "RIGHT"> (t_bits, twelve)
  t_whole = BitShift <direction = "LEFT"> (i, twelve)
  f = Sub (t_bits, t_whole)
  p3 = Constant <value = uint32 {2632}> ()
  p3_product = Mul (f, p3)
  p3_part = BitShift <direction = "RIGHT"> (p3_product, twelve)
  c2 = Constant <value = uint32 {15200}> ()
  p2 = Sub (c2, p3_part)
  p2_product = Mul (f, p2)
  p2_part = BitShift <direction = "RIGHT"> (p2_product, twelve)
  c1 = Constant <value = uint32 {45341}> ()
  p1 = Sub (c1, p2_part)
  p1_product = Mul (f, p1)
  p1_part = BitShift <direction = "RIGHT"> (p1_product, twelve)
  c0 = Constant <value = uint32 {65536}> ()
  p = Sub (c0, p1_part)
"""
"""Statements of a body: t (s32) to p and i (u32)."""


def exp2(t: Array) -> tuple[Array, Array]:
    """(p, i) with 2^(-t/4096) = p / 2^(16+i), int64."""
    wide = np.asarray(t, np.int64)
    i, f = wide >> 12, wide & (OCTAVE - 1)
    c0, c1, c2, c3 = COEFFICIENTS
    return c0 - ((f * (c1 - ((f * (c2 - ((f * c3) >> 12))) >> 12))) >> 12), i


def exponent_dyadic(ratio: float | Fraction, octaves: int) -> Dyadic:
    """`b / 2^c`, about 4096 * ratio, by which differences of scores become t.

    Narrow where that is precise enough: then the product of every difference that matters, of which t stays within
    `octaves`, fits 32 bits, and kernels need no wider one.

    Args:
        ratio: base-2 logarithms that one unit of the scores stands for: scale * log2(e), times s_q * s_k in attention.
        octaves: beyond which the power counts as zero.

    Raises:
        ValueError: ratio negative, not finite or too large.
    """
    exact = Fraction(ratio) * OCTAVE
    for c in range(31, MIN_SHIFT - 1, -1):
        b = (exact * 2 ** (c + 1) + 1) // 2
        # The smallest difference that reaches the end is less than one b beyond it.
        if b >= _ENOUGH and (octaves * OCTAVE << c) + b + (1 << (c - 1)) < INT32_LIMIT:
            return Dyadic(int(b), c)
    return to_dyadic(exact)
