"""Hadamard: groups of the last axis times a matrix of 1 and -1, then Requantize (arXiv:2404.00456).

    acc = (x - zx) H,    H = S_p (x) base,    S_p[i, j] = (-1)^(number of bits of i & j)

x: u8, s8 or s16 [..., n], n a multiple of `block`; base: s8 [m, m] of 1 and -1, constant; p = block / m is a power of
two. H over the square root of `block` is orthogonal where base / sqrt(m) is; that root belongs to multiplier and shift.
Any sum has at most `block` terms, so |acc| <= block * |x - zx|, which the compiler proves below 2^31.
"""

from __future__ import annotations

import numpy as np

from mulshift.ir.operators.operator import OUTPUT, REQUANTIZE_OUTPUT, Attributes, Operator
from mulshift.ir.operators.requantize import REQUANTIZE
from mulshift.ir.types import Array

_FOLDS = "\n".join(
    f"""
  places_{n} = Constant <value = uint32 {{{n}}}> ()
  above_{n} = BitShift <direction = "RIGHT"> (bits_{2 * n}, places_{n})
  bits_{n} = BitwiseXor (bits_{2 * n}, above_{n})"""
    for n in (8, 4, 2, 1)
)
"""The last bit of bits_1 is the parity of the 16 bits of bits_16."""

_BODY = f"""
  x_wide = Cast <to = 6> (x)
  zx_wide = Constant <value_int: int = @x_zero_point> ()
  zx = Cast <to = 6> (zx_wide)
  x_centred = Sub (x_wide, zx)
  none = Constant <value_int = 0> ()
  one = Constant <value_int = 1> ()
  first = Constant <value_ints = [0]> ()
  second = Constant <value_ints = [1]> ()
  ends = Constant <value_ints = [0, 2]> ()
  middle = Constant <value_ints = [1, 3]> ()
  rest = Constant <value_ints = [-1]> ()
  block = Constant <value_int: int = @block> ()
  rows_1 = Shape <start = 0, end = 1> (base)
  rows = Squeeze (rows_1)
  p = Div (block, rows)
  index_wide = Range (none, p, one)
  index = Cast <to = 12> (index_wide)
  index_i = Unsqueeze (index, second)
  index_j = Unsqueeze (index, first)
  bits_16 = BitwiseAnd (index_i, index_j){_FOLDS}
  unit = Constant <value = uint32 {{1}}> ()
  parity_bits = BitwiseAnd (bits_1, unit)
  parity = Cast <to = 6> (parity_bits)
  plus = Constant <value = int32 {{1}}> ()
  twice = Add (parity, parity)
  sylvester = Sub (plus, twice)
  base_wide = Cast <to = 6> (base)
  outer = Unsqueeze (sylvester, middle)
  inner = Unsqueeze (base_wide, ends)
  product = Mul (outer, inner)
  block_1 = Reshape (block, rest)
  h_shape = Concat <axis = 0> (block_1, block_1)
  h = Reshape (product, h_shape)
  x_shape = Shape (x)
  leading = Shape <start = 0, end = -1> (x)
  size = Shape <start = -1> (x)
  groups = Div (size, block_1)
  grouped_shape = Concat <axis = 0> (leading, groups, block_1)
  grouped = Reshape <allowzero = 1> (x_centred, grouped_shape)
  sums = MatMul (grouped, h)
  acc = Reshape <allowzero = 1> (sums, x_shape)
  b_wide = Constant <value_int: int = @multiplier> ()
  b = Cast <to = 6> (b_wide)
  c_wide = Constant <value_int: int = @shift> ()
  c = Cast <to = 6> (c_wide)
  y = mulshift.Requantize <{REQUANTIZE_OUTPUT}> (acc, b, c)
"""


def sylvester(p: int) -> Array:
    """S_p, int64 [p, p]."""
    h = np.ones((1, 1), np.int64)
    while h.shape[0] < p:
        h = np.block([[h, h], [h, -h]])
    return h


def _reference(a: Attributes, x: Array, base: Array) -> Array:
    block = int(a["block"])
    h = np.kron(sylvester(block // base.shape[0]), base.astype(np.int64))
    centred = x.astype(np.int64) - a["x_zero_point"]
    groups = centred.reshape(*x.shape[:-1], x.shape[-1] // block, block)
    acc = (groups @ h).reshape(x.shape)
    return REQUANTIZE.reference({**a, "x_zero_point": 0}, acc, np.int64(a["multiplier"]), np.int64(a["shift"]))


HADAMARD = Operator(
    name="Hadamard",
    signature=f"<x_zero_point, block, multiplier, shift, {OUTPUT}> (x, base) => (y)",
    body=_BODY,
    reference=_reference,
    calls=("Requantize",),
)
