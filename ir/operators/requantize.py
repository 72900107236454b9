"""Requantize: `y = clamp((((x - zx) * b + 2^(c-1)) >> c) + z, qmin, qmax)`, rounding half up (ARITHMETIC.md section 2).

x: u8, s8, s16 or s32, any shape, |x - zx| < 2^31; b, c: s32, broadcast against x. The body works in int64 and shifts in
uint64 behind an offset of 2^62 (ONNX Runtime shifts unsigned integers only); sums wrap modulo 2^64, which is exact.
"""

from __future__ import annotations

import numpy as np

from mulshift.ir.dyadic import requantize
from mulshift.ir.operators.operator import Attributes, Operator
from mulshift.ir.types import Array, dtype_of

_BODY = """
  x_wide = Cast <to = 7> (x)
  zx = Constant <value_int: int = @x_zero_point> ()
  centred = Sub (x_wide, zx)
  b_wide = Cast <to = 7> (b)
  product = Mul (centred, b_wide)
  product_bits = Cast <to = 13> (product)
  c_bits = Cast <to = 13> (c)
  one = Constant <value = uint64 {1}> ()
  c_less_one = Sub (c_bits, one)
  half = BitShift <direction = "LEFT"> (one, c_less_one)
  offset = Constant <value = uint64 {4611686018427387904}> ()
  half_offset = Add (half, offset)
  raised = Add (product_bits, half_offset)
  shifted_bits = BitShift <direction = "RIGHT"> (raised, c_bits)
  shifted = Cast <to = 7> (shifted_bits)
  offset_shifted_bits = BitShift <direction = "RIGHT"> (offset, c_bits)
  offset_shifted = Cast <to = 7> (offset_shifted_bits)
  z = Constant <value_int: int = @zero_point> ()
  z_less_offset = Sub (z, offset_shifted)
  moved = Add (shifted, z_less_offset)
  low = Constant <value_int: int = @qmin> ()
  high = Constant <value_int: int = @qmax> ()
  clamped = Clip (moved, low, high)
  y = Cast <to: int = @dtype> (clamped)
"""


def _reference(a: Attributes, x: Array, b: Array, c: Array) -> Array:
    centred = x.astype(np.int64) - a["x_zero_point"] if a["x_zero_point"] else x
    y = requantize(centred, b, c, a["zero_point"], a["qmin"], a["qmax"])
    return y.astype(dtype_of(a["dtype"]))


REQUANTIZE = Operator(
    name="Requantize",
    signature="<x_zero_point, zero_point, qmin, qmax, dtype> (x, b, c) => (y)",
    body=_BODY,
    reference=_reference,
)
