"""LayerNorm and RmsNorm over the last axis, in integers (ARITHMETIC.md section 4).

x: u8, s8 or s16 [..., n], n <= 16384; w, bias: s32 [n], constant. With xc = x - x_zero_point, sums over the last axis:

    LayerNorm   u = n * xc - sum xc     v = max(n * sum xc^2 - (sum xc)^2 + epsilon, 1)
    RmsNorm     u = n * xc              v = max(n * sum xc^2 + epsilon, 1)

    r, e = inverse_root(v)                               v^(-1/2) = r * 2^(-46 - e)
    k = 46 + e - fraction                                11 to 61
    z = (u * r + 2^(k-1)) >> k                           2^fraction * u / sqrt(v), halves up
    y = clamp(((z * w + bias + 2^(shift-1)) >> shift) + zero_point, qmin, qmax)

epsilon, from 0 to 2^60, is eps * n^2 / s_x^2; fraction is from 0 to 20 and shift from 2 to 31. |xc| < 2^16, so
|u| < 2^30, n * sum xc^2 <= 2^60, v < 2^62, |u * r| < 2^61. u^2 <= n * v, so |z| <= sqrt(n) * 2^fraction + 1 whatever
x is; the compiler proves |z| * |w| + |bias| + 2^(shift-1) < 2^31 with it. u depends on no scale: neither does z.
"""

from __future__ import annotations

from math import isqrt

import numpy as np

from mulshift.ir.operators.inverse_root import BODY, FRACTION_BITS, inverse_root
from mulshift.ir.operators.operator import OUTPUT, REQUANTIZE_OUTPUT, Attributes, Operator, hand_on, signature
from mulshift.ir.operators.requantize import REQUANTIZE
from mulshift.ir.operators.row_quantize import ROW_QUANTIZE
from mulshift.ir.types import Array

MAX_TERMS = 16384
MAX_EPSILON = 2**60
MAX_FRACTION = 20

_CENTRE = """
  x_wide = Cast <to = 7> (x)
  zx = Constant <value_int: int = @x_zero_point> ()
  xc = Sub (x_wide, zx)
  n = Size (w)
  axis = Constant <value_ints = [-1]> ()
  square = Mul (xc, xc)
  squares = ReduceSum (square, axis)
  squares_n = Mul (squares, n)
  xc_n = Mul (xc, n)
"""

_OF_MEAN = """
  sum = ReduceSum (xc, axis)
  sum_square = Mul (sum, sum)
  spread = Sub (squares_n, sum_square)
  u = Sub (xc_n, sum)
"""

_OF_ZERO = """
  spread = Identity (squares_n)
  u = Identity (xc_n)
"""

_ROOT = (
    """
  epsilon_wide = Constant <value_int: int = @epsilon> ()
  spread_epsilon = Add (spread, epsilon_wide)
  least = Constant <value_int = 1> ()
  none = Constant <value_int = 0> ()
  varies = Greater (spread_epsilon, none)
  v = Where (varies, spread_epsilon, least)
"""
    + BODY
)

_SCALE = f"""
  fraction_wide = Constant <value_int: int = @fraction> ()
  fraction_bits = Cast <to = 13> (fraction_wide)
  k_high = Add (c, thirty)
  k = Sub (k_high, fraction_bits)
  k_less_one = Sub (k, one)
  half = BitShift <direction = "LEFT"> (one, k_less_one)
  offset = BitShift <direction = "LEFT"> (one, sixty_two)
  half_offset = Add (half, offset)
  product = Mul (u, r)
  product_bits = Cast <to = 13> (product)
  raised = Add (product_bits, half_offset)
  shifted = BitShift <direction = "RIGHT"> (raised, k)
  offset_shifted = BitShift <direction = "RIGHT"> (offset, k)
  z_bits = Sub (shifted, offset_shifted)
  z = Cast <to = 6> (z_bits)
  z_w = Mul (z, w)
  acc = Add (z_w, bias)
  unit = Constant <value = int32 {{1}}> ()
  shift_wide = Constant <value_int: int = @shift> ()
  shift_s32 = Cast <to = 6> (shift_wide)
  y = mulshift.Requantize <{REQUANTIZE_OUTPUT}> (acc, unit, shift_s32)
"""


def largest_normalized(n: int, fraction: int) -> int:
    """max |z| of a row of n elements: sqrt(n) * 2^fraction, rounded, plus what r may be too large."""
    return isqrt(n << 2 * fraction) + 1


def _normalize(a: Attributes, xc: Array, mean: bool) -> Array:
    """z of the centred x, int64."""
    n = xc.shape[-1]
    sums = xc.sum(axis=-1, keepdims=True) if mean else np.int64(0)
    spread = n * (xc * xc).sum(axis=-1, keepdims=True) - sums * sums
    r, e = inverse_root(np.maximum(spread + a["epsilon"], 1))
    k = FRACTION_BITS + e - a["fraction"]
    return np.asarray(((n * xc - sums) * r + (np.int64(1) << (k - 1))) >> k)


def _reference(a: Attributes, x: Array, w: Array, bias: Array, mean: bool) -> Array:
    acc = _normalize(a, x.astype(np.int64) - a["x_zero_point"], mean) * w + bias
    return REQUANTIZE.reference({**a, "x_zero_point": 0}, acc, np.int64(1), np.int64(a["shift"]))


def _layer_norm(a: Attributes, x: Array, w: Array, bias: Array) -> Array:
    return _reference(a, x, w, bias, mean=True)


def _rms_norm(a: Attributes, x: Array, w: Array, bias: Array) -> Array:
    return _reference(a, x, w, bias, mean=False)


def _to_rows(norm: Operator) -> Operator:
    """LayerNormRowQuantize and the like: RowQuantize(norm(x, w, bias)), whose x_zero_point is q_x_zero_point."""
    own = ("x_zero_point", "epsilon", "fraction", "shift", "zero_point", "qmin", "qmax", "dtype")

    def rows(a: Attributes, *inputs: Array) -> tuple[Array, ...]:
        return ROW_QUANTIZE.run({"x_zero_point": a["q_x_zero_point"]}, norm.reference(a, *inputs))

    return Operator(
        name=f"{norm.name}RowQuantize",
        signature=signature((*own, "q_x_zero_point"), ("x", "w", "bias"), ("q", "k")),
        body=f"""
  y = mulshift.{norm.name} <{hand_on(own)}> (x, w, bias)
  q, k = mulshift.RowQuantize <x_zero_point: int = @q_x_zero_point> (y)
""",
        reference=lambda a, *inputs: rows(a, *inputs)[0],
        calls=(norm.name, "RowQuantize"),
        second=lambda a, first, *inputs: rows(a, *inputs)[1],
    )


_SIGNATURE = f"<x_zero_point, epsilon, fraction, shift, {OUTPUT}> (x, w, bias) => (y)"

LAYER_NORM = Operator(
    name="LayerNorm",
    signature=_SIGNATURE,
    body=_CENTRE + _OF_MEAN + _ROOT + _SCALE,
    reference=_layer_norm,
    calls=("Requantize",),
)
RMS_NORM = Operator(
    name="RmsNorm",
    signature=_SIGNATURE,
    body=_CENTRE + _OF_ZERO + _ROOT + _SCALE,
    reference=_rms_norm,
    calls=("Requantize",),
)
LAYER_NORM_ROW_QUANTIZE, RMS_NORM_ROW_QUANTIZE = _to_rows(LAYER_NORM), _to_rows(RMS_NORM)
NORM_ROWS = {op.name: f"{op.name}RowQuantize" for op in (LAYER_NORM, RMS_NORM)}
"""Operator -> the same with RowQuantize behind it."""
