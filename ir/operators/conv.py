"""Conv and ConvAccumulate, 1-D to 3-D: `acc = sum (x - zx) * (w - zw) + bias`, then Requantize.

x: u8 [N, C, ...]; w: s8 [O, C/group, ...]; bias: s32 [O, 1, ...]; b, c: s32, [O, 1, ...] or [1]. Padding holds zx.
The body multiplies u8 by u8 (w + 128): ONNX Runtime's u8 x s8 kernels saturate on x86 without VNNI and are slow in
ConvInteger everywhere (docs/decisions/0001). |acc| < 2^31 is proven by the compiler.
"""

from __future__ import annotations

import numpy as np

from mulshift.ir.operators.exact import conv
from mulshift.ir.operators.operator import OUTPUT, REQUANTIZE_OUTPUT, Attributes, Operator
from mulshift.ir.operators.requantize import REQUANTIZE
from mulshift.ir.types import Array

_ZERO_POINTS = "x_zero_point: int = @x_zero_point, w_zero_point: int = @w_zero_point"
_WINDOW = "strides, pads, dilations, group"
_PASS_WINDOW = """strides: ints = @strides, pads: ints = @pads, dilations: ints = @dilations, group: int = @group"""

_ACCUMULATE = f"""
  w_wide = Cast <to = 6> (w)
  to_unsigned = Constant <value = int32 {{128}}> ()
  w_raised = Add (w_wide, to_unsigned)
  w_unsigned = Cast <to = 2> (w_raised)
  zw_wide = Constant <value_int: int = @w_zero_point> ()
  zw_s32 = Cast <to = 6> (zw_wide)
  zw_raised = Add (zw_s32, to_unsigned)
  zw = Cast <to = 2> (zw_raised)
  zx_wide = Constant <value_int: int = @x_zero_point> ()
  zx = Cast <to = 2> (zx_wide)
  sums = ConvInteger <{_PASS_WINDOW}> (x, w_unsigned, zx, zw)
  acc = Add (sums, bias)
"""

_CONV = f"""
  acc = mulshift.ConvAccumulate <{_ZERO_POINTS}, {_PASS_WINDOW}> (x, w, bias)
  y = mulshift.Requantize <{REQUANTIZE_OUTPUT}> (acc, b, c)
"""


def _accumulate(a: Attributes, x: Array, w: Array, bias: Array) -> Array:
    return np.asarray(conv(a, x, w) + bias, np.int32)


def _reference(a: Attributes, x: Array, w: Array, bias: Array, b: Array, c: Array) -> Array:
    return REQUANTIZE.reference({**a, "x_zero_point": 0}, _accumulate(a, x, w, bias), b, c)


CONV_ACCUMULATE = Operator(
    name="ConvAccumulate",
    signature=f"<x_zero_point, w_zero_point, {_WINDOW}> (x, w, bias) => (acc)",
    body=_ACCUMULATE,
    reference=_accumulate,
)
CONV = Operator(
    name="Conv",
    signature=f"<x_zero_point, w_zero_point, {OUTPUT}, {_WINDOW}> (x, w, bias, b, c) => (y)",
    body=_CONV,
    reference=_reference,
    calls=("ConvAccumulate", "Requantize"),
)
