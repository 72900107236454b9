"""RotaryEmbedding: the halves of the last axis turned by angles, then Requantize (arXiv:2104.09864, section 3.4.2).

    acc1 = (x1 - zx) * cos - (x2 - zx) * sin,    acc2 = (x2 - zx) * cos + (x1 - zx) * sin

x: u8, s8 or s16 [..., 2 L], as a rule [B, S, H, 2 L]; cos, sin: s16 [..., L] of one shape, scale and zero point 0, as a
rule [B or 1, S, 1, L], whose other axes broadcast to those of x and make it no larger. Beside an x of 8 bits they are
any: |acc| <= 2 * 255 * 2^15 < 2^24. Beside one of 16 bits they are from -2^14 to 2^14, which the kernel checks whenever
it runs: |acc| <= 2 * 65535 * 2^14 = 2^31 - 2^15.
"""

from __future__ import annotations

import numpy as np

from mulshift.ir.operators.operator import OUTPUT, REQUANTIZE_OUTPUT, Attributes, Operator
from mulshift.ir.operators.requantize import REQUANTIZE
from mulshift.ir.types import Array

MAX_ANGLE = 2**14
"""Of a cosine or sine in steps, beside an x of 16 bits."""

_BODY = f"""
  x_wide = Cast <to = 6> (x)
  zx_wide = Constant <value_int: int = @x_zero_point> ()
  zx = Cast <to = 6> (zx_wide)
  x_centred = Sub (x_wide, zx)
  cos_wide = Cast <to = 6> (cos)
  sin_wide = Cast <to = 6> (sin)
  first, second = Split <axis = -1, num_outputs = 2> (x_centred)
  first_cos = Mul (first, cos_wide)
  second_sin = Mul (second, sin_wide)
  second_cos = Mul (second, cos_wide)
  first_sin = Mul (first, sin_wide)
  acc_first = Sub (first_cos, second_sin)
  acc_second = Add (second_cos, first_sin)
  acc = Concat <axis = -1> (acc_first, acc_second)
  b_wide = Constant <value_int: int = @multiplier> ()
  b = Cast <to = 6> (b_wide)
  c_wide = Constant <value_int: int = @shift> ()
  c = Cast <to = 6> (c_wide)
  y = mulshift.Requantize <{REQUANTIZE_OUTPUT}> (acc, b, c)
"""


def _reference(a: Attributes, x: Array, cos: Array, sin: Array) -> Array:
    first, second = np.split(x.astype(np.int64) - a["x_zero_point"], 2, axis=-1)
    cos, sin = cos.astype(np.int64), sin.astype(np.int64)
    acc = np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return REQUANTIZE.reference({**a, "x_zero_point": 0}, acc, np.int64(a["multiplier"]), np.int64(a["shift"]))


ROTARY_EMBEDDING = Operator(
    name="RotaryEmbedding",
    signature=f"<x_zero_point, multiplier, shift, {OUTPUT}> (x, cos, sin) => (y)",
    body=_BODY,
    reference=_reference,
    calls=("Requantize",),
)
