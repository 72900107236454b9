"""Attention, MaskedAttention and their flat forms: scaled dot-product attention whose scores never leave integers.

q: u8 [B, M, H, D]; k: s8 [B, N, G, D]; v: s8 [B, N, G, E]; y: [B, M, H, E]. Grouped queries: H is a multiple of G, head
h reads h // (H / G). mask: bool, broadcast to [B, H, M, N], true where the key may be attended.

    s_j = sum_d (q - zq) * (k_j - zk)
    d_j = max s - s_j                                                        over attended keys
    t_j = min((d_j * score_multiplier + 2^(score_shift-1)) >> score_shift, 9 * 4096)
    e_j = ((255 * p(t_j) >> i(t_j)) + 2^15) >> 16                            exp2.py; 0 where the key is masked
    y   = clamp(((sum_j e_j * (v_j - zv) * b + 2^(c-1)) >> c) + z)           b, c of the row: reciprocal.py

b / 2^c = multiplier / 2^shift / max(sum e, 1), score_multiplier / 2^score_shift = 4096 * s_q * s_k * scale * log2(e),
multiplier / 2^shift = s_v / s_y, shift <= 38. The weights e are 255 * 2^(-t/4096) rounded half up; 9 octaves below the
maximum they are 0. They are not normalized before the product with v: the greatest is always 255, so flat rows of long
sequences keep 8 bits, and dividing by the sum of the rounded weights leaves no bias. A row without keys gives z.

FlatAttention and FlatMaskedAttention take q [B, M, H * D], k [B, N, G * D], v [B, N, G * E] and make y [B, M, H * E].

Proven by the compiler: D * max |q - zq| * max |k - zk| < 2^30, so that d < 2^31, and N * 255 * max |v - zv| < 2^31.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from mulshift.ir.operators.exact import matmul
from mulshift.ir.operators.exp2 import EXP2, OCTAVE, exp2, exponent_dyadic
from mulshift.ir.operators.operator import OUTPUT, REQUANTIZE_OUTPUT, Attributes, Operator, hand_on
from mulshift.ir.operators.reciprocal import RECIPROCAL, row_dyadics
from mulshift.ir.operators.requantize import REQUANTIZE
from mulshift.ir.operators.softmax import MOST_KEYS, SCORE, exponents, output_dyadic
from mulshift.ir.types import Array, Dyadic

OCTAVES = 9
MOST_SHIFT = 38
SCORE_LIMIT = 2**30
MASKED = -SCORE_LIMIT
_ZERO_POINTS = "q_zero_point, k_zero_point, v_zero_point"

_BODY = """
  q_shape = Shape (q)
  k_shape = Shape (k)
  v_shape = Shape (v)
  at0 = Constant <value = int64[1] {{0}}> ()
  at1 = Constant <value = int64[1] {{1}}> ()
  at2 = Constant <value = int64[1] {{2}}> ()
  at3 = Constant <value = int64[1] {{3}}> ()
  at4 = Constant <value = int64[1] {{4}}> ()
  same = Constant <value = int64[2] {{0, 0}}> ()
  rest = Constant <value = int64[1] {{-1}}> ()
  batch = Slice (q_shape, at0, at1)
  rows = Slice (q_shape, at1, at2)
  heads = Slice (q_shape, at2, at3)
  depth = Slice (q_shape, at3, at4)
  keys = Slice (k_shape, at1, at2)
  groups = Slice (k_shape, at2, at3)
  width = Slice (v_shape, at3, at4)

  q_grouped_shape = Concat <axis = 0> (same, groups, rest, depth)
  q_grouped = Reshape (q, q_grouped_shape)
  q_ready = Transpose <perm = [0, 2, 3, 1, 4]> (q_grouped)
  to_unsigned = Constant <value = int32 {{128}}> ()
  k_wide = Cast <to = 6> (k)
  k_raised = Add (k_wide, to_unsigned)
  k_unsigned = Cast <to = 2> (k_raised)
  k_turned = Transpose <perm = [0, 2, 3, 1]> (k_unsigned)
  k_ready = Unsqueeze (k_turned, at2)
  zq_wide = Constant <value_int: int = @q_zero_point> ()
  zq = Cast <to = 2> (zq_wide)
  zk_wide = Constant <value_int: int = @k_zero_point> ()
  zk_s32 = Cast <to = 6> (zk_wide)
  zk_raised = Add (zk_s32, to_unsigned)
  zk = Cast <to = 2> (zk_raised)
  every_score = MatMulInteger (q_ready, k_ready, zq, zk)
{mask}
  top = ReduceMax <keepdims = 1> (score, rest)
  d = Sub (top, score)
  score_b_wide = Constant <value_int: int = @score_multiplier> ()
  score_b = Cast <to = 6> (score_b_wide)
  score_c_wide = Constant <value_int: int = @score_shift> ()
  score_c = Cast <to = 6> (score_c_wide)
  t = mulshift.Requantize <x_zero_point = 0, zero_point = 0, qmin = 0, qmax = {end}, dtype = 6> (d, score_b, score_c)
{exp2}
  most_weight = Constant <value = uint32 {{255}}> ()
  p_weight = Mul (p, most_weight)
  p_lower = BitShift <direction = "RIGHT"> (p_weight, i)
  weight_half = Constant <value = uint32 {{32768}}> ()
  p_half = Add (p_lower, weight_half)
  sixteen = Constant <value = uint32 {{16}}> ()
  weight_bits = BitShift <direction = "RIGHT"> (p_half, sixteen)
  every_weight = Cast <to = 6> (weight_bits)
{weigh}
  e = Cast <to = 2> (weight)
  e_wide = Cast <to = 7> (weight)
  sum = ReduceSum <keepdims = 1> (e_wide, rest)
  is_some = Greater (sum, at0)
  total = Where (is_some, sum, at1)

  v_wide = Cast <to = 6> (v)
  v_raised = Add (v_wide, to_unsigned)
  v_unsigned = Cast <to = 2> (v_raised)
  v_turned = Transpose <perm = [0, 2, 1, 3]> (v_unsigned)
  v_ready = Unsqueeze (v_turned, at2)
  zv_wide = Constant <value_int: int = @v_zero_point> ()
  zv_s32 = Cast <to = 6> (zv_wide)
  zv_raised = Add (zv_s32, to_unsigned)
  zv = Cast <to = 2> (zv_raised)
  none = Constant <value = uint8 {{0}}> ()
  acc = MatMulInteger (e, v_ready, none, zv)
{reciprocal}
  y_grouped = mulshift.Requantize <{output}> (acc, b, c)
  y_turned = Transpose <perm = [0, 3, 1, 2, 4]> (y_grouped)
  y_shape = Concat <axis = 0> (same, rest, width)
  y = Reshape (y_turned, y_shape)
"""
_MASK = f"""
  mask_shape = Concat <axis = 0> (batch, heads, rows, keys)
  mask_whole = Expand (mask, mask_shape)
  mask_grouped_shape = Concat <axis = 0> (at0, groups, rest, rows, keys)
  attended = Reshape (mask_whole, mask_grouped_shape)
  masked = Constant <value = int32 {{{MASKED}}}> ()
  score = Where (attended, every_score, masked)
"""
_WEIGH = """
  no_weight = Constant <value = int32 {0}> ()
  weight = Where (attended, every_weight, no_weight)
"""


def _body(mask: str, weigh: str) -> str:
    parts = {"exp2": EXP2, "reciprocal": RECIPROCAL, "output": REQUANTIZE_OUTPUT, "end": OCTAVES * OCTAVE}
    return _BODY.format(mask=mask, weigh=weigh, **parts)


def _attention(a: Attributes, q: Array, k: Array, v: Array, mask: Array | None = None) -> Array:
    batch, rows, heads, depth = q.shape
    keys, groups, width = k.shape[1], k.shape[2], v.shape[3]
    shared = heads // groups
    q_ready = q.reshape(batch, rows, groups, shared, depth).transpose(0, 2, 3, 1, 4)
    k_ready, v_ready = k.transpose(0, 2, 3, 1)[:, :, None], v.transpose(0, 2, 1, 3)[:, :, None]
    score = matmul(q_ready, k_ready, a["q_zero_point"], a["k_zero_point"])
    attended = np.ones_like(score, bool)
    if mask is not None:
        attended = np.broadcast_to(mask, (batch, heads, rows, keys)).reshape(score.shape)
    score = np.where(attended, score, MASKED).astype(np.int64)
    e = np.where(attended, weights(score.max(axis=-1, keepdims=True) - score, a), 0)
    total = np.maximum(e.sum(axis=-1, keepdims=True), 1)
    acc = matmul(e.astype(np.uint8), v_ready, 0, a["v_zero_point"])
    b, c = row_dyadics(total, a["multiplier"], a["shift"])
    y = REQUANTIZE.reference({**a, "x_zero_point": 0}, acc, b, c)
    return y.transpose(0, 3, 1, 2, 4).reshape(batch, rows, heads, width)


def weights(d: Array, a: Attributes) -> Array:
    """e of differences d to the greatest score, int64 in [0, 255]."""
    p, i = exp2(exponents(d, a, OCTAVES))
    return np.asarray(((255 * p >> i) + 2**15) >> 16)


def attention_dyadics(score_ratio: float | Fraction, value_ratio: float | Fraction) -> tuple[Dyadic, Dyadic]:
    """(score_multiplier / 2^score_shift, multiplier / 2^shift), for the compiler.

    Args:
        score_ratio: s_q * s_k * scale * log2(e).
        value_ratio: s_v / s_y.
    """
    return exponent_dyadic(score_ratio, OCTAVES), output_dyadic(value_ratio, MOST_SHIFT)


def attention_bound(depth: int, keys: int, zero_points: tuple[int, int, int]) -> int:
    """The greatest of what its int32 sums may reach: differences of scores, and sums over v.

    Args:
        depth: D.
        keys: N, at most 65536; the greatest that the node will see.
        zero_points: of q (u8), k and v (s8).

    Raises:
        ValueError: more keys than that.
    """
    if keys > MOST_KEYS:
        raise ValueError(f"{keys} keys are more than {MOST_KEYS}")
    zq, zk, zv = zero_points
    score = depth * max(zq, 255 - zq) * max(zk + 128, 127 - zk)
    return max(2 * score, keys * 255 * max(zv + 128, 127 - zv))


ATTENTION = Operator(
    name="Attention",
    signature=f"<{_ZERO_POINTS}, {SCORE}, multiplier, shift, {OUTPUT}> (q, k, v) => (y)",
    body=_body("  score = Identity (every_score)", "  weight = Identity (every_weight)"),
    reference=_attention,
    calls=("Requantize",),
)
MASKED_ATTENTION = Operator(
    name="MaskedAttention",
    signature=f"<{_ZERO_POINTS}, {SCORE}, multiplier, shift, {OUTPUT}> (q, k, v, mask) => (y)",
    body=_body(_MASK, _WEIGH),
    reference=_attention,
    calls=("Requantize",),
)


_FLAT = """
  one = Constant <value = int64[1] {{1}}> ()
  same = Constant <value = int64[2] {{0, 0}}> ()
  rest = Constant <value = int64[1] {{-1}}> ()
  heads_scalar = Constant <value_int: int = @heads> ()
  heads_one = Reshape (heads_scalar, one)
  groups_scalar = Constant <value_int: int = @groups> ()
  groups_one = Reshape (groups_scalar, one)
  q_shape = Concat <axis = 0> (same, heads_one, rest)
  q_heads = Reshape (q, q_shape)
  k_shape = Concat <axis = 0> (same, groups_one, rest)
  k_heads = Reshape (k, k_shape)
  v_heads = Reshape (v, k_shape)
  y_heads = mulshift.{plain} <{attributes}> (q_heads, k_heads, v_heads{mask})
  y_shape = Concat <axis = 0> (same, rest)
  y = Reshape (y_heads, y_shape)
"""


def _flat(plain: Operator, mask: str = "") -> Operator:
    names = plain.signature[1 : plain.signature.index(">")]

    def reference(a: Attributes, q: Array, k: Array, v: Array, *masks: Array) -> Array:
        parts = [x.reshape(*x.shape[:2], a[n], -1) for x, n in ((q, "heads"), (k, "groups"), (v, "groups"))]
        y = plain.reference(a, *parts, *masks)
        return y.reshape(*y.shape[:2], -1)

    return Operator(
        name=f"Flat{plain.name}",
        signature=f"<heads, groups, {names}> (q, k, v{mask}) => (y)",
        body=_FLAT.format(plain=plain.name, attributes=hand_on(names.split(", ")), mask=mask),
        reference=reference,
        calls=(plain.name,),
    )


FLAT_ATTENTION, FLAT_MASKED_ATTENTION = _flat(ATTENTION), _flat(MASKED_ATTENTION, ", mask")
FLAT = {"Attention": FLAT_ATTENTION.name, "MaskedAttention": FLAT_MASKED_ATTENTION.name}
"""Operator -> the same on flat heads."""
