"""Lerp: linear interpolation along one axis, `acc = (x[i0] - zx) * w0 + (x[i1] - zx) * w1` in int32, not rounded.

x: u8, s8, s16 or s32; i0, i1: s64 [L]; w0, w1: s32, [L, 1, ...] to broadcast from `axis` on, w0 + w1 = 2^k. Two of them
and one Requantize make a bilinear Resize with a single rounding.
"""

from __future__ import annotations

import numpy as np

from mulshift.ir.operators.operator import Attributes, Operator
from mulshift.ir.types import Array

_BODY = """
  x_wide = Cast <to = 6> (x)
  zx_wide = Constant <value_int: int = @x_zero_point> ()
  zx = Cast <to = 6> (zx_wide)
  x_centred = Sub (x_wide, zx)
  x0 = Gather <axis: int = @axis> (x_centred, i0)
  x1 = Gather <axis: int = @axis> (x_centred, i1)
  x0_weighted = Mul (x0, w0)
  x1_weighted = Mul (x1, w1)
  acc = Add (x0_weighted, x1_weighted)
"""


def _reference(a: Attributes, x: Array, i0: Array, i1: Array, w0: Array, w1: Array) -> Array:
    centred = x.astype(np.int64) - a["x_zero_point"]
    x0, x1 = np.take(centred, i0, axis=a["axis"]), np.take(centred, i1, axis=a["axis"])
    return np.asarray(x0 * w0 + x1 * w1, np.int32)


LERP = Operator(
    name="Lerp",
    signature="<x_zero_point, axis> (x, i0, i1, w0, w1) => (acc)",
    body=_BODY,
    reference=_reference,
)
