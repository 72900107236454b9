"""Add, Mul and Affine: elementwise with one rounding (ARITHMETIC.md section 4).

x, y: u8, s8 or s16 with broadcasting, per-tensor scales. Add: `((x - zx) * bx + (y - zy) * by + 2^(c-1)) >> c`;
the compiler proves `|x - zx| * bx + |y - zy| * by < 2^62`. Mul: product of the centred values (below 2^31), then
Requantize. Affine: `(x - zx) * w + bias` in int32 with constant w, bias (s32, broadcast), then Requantize.
"""

from __future__ import annotations

import numpy as np

from mulshift.ir.dyadic import shift_round_half_up
from mulshift.ir.operators.operator import CLAMP, OUTPUT, REQUANTIZE_OUTPUT, Attributes, Operator
from mulshift.ir.operators.requantize import REQUANTIZE
from mulshift.ir.types import Array, dtype_of

_CENTRE = """
  x_wide = Cast <to = 6> (x)
  zx_wide = Constant <value_int: int = @x_zero_point> ()
  zx = Cast <to = 6> (zx_wide)
  x_centred = Sub (x_wide, zx)
  y_wide = Cast <to = 6> (y)
  zy_wide = Constant <value_int: int = @y_zero_point> ()
  zy = Cast <to = 6> (zy_wide)
  y_centred = Sub (y_wide, zy)
"""

_ADD = (
    """
  x_bits = Cast <to = 13> (x)
  y_bits = Cast <to = 13> (y)
  zx_wide = Constant <value_int: int = @x_zero_point> ()
  zx = Cast <to = 13> (zx_wide)
  zy_wide = Constant <value_int: int = @y_zero_point> ()
  zy = Cast <to = 13> (zy_wide)
  bx_wide = Constant <value_int: int = @x_multiplier> ()
  bx = Cast <to = 13> (bx_wide)
  by_wide = Constant <value_int: int = @y_multiplier> ()
  by = Cast <to = 13> (by_wide)
  c_wide = Constant <value_int: int = @shift> ()
  c_bits = Cast <to = 13> (c_wide)
  one = Constant <value = uint64 {1}> ()
  c_less_one = Sub (c_bits, one)
  half = BitShift <direction = "LEFT"> (one, c_less_one)
  offset = Constant <value = uint64 {4611686018427387904}> ()
  half_offset = Add (half, offset)
  zx_product = Mul (zx, bx)
  zy_product = Mul (zy, by)
  less_zx = Sub (half_offset, zx_product)
  addend = Sub (less_zx, zy_product)
  x_scaled = Mul (x_bits, bx)
  y_scaled = Mul (y_bits, by)
  sum = Add (x_scaled, y_scaled)
  raised = Add (sum, addend)
  shifted = BitShift <direction = "RIGHT"> (raised, c_bits)
"""
    + CLAMP
)

_MUL = (
    _CENTRE
    + f"""
  product = Mul (x_centred, y_centred)
  b_wide = Constant <value_int: int = @multiplier> ()
  b = Cast <to = 6> (b_wide)
  c_wide = Constant <value_int: int = @shift> ()
  c = Cast <to = 6> (c_wide)
  out = mulshift.Requantize <{REQUANTIZE_OUTPUT}> (product, b, c)
"""
)

_AFFINE = f"""
  x_wide = Cast <to = 6> (x)
  zx_wide = Constant <value_int: int = @x_zero_point> ()
  zx = Cast <to = 6> (zx_wide)
  x_centred = Sub (x_wide, zx)
  product = Mul (x_centred, w)
  acc = Add (product, bias)
  out = mulshift.Requantize <{REQUANTIZE_OUTPUT}> (acc, b, c)
"""


def _add(a: Attributes, x: Array, y: Array) -> Array:
    x_scaled = (x.astype(np.int64) - a["x_zero_point"]) * a["x_multiplier"]
    y_scaled = (y.astype(np.int64) - a["y_zero_point"]) * a["y_multiplier"]
    moved = shift_round_half_up(x_scaled + y_scaled, a["shift"]) + a["zero_point"]
    return np.asarray(np.clip(moved, a["qmin"], a["qmax"]), dtype_of(a["dtype"]))


def _mul(a: Attributes, x: Array, y: Array) -> Array:
    product = (x.astype(np.int64) - int(a["x_zero_point"])) * (y.astype(np.int64) - a["y_zero_point"])
    return REQUANTIZE.reference({**a, "x_zero_point": 0}, product, np.int64(a["multiplier"]), np.int64(a["shift"]))


def _affine(a: Attributes, x: Array, w: Array, bias: Array, b: Array, c: Array) -> Array:
    acc = (x.astype(np.int64) - a["x_zero_point"]) * w + bias
    return REQUANTIZE.reference({**a, "x_zero_point": 0}, acc, b, c)


ADD = Operator(
    name="Add",
    signature=f"<x_zero_point, y_zero_point, x_multiplier, y_multiplier, shift, {OUTPUT}> (x, y) => (out)",
    body=_ADD,
    reference=_add,
)
MUL = Operator(
    name="Mul",
    signature=f"<x_zero_point, y_zero_point, multiplier, shift, {OUTPUT}> (x, y) => (out)",
    body=_MUL,
    reference=_mul,
    calls=("Requantize",),
)
AFFINE = Operator(
    name="Affine",
    signature=f"<x_zero_point, {OUTPUT}> (x, w, bias, b, c) => (out)",
    body=_AFFINE,
    reference=_affine,
    calls=("Requantize",),
)
