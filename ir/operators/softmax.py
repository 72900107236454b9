"""Softmax over the last axis: powers in Q23, their exact sum, one rounding (ARITHMETIC.md section 4).

x: u8, s8, s16 or s32 [..., N], N <= 65536; y of the same shape. With d_j = min(max x - x_j, 2^31 - 1):

    t_j = min((d_j * score_multiplier + 2^(score_shift-1)) >> score_shift, 24 * 4096)
    e_j = (p(t_j) << 7) >> i(t_j)                    exp2.py; Q23, floored; 2^23 for the maximum
    y_j = clamp(((e_j * b + 2^(c-1)) >> c) + z)      b / 2^c = multiplier / 2^shift / sum e, reciprocal.py

score_multiplier / 2^score_shift = 4096 * s_x * log2(e); multiplier / 2^shift = 1 / s_y, shift <= 22. x's zero point
cancels. The sum is below 2^40: c <= 22 + 39. (The body has no Min or Max of int64: ONNX Runtime 1.31 compares 32 bits
of each there.)
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np

from mulshift.ir.dyadic import INT32_LIMIT, MAX_MANTISSA_BITS, requantize, to_dyadic
from mulshift.ir.operators.exp2 import EXP2, OCTAVE, exp2, exponent_dyadic
from mulshift.ir.operators.operator import OUTPUT, REQUANTIZE_OUTPUT, Attributes, Operator
from mulshift.ir.operators.reciprocal import RECIPROCAL, row_dyadics
from mulshift.ir.types import Array, Dyadic, dtype_of

MOST_KEYS = 65536
SOFTMAX_OCTAVES = 24
SOFTMAX_MOST_SHIFT = 22
SCORE = "score_multiplier, score_shift"
LOG2_E = Fraction(math.log2(math.e))
_END = SOFTMAX_OCTAVES * OCTAVE

_BODY = (
    f"""
  x_wide = Cast <to = 7> (x)
  axis = Constant <value = int64[1] {{-1}}> ()
  top = ReduceMax <keepdims = 1> (x_wide, axis)
  d_wide = Sub (top, x_wide)
  limit = Constant <value = int64 {{2147483647}}> ()
  is_beyond = Greater (d_wide, limit)
  d_most = Where (is_beyond, limit, d_wide)
  d = Cast <to = 6> (d_most)
  score_b_wide = Constant <value_int: int = @score_multiplier> ()
  score_b = Cast <to = 6> (score_b_wide)
  score_c_wide = Constant <value_int: int = @score_shift> ()
  score_c = Cast <to = 6> (score_c_wide)
  t = mulshift.Requantize <x_zero_point = 0, zero_point = 0, qmin = 0, qmax = {_END}, dtype = 6> (d, score_b, score_c)
"""
    + EXP2
    + """
  seven = Constant <value = uint32 {7}> ()
  p_up = BitShift <direction = "LEFT"> (p, seven)
  e_bits = BitShift <direction = "RIGHT"> (p_up, i)
  e = Cast <to = 6> (e_bits)
  e_wide = Cast <to = 7> (e)
  total = ReduceSum <keepdims = 1> (e_wide, axis)
"""
    + RECIPROCAL
    + f"  y = mulshift.Requantize <{REQUANTIZE_OUTPUT}> (e, b, c)\n"
)


def exponents(d: Array, a: Attributes, octaves: int) -> Array:
    """t of differences d, 0 <= d < 2^31."""
    return requantize(d, a["score_multiplier"], a["score_shift"], 0, 0, octaves * OCTAVE)


def output_dyadic(ratio: float | Fraction, most_shift: int) -> Dyadic:
    """`multiplier / 2^shift`, the most precise up to that shift: a row adds the logarithm of its sum to it."""
    bits = MAX_MANTISSA_BITS
    while bits > 1 and to_dyadic(ratio, bits).c > most_shift:
        bits -= 1
    made = to_dyadic(ratio, bits)
    return made if made.c <= most_shift else Dyadic(0, most_shift)


def softmax_dyadics(score_scale: float | Fraction, output_ratio: float | Fraction) -> tuple[Dyadic, Dyadic]:
    """(score_multiplier / 2^score_shift, multiplier / 2^shift), for the compiler.

    Args:
        score_scale: s_x, what one unit of x stands for; of a softmax to base e.
        output_ratio: 1 / s_y.
    """
    return exponent_dyadic(Fraction(score_scale) * LOG2_E, SOFTMAX_OCTAVES), output_dyadic(
        output_ratio, SOFTMAX_MOST_SHIFT
    )


def _reference(a: Attributes, x: Array) -> Array:
    wide = x.astype(np.int64)
    d = np.minimum(wide.max(axis=-1, keepdims=True) - wide, INT32_LIMIT - 1)
    p, i = exp2(exponents(d, a, SOFTMAX_OCTAVES))
    e = (p << 7) >> i
    b, c = row_dyadics(e.sum(axis=-1, keepdims=True), a["multiplier"], a["shift"])
    return requantize(e, b, c, a["zero_point"], a["qmin"], a["qmax"]).astype(dtype_of(a["dtype"]))


SOFTMAX = Operator(
    name="Softmax",
    signature=f"<{SCORE}, multiplier, shift, {OUTPUT}> (x) => (y)",
    body=_BODY,
    reference=_reference,
    calls=("Requantize",),
)
