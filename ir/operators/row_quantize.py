"""RowQuantize: 16 bits to 8 with a power of two for each row of the last axis, per-token dynamic quantization.

    m = max |x - zx|,  k = max(bits(m) - 7, 0),  q = clamp(((x - zx) + (2^k >> 1)) >> k, -128, 127) + 128

x: u8, s8 or s16 [..., n], |x - zx| < 2^16; q: u8 of zero point 128, k: s32 [..., 1], 0 to 9: `x - zx` is about
`(q - 128) * 2^k`, rounded half up. bits(m), the length of m in binary, is found by counting leading zeros. A product
of q continues with `Requantize(acc, b, c - k)`.
"""

from __future__ import annotations

import numpy as np

from mulshift.ir.operators.operator import Attributes, Operator
from mulshift.ir.types import Array

ZERO_POINT = 128
KEPT_BITS = 7
MOST_SHIFT = 9
"""16 bits less those that are kept."""

_BODY = """
  x_wide = Cast <to = 6> (x)
  zx_wide = Constant <value_int: int = @x_zero_point> ()
  zx = Cast <to = 6> (zx_wide)
  xc = Sub (x_wide, zx)
  magnitude = Abs (xc)
  last = Constant <value_ints = [-1]> ()
  m = ReduceMax <keepdims = 1> (magnitude, last)
  powers = Constant <value = int32[16] {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768}> ()
  reached = GreaterOrEqual (m, powers)
  reached_bits = Cast <to = 6> (reached)
  bits = ReduceSum <keepdims = 1> (reached_bits, last)
  kept = Constant <value = int32 {7}> ()
  beyond = Sub (bits, kept)
  k = Relu (beyond)
  k_bits = Cast <to = 12> (k)
  one = Constant <value = uint32 {1}> ()
  unit = BitShift <direction = "LEFT"> (one, k_bits)
  half = BitShift <direction = "RIGHT"> (unit, one)
  offset = Constant <value = int32 {65536}> ()
  raised = Add (xc, offset)
  raised_bits = Cast <to = 12> (raised)
  raised_half = Add (raised_bits, half)
  shifted_bits = BitShift <direction = "RIGHT"> (raised_half, k_bits)
  shifted = Cast <to = 6> (shifted_bits)
  offset_bits = Cast <to = 12> (offset)
  offset_shifted_bits = BitShift <direction = "RIGHT"> (offset_bits, k_bits)
  offset_shifted = Cast <to = 6> (offset_shifted_bits)
  rounded = Sub (shifted, offset_shifted)
  middle = Constant <value = int32 {128}> ()
  moved = Add (rounded, middle)
  low = Constant <value = int32 {0}> ()
  high = Constant <value = int32 {255}> ()
  clamped = Clip (moved, low, high)
  q = Cast <to = 2> (clamped)
"""


def _shift(a: Attributes, x: Array) -> Array:
    m = np.abs(x.astype(np.int64) - a["x_zero_point"]).max(axis=-1, keepdims=True)
    bits = (m >= 1 << np.arange(16)).sum(axis=-1, keepdims=True)
    return np.asarray(np.maximum(bits - KEPT_BITS, 0))


def _quantized(a: Attributes, x: Array) -> Array:
    k = _shift(a, x)
    rounded = (x.astype(np.int64) - a["x_zero_point"] + ((1 << k) >> 1)) >> k
    return np.asarray(np.clip(rounded + ZERO_POINT, 0, 255), np.uint8)


ROW_QUANTIZE = Operator(
    name="RowQuantize",
    signature="<x_zero_point> (x) => (q, k)",
    body=_BODY,
    reference=_quantized,
    second=lambda a, first, x: _shift(a, x).astype(np.int32),
)
