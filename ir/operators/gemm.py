"""Gemm, GemmAccumulate (constant weights) and MatMul (two activations), each sum followed by Requantize.

x: u8 [..., K]; w: s8 [K, N]; bias: s32 [N]; b, c: s32 [N] or [1]. MatMul: x u8 [..., M, K], y s8 [..., K, N].
Bodies multiply u8 by u8, as in `conv` and for the same reason (docs/decisions/0001).
"""

from __future__ import annotations

import numpy as np

from mulshift.ir.operators.exact import matmul
from mulshift.ir.operators.operator import OUTPUT, REQUANTIZE_OUTPUT, Attributes, Operator
from mulshift.ir.operators.requantize import REQUANTIZE
from mulshift.ir.types import Array

_ZERO_POINTS = "x_zero_point: int = @x_zero_point, w_zero_point: int = @w_zero_point"
_REQUANTIZE = f"""
  y = mulshift.Requantize <{REQUANTIZE_OUTPUT}> (acc, b, c)
"""

_SUMS = """
  w_wide = Cast <to = 6> (w)
  to_unsigned = Constant <value = int32 {128}> ()
  w_raised = Add (w_wide, to_unsigned)
  w_unsigned = Cast <to = 2> (w_raised)
  zw_wide = Constant <value_int: int = @w_zero_point> ()
  zw_s32 = Cast <to = 6> (zw_wide)
  zw_raised = Add (zw_s32, to_unsigned)
  zw = Cast <to = 2> (zw_raised)
  zx_wide = Constant <value_int: int = @x_zero_point> ()
  zx = Cast <to = 2> (zx_wide)
  sums = MatMulInteger (x, w_unsigned, zx, zw)
"""


def _sums(a: Attributes, x: Array, w: Array) -> Array:
    return matmul(x, w, int(a["x_zero_point"]), int(a["w_zero_point"]))


def _accumulate(a: Attributes, x: Array, w: Array, bias: Array) -> Array:
    return np.asarray(_sums(a, x, w) + bias, np.int32)


def _gemm(a: Attributes, x: Array, w: Array, bias: Array, b: Array, c: Array) -> Array:
    return REQUANTIZE.reference({**a, "x_zero_point": 0}, _accumulate(a, x, w, bias), b, c)


def _matmul(a: Attributes, x: Array, w: Array, b: Array, c: Array) -> Array:
    return REQUANTIZE.reference({**a, "x_zero_point": 0}, _sums(a, x, w), b, c)


GEMM_ACCUMULATE = Operator(
    name="GemmAccumulate",
    signature="<x_zero_point, w_zero_point> (x, w, bias) => (acc)",
    body=_SUMS + "  acc = Add (sums, bias)\n",
    reference=_accumulate,
)
GEMM = Operator(
    name="Gemm",
    signature=f"<x_zero_point, w_zero_point, {OUTPUT}> (x, w, bias, b, c) => (y)",
    body=f"  acc = mulshift.GemmAccumulate <{_ZERO_POINTS}> (x, w, bias)" + _REQUANTIZE,
    reference=_gemm,
    calls=("GemmAccumulate", "Requantize"),
)
MATMUL = Operator(
    name="MatMul",
    signature=f"<x_zero_point, w_zero_point, {OUTPUT}> (x, w, b, c) => (y)",
    body=_SUMS.replace("sums =", "acc =") + _REQUANTIZE,
    reference=_matmul,
    calls=("Requantize",),
)
