"""Requantize: `y = clamp((((x - zx) * b + 2^(c-1)) >> c) + z, qmin, qmax)`, rounding half up (ARITHMETIC.md section 2).

x: u8, s8, s16 or s32, any shape, |x - zx| < 2^31; b, c: s32, broadcast against x. The body works modulo 2^64 in uint64
(ONNX Runtime shifts unsigned integers only), each signed number behind an offset of 2^62 where its sign matters: with
|x - zx| * b < 2^62 and 2^(c-1) <= 2^61 what is shifted lies in (0, 2^64). (x - zx) * b is x * b - zx * b, so that zx
costs no pass over x.
"""

from __future__ import annotations

import numpy as np

from mulshift.ir.dyadic import requantize
from mulshift.ir.operators.operator import CLAMP, Attributes, Operator
from mulshift.ir.types import Array, dtype_of

_BODY = (
    """
  x_bits = Cast <to = 13> (x)
  b_bits = Cast <to = 13> (b)
  c_bits = Cast <to = 13> (c)
  zx_wide = Constant <value_int: int = @x_zero_point> ()
  zx = Cast <to = 13> (zx_wide)
  zx_product = Mul (zx, b_bits)
  one = Constant <value = uint64 {1}> ()
  c_less_one = Sub (c_bits, one)
  half = BitShift <direction = "LEFT"> (one, c_less_one)
  offset = Constant <value = uint64 {4611686018427387904}> ()
  half_offset = Add (half, offset)
  addend = Sub (half_offset, zx_product)
  product = Mul (x_bits, b_bits)
  raised = Add (product, addend)
  shifted = BitShift <direction = "RIGHT"> (raised, c_bits)
"""
    + CLAMP
)


def _reference(a: Attributes, x: Array, b: Array, c: Array) -> Array:
    centred = x.astype(np.int64) - a["x_zero_point"] if a["x_zero_point"] else x
    y = requantize(centred, b, c, a["zero_point"], a["qmin"], a["qmax"])
    return y.astype(dtype_of(a["dtype"]))


REQUANTIZE = Operator(
    name="Requantize",
    signature="<x_zero_point, zero_point, qmin, qmax, dtype> (x, b, c) => (out)",
    body=_BODY,
    reference=_reference,
)
