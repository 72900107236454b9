"""Softmax and attention in integers against the real functions of the same integers, in float64."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from operator_checks import S8, S16, S32, U8, integers, output, seeds

from mulshift.ir import OPERATORS
from mulshift.ir.dyadic import is_narrow
from mulshift.ir.operators.attention import attention_bound, attention_dyadics, weights
from mulshift.ir.operators.exp2 import OCTAVE, exp2, exponent_dyadic
from mulshift.ir.operators.reciprocal import reciprocal, row_dyadics
from mulshift.ir.operators.softmax import softmax_dyadics
from mulshift.ir.types import Array, Dyadic

MANY = settings(max_examples=60, deadline=None)
POWER_ERROR = 1.7e-4
"""Of a power of b / 2^c * d: 7.6e-5 by the cubic (5 of 65536), 8.5e-5 by rounding t to 1/4096 of an octave."""
kinds = st.sampled_from(["random", "constant", "one-hot", "extreme", "two"])
sizes = st.one_of(st.integers(1, 70), st.sampled_from([197, 1024, 4096]))


def test_powers_of_two() -> None:
    t = np.arange(24 * OCTAVE)
    p, i = exp2(t)
    assert p[0] == 65536
    assert (np.diff(p[:OCTAVE]) <= 0).all() and p[OCTAVE - 1] > 32768
    assert np.abs(p / 2.0 ** (16 + i) / 2.0 ** (-t / OCTAVE) - 1).max() < 1.5e-4  # 5 of 32768
    assert np.abs(p - 65536 * 2.0 ** (-(t % OCTAVE) / OCTAVE)).max() < 5


def test_weights_are_zero_from_nine_octaves_on() -> None:
    a = {"score_multiplier": 1, "score_shift": 2}
    e = weights(np.arange(0, 4 * 10 * OCTAVE), a)
    assert e[0] == 255 and e[4 * 9 * OCTAVE - 2 :].max() == 0
    real = 255 * 2.0 ** (-np.arange(e.size) / 4 / OCTAVE)
    assert np.abs(e - real).max() < 0.5 + 255 * POWER_ERROR
    assert (np.diff(e) <= 0).all()


@MANY
@given(st.integers(1, 2**40 - 1))
def test_reciprocals_are_close_from_below(total: int) -> None:
    r, log = (int(v) for v in reciprocal(np.array(total)))
    assert 2**log <= total < 2 ** (log + 1)
    exact = Fraction(2 ** (30 + log), total)
    assert exact * (1 - Fraction(1, 2**24)) < r <= exact * (1 + Fraction(1, 2**30))  # m drops bits beyond the 31st


@pytest.mark.parametrize("total", [1, 2, 3, 2**23, 2**30, 2**31 - 1, 2**31, 2**39, 2**40 - 1])
def test_reciprocals_at_the_ends(total: int) -> None:
    b, c = (int(v) for v in row_dyadics(np.array(total), 2**31 - 1, 22))
    assert 0 <= b < 2**31 and c <= 61
    assert abs(b / 2**c * total / ((2**31 - 1) / 2**22) - 1) < 2**-24


@pytest.mark.parametrize("octaves", [9, 24])
@pytest.mark.parametrize("ratio", [1e-9, 1e-6, 2e-5, 0.0003, 0.01, 0.3, 1.0, 7.7, 1000.0])
def test_narrow_exponents(ratio: float, octaves: int) -> None:
    """What matters fits 32 bits, with 11 bits of b at least; else b is as wide as it can be."""
    d = exponent_dyadic(ratio, octaves)
    assert abs(Fraction(d.b, 2**d.c) / Fraction(ratio) / OCTAVE - 1) < Fraction(1, 2**11)
    reach = -((2 ** (d.c - 1) - (octaves * OCTAVE << d.c)) // d.b)
    assert bool(is_narrow(d.b, d.c, reach)) or d.b >= 2**30
    assert bool(is_narrow(d.b, d.c, reach)) == (ratio > 1e-5)


def _rows(rng: np.random.Generator, kind: str, dtype: Any, n: int) -> Array:
    info = np.iinfo(dtype)
    low, high = (int(info.min), int(info.max)) if dtype != S32 else (-(2**28), 2**28)
    x = rng.integers(low, high + 1, (3, n))
    if kind == "constant":
        x[:] = x[:, :1]
    elif kind == "one-hot":
        x[:], x[:, rng.integers(n)] = low, high
    elif kind == "extreme":
        x = rng.choice([low, high], (3, n))
    elif kind == "two":
        x = rng.choice([high, high - int(rng.integers(1, 60))], (3, n))
    return x.astype(dtype)


@MANY
@given(seeds, kinds, sizes, st.sampled_from([U8, S8, S16, S32]), st.floats(0.05, 40), st.booleans())
def test_softmax_is_within_a_step(seed: int, kind: str, n: int, dtype: Any, spread: float, unsigned: bool) -> None:
    """Of 8 bits: at most 1 step, mean excess over the rounding itself below 0.25 step (ARITHMETIC.md)."""
    rng = np.random.default_rng(seed)
    x = _rows(rng, kind, dtype, n)
    s_x = spread / (np.iinfo(dtype).max if dtype != S32 else 2**28)
    score, out = softmax_dyadics(s_x, 256)
    a = {"score_multiplier": score.b, "score_shift": score.c, "multiplier": out.b, "shift": out.c}
    zero = 0 if unsigned else -128
    a |= output((U8, 0, 255) if unsigned else (S8, -128, 127), 0) | {"zero_point": zero}
    y = OPERATORS["Softmax"].reference(a, x).astype(np.int64) - zero
    real = np.exp((x - x.max(-1, keepdims=True).astype(np.float64)) * s_x)
    real = np.clip(real / real.sum(-1, keepdims=True) * 256, 0, 255)
    error = np.abs(y - real)
    assert error.max() <= 1
    assert np.maximum(error - np.abs(np.round(real) - real), 0).mean() < 0.25


def _real_attention(s: Array, v: Array, score: Fraction) -> tuple[Array, Array]:
    """Weights 2^(score * (s - max s)), and their mean of v; s: [M, N], v: [N, E]."""
    w = np.where(s == -(2**30), 0, np.exp2((s - s.max(-1, keepdims=True)) * float(score)))
    return w, w @ v / w.sum(-1, keepdims=True)


@MANY
@given(seeds, kinds, sizes, st.floats(0.2, 30), st.booleans())
def test_attention_is_as_close_as_8_bit_weights_allow(
    seed: int, kind: str, n: int, spread: float, masked: bool
) -> None:
    """|y - real| <= 1 + ratio * sum_j (min(1/2, 255 w_j) + 255 w_j * POWER_ERROR) * |v_j - real_v| / sum e.

    e_j = 255 w_j + delta_j: a weight rounded to nearest is off by at most a half, and by all of itself where it becomes
    0; its power by POWER_ERROR of it. So sum e v / sum e - real_v = sum delta_j (v_j - real_v) / sum e. The last
    rounding adds a half, the reciprocal and b less than another.
    """
    rng = np.random.default_rng(seed)
    m, depth, width = 3, 16, 5
    q, v = integers(rng, U8, 1, m, 1, depth), _rows(rng, kind, S8, n).repeat(2, 0)[:width].T
    k = np.zeros((n, depth), S8) if kind == "constant" else integers(rng, S8, n, depth)
    if kind == "one-hot":
        k[:] = 0
        k[rng.integers(n)] = 127
    zq, zk, zv = 120, -3, 7
    mask = rng.random((m, n)) < 0.7 if masked else np.ones((m, n), bool)
    mask[:, rng.integers(n)] = True
    q_wide, k_wide, v_wide = (x.astype(np.int64) - z for x, z in ((q[0, :, 0], zq), (k, zk), (v, zv)))
    s = np.where(mask, q_wide @ k_wide.T, -(2**30))
    ratio = spread / (np.abs(q_wide @ k_wide.T).max() + 1)
    score, value = attention_dyadics(ratio, Fraction(3, 4))
    a = {"q_zero_point": zq, "k_zero_point": zk, "v_zero_point": zv, "multiplier": value.b, "shift": value.c}
    a |= {"score_multiplier": score.b, "score_shift": score.c, **output((S16, -32768, 32767), 0)}
    y = OPERATORS["MaskedAttention"].reference(a, q, k[None, :, None], v[None, :, None], mask[None, None])[0, :, 0]
    w, mean = _real_attention(s, v_wide, Fraction(score.b, 2**score.c * OCTAVE))
    e = np.where(mask, weights(s.max(-1, keepdims=True) - s, a), 0)
    delta = np.minimum(0.5, 255 * w) + 255 * w * POWER_ERROR
    away = np.abs(v_wide[None] - mean[:, None])  # [M, N, E]
    bound = 1 + 0.75 * (delta[:, :, None] * away).sum(1) / e.sum(-1, keepdims=True)
    assert (np.abs(y - 0.75 * mean) <= bound).all()


def test_flat_rows_of_long_sequences_are_exact() -> None:
    """65536 equal scores: each key has the same weight, and the mean of v is that of the integers."""
    n = 65536
    v = np.tile(S8([-128, 127, 5, 4]), n // 4).reshape(1, n, 1, 1)
    a = {"q_zero_point": 0, "k_zero_point": 0, "v_zero_point": 0, "score_multiplier": 2**14, "score_shift": 15}
    a |= {"multiplier": 2**30, "shift": 22, **output((S16, -32768, 32767), 0)}
    y = OPERATORS["Attention"].reference(a, np.ones((1, 1, 1, 4), U8), np.ones((1, n, 1, 4), S8), v)
    assert y.item() == 2 * 256


def test_a_row_without_keys_gives_the_zero_point() -> None:
    a = {"q_zero_point": 3, "k_zero_point": 0, "v_zero_point": 9, "score_multiplier": 0, "score_shift": 15}
    a |= {"multiplier": 2**30, "shift": 22, **output((U8, 0, 255), 77)}
    ones = np.ones((1, 2, 1, 4))
    y = OPERATORS["MaskedAttention"].reference(a, ones.astype(U8), ones.astype(S8), ones.astype(S8), np.zeros(2, bool))
    assert (y == 77).all()


def test_bounds_of_the_sums() -> None:
    assert attention_bound(64, 8, (128, 0, 0)) == 2 * 64 * 128 * 128
    assert attention_bound(32, 65536, (0, 0, 0)) == 65536 * 255 * 128 < 2**31
    assert attention_bound(32, 65536, (0, 0, 1)) >= 2**31
    with pytest.raises(ValueError, match="65537 keys are more than 65536"):
        attention_bound(32, 65537, (0, 0, 0))


def test_dyadics_of_the_output_leave_room_for_the_sum() -> None:
    for ratio in (1e-12, 1e-6, 0.01, 1.0, 300.0):
        _, value = attention_dyadics(1.0, ratio)
        assert value.c <= 38
        assert abs(value.b / 2**value.c - ratio) <= 2**-39 + ratio * 2**-30
    assert attention_dyadics(1.0, 1e-13)[1] == Dyadic(0, 38)
