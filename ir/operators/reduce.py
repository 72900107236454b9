"""ReduceMean over any axes: `acc = sum (x - zx)` in int32, then Requantize with b/2^c = sx / (N * sy).

x: u8, s8 or s16; axes: s64 [r], constant; N * |x - zx| < 2^31 is proven by the compiler. GlobalAveragePool is this too.
"""

from __future__ import annotations

import numpy as np

from mulshift.ir.operators.operator import OUTPUT, REQUANTIZE_OUTPUT, Attributes, Operator
from mulshift.ir.operators.requantize import REQUANTIZE
from mulshift.ir.types import Array

_BODY = f"""
  x_wide = Cast <to = 6> (x)
  zx_wide = Constant <value_int: int = @x_zero_point> ()
  zx = Cast <to = 6> (zx_wide)
  x_centred = Sub (x_wide, zx)
  acc = ReduceSum <keepdims: int = @keepdims> (x_centred, axes)
  b_wide = Constant <value_int: int = @multiplier> ()
  b = Cast <to = 6> (b_wide)
  c_wide = Constant <value_int: int = @shift> ()
  c = Cast <to = 6> (c_wide)
  y = mulshift.Requantize <{REQUANTIZE_OUTPUT}> (acc, b, c)
"""


def _reference(a: Attributes, x: Array, axes: Array) -> Array:
    centred = x.astype(np.int64) - a["x_zero_point"]
    acc = centred.sum(axis=tuple(int(i) for i in axes), keepdims=bool(a["keepdims"]))
    return REQUANTIZE.reference(
        {**a, "x_zero_point": 0}, np.asarray(acc), np.int64(a["multiplier"]), np.int64(a["shift"])
    )


REDUCE_MEAN = Operator(
    name="ReduceMean",
    signature=f"<x_zero_point, keepdims, multiplier, shift, {OUTPUT}> (x, axes) => (y)",
    body=_BODY,
    reference=_reference,
    calls=("Requantize",),
)
