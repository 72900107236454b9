"""LayerNorm and RmsNorm: the reciprocal square root, the constants, and the distance to the real function."""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from operator_checks import S8, S16, U8, integers, output, seeds

from mulshift.ir import OPERATORS, Array
from mulshift.ir.operators.inverse_root import TABLE, inverse_root
from mulshift.ir.operators.norm import MAX_TERMS, largest_normalized
from mulshift.ir.operators.norm_constants import NormConstants, norm_bound, norm_constants

MANY = settings(max_examples=60, deadline=None)
NORMS = ("LayerNorm", "RmsNorm")
ROWS = ("random", "constant", "one hot", "two values", "extreme", "one step", "outlier")
SIZES = (1, 2, 3, 16, 100, 128, 384, 768, 4096)


# --- the reciprocal square root ---


def _exact_root(v: int, e: int) -> int:
    """floor(2^(46 + e) / sqrt(v))."""
    return isqrt(2 ** (92 + 2 * e) // v)


def test_inverse_root_of_every_interval() -> None:
    """Both ends of each entry's interval, at every exponent: within 2^-28, above only as m was truncated."""
    for i in range(8, 33):
        for m in (m for m in ((i << 27) - 1, i << 27, (i << 27) + 1) if 2**30 <= m < 2**32):
            for e in range(-15, 16):
                v = m << 2 * e if e >= 0 else m >> -2 * e
                r, got_e = (int(a) for a in inverse_root(np.array(v)))
                real = _exact_root(v, got_e)
                assert -(real >> 28) - 1 <= r - real <= real >> 31
                assert 2**30 - 1 <= r < 2**31


@MANY
@given(st.integers(0, 61), seeds)
def test_inverse_root_is_within_2_to_the_minus_28(bits: int, seed: int) -> None:
    v = np.random.default_rng(seed).integers(1 << bits, 2 << bits, 50)
    for one, r, e in zip(v.tolist(), *(a.tolist() for a in inverse_root(v)), strict=True):
        real = _exact_root(one, e)
        assert -(real >> 28) - 1 <= r - real <= (real >> 31) + 1


def test_table_is_below_the_root_at_the_right_end() -> None:
    assert len(TABLE) == 24
    for i, r in enumerate(TABLE, 8):
        assert r * r * (i + 1) <= 2**65 < (r + 1) ** 2 * (i + 1)


# --- what is proven of z ---


@pytest.mark.parametrize("op", NORMS)
@pytest.mark.parametrize("n", [1, 2, 3, 7, 100, MAX_TERMS])
def test_one_hot_rows_reach_the_bound_of_z(op: str, n: int) -> None:
    """w = 1, no bias and the least shift make y a quarter of z; the bound is not loose by more than one in n."""
    x = np.zeros((2, n), S16)
    x[0, 0], x[1, 0] = 32767, -32768
    code = output((np.int32, -(2**31), 2**31 - 1), 0)
    a = {"x_zero_point": 0, "epsilon": 0, "fraction": 20, "shift": 2, **code}
    z = OPERATORS[op].reference(a, x, np.ones(n, np.int32), np.zeros(n, np.int32)) * 4
    most = largest_normalized(n, 20)
    assert np.abs(z).max() <= most + 3
    if n > 1:
        assert np.abs(z).max() >= most * (1 - 1 / n) - 4


# --- accuracy against the real function ---


@dataclass(frozen=True)
class Case:
    """A node, and the real function that it stands for."""

    op: str
    dtype: Any
    z_x: int
    x_scale: float
    y_scale: float
    epsilon: float
    gamma: Array
    beta: Array
    out: dict[str, int]

    def constants(self) -> NormConstants:
        span = max(self.out["qmax"] - self.out["zero_point"], self.out["zero_point"] - self.out["qmin"])
        return norm_constants(self.gamma, self.beta, self.epsilon, self.x_scale, self.y_scale, span)

    def integers(self, x: Array, c: NormConstants) -> Array:
        a = {"x_zero_point": self.z_x, "epsilon": c.epsilon, "fraction": c.fraction, "shift": c.shift, **self.out}
        return OPERATORS[self.op].reference(a, x, c.w, c.bias)

    def real(self, x: Array) -> Array:
        """The real y in steps, clamped, not rounded; a row without variance at eps = 0 is beta.

        Differences are taken in integers: in floating point those of a constant row would not be 0.
        """
        xc, n = x.astype(np.int64) - self.z_x, x.shape[-1]
        mean_n = xc.sum(axis=-1, keepdims=True) if self.op == "LayerNorm" else np.int64(0)
        variance = (n * (xc * xc).sum(axis=-1, keepdims=True) - mean_n * mean_n) * (self.x_scale / n) ** 2
        root, far = np.sqrt(variance + self.epsilon), (n * xc - mean_n) * (self.x_scale / n)
        unit = np.divide(far, root, out=np.zeros(x.shape), where=root > 0)
        steps = (unit * self.gamma + self.beta) / self.y_scale + self.out["zero_point"]
        return np.asarray(np.clip(steps, self.out["qmin"], self.out["qmax"]))


def _rows(rng: np.random.Generator, kind: str, dtype: Any, n: int) -> Array:
    info = np.iinfo(dtype)
    low, high = int(info.min), int(info.max)
    x = np.full((4, n), int(integers(rng, dtype, 1)[0]), np.int64)
    hot = (np.arange(4), rng.integers(0, n, 4))
    if kind == "random":
        x = rng.normal(rng.integers(low, high), (high - low) * 2.0 ** -rng.integers(1, 14), (4, n))
    elif kind == "one hot":
        x[hot] = rng.choice([low, high], 4)
    elif kind == "two values":
        x = np.where(rng.random((4, n)) < rng.random(), *integers(rng, dtype, 2).tolist())
    elif kind == "extreme":
        x = rng.choice([low, high], (4, n))
    elif kind == "one step":
        x[hot] += 1
    elif kind == "outlier":
        x = rng.normal((low + high) / 2, (high - low) / 2**9, (4, n))
        x[hot] = rng.choice([low, high], 4)
    return np.clip(np.round(x), low, high).astype(dtype)


def _case(rng: np.random.Generator, op: str, n: int, dtype: Any, kind: tuple[Any, int, int], epsilon: float) -> Case:
    """Scales as in networks: y holds 4 to 12 standard deviations of the largest gamma."""
    gamma = rng.normal(1, 0.3, n) * rng.choice([1, 1, 1, 0.01, -1], n)
    beta = rng.normal(0, 0.3, n)
    x_scale = float(rng.uniform(0.5, 4)) * 2.0 ** -(14 if dtype == S16 else 6)
    y_scale = float(np.abs(gamma).max() * rng.uniform(4, 12)) / (kind[2] - kind[1]) * 2
    z = 0 if kind[0] == S16 else int(rng.integers(kind[1], kind[2] + 1))
    z_x = 0 if dtype == S16 else int(integers(rng, dtype, 1)[0])
    return Case(op, dtype, z_x, x_scale, y_scale, epsilon, gamma, beta, output(kind, z))


def _on_grid(case: Case, epsilon: int) -> Case:
    """With the real eps that this integer stands for."""
    real = epsilon * case.x_scale**2 / case.gamma.size**2
    return Case(**{**case.__dict__, "epsilon": real})


inputs = st.sampled_from([U8, S8, S16])
bytes_out = st.sampled_from([(U8, 0, 255), (S8, -128, 127), (S8, -127, 127)])
epsilons = st.sampled_from([0.0, 1e-12, 1e-6, 1e-5, 1e-3])


@MANY
@given(seeds, st.sampled_from(NORMS), st.sampled_from(SIZES), inputs, bytes_out, st.sampled_from(ROWS))
def test_8_bit_outputs_are_within_one_step(
    seed: int, op: str, n: int, dtype: Any, kind: tuple[Any, int, int], rows: str
) -> None:
    """Half a step is the one rounding; the rest is proven by `error`, here at most 0.1 step, and r's 2^-28."""
    rng = np.random.default_rng(seed)
    case = _on_grid(_case(rng, op, n, dtype, kind, 0.0), int(rng.choice([0, 1, 1000, 2**40])))
    c, x = case.constants(), _rows(rng, rows, dtype, n)
    assert c.error < 0.1
    assert np.abs(case.integers(x, c) - case.real(x)).max() <= 0.5 + c.error + 255 * 2**-28


@MANY
@given(seeds, st.sampled_from(NORMS), st.sampled_from([128, 384, 1000, 4096]), inputs, bytes_out, epsilons)
def test_8_bit_outputs_with_any_epsilon(
    seed: int, op: str, n: int, dtype: Any, kind: tuple[Any, int, int], epsilon: float
) -> None:
    """eps is rounded: 255 / (4 (n - 1)) steps at most, where a row varies by one step in one place."""
    rng = np.random.default_rng(seed)
    case = _case(rng, op, n, dtype, kind, epsilon)
    c = case.constants()
    for rows in ROWS:
        x = _rows(rng, rows, dtype, n)
        allowed = 0.5 + c.error + 255 / (4 * (n - 1)) + 255 * 2**-28
        assert allowed < 1.1
        assert np.abs(case.integers(x, c) - case.real(x)).max() <= min(allowed, 1)


@pytest.mark.parametrize("op", NORMS)
@pytest.mark.parametrize("n", [64, 384, 768, 4096])
def test_8_bit_outputs_are_nearly_rounded_once(op: str, n: int) -> None:
    """Rounding alone is off by 0.25 step in the mean; the approximation adds nearly nothing, and to neither side."""
    rng = np.random.default_rng(n)
    case = _case(rng, op, n, S16, (S8, -128, 127), 1e-5)
    c, x = case.constants(), rng.normal(0, 3000, (max(1, 2**18 // n), n)).astype(S16)
    got, real = case.integers(x, c), case.real(x)
    excess = got - np.floor(real + 0.5)
    assert np.abs(got - real).mean() < 0.26
    assert np.abs(excess).mean() < 0.02
    assert abs(excess.mean()) < 0.002
    assert np.abs(excess).max() <= 1


@MANY
@given(seeds, st.sampled_from(NORMS), st.sampled_from(SIZES), inputs, st.sampled_from(ROWS))
def test_16_bit_outputs_are_within_the_stated_error(seed: int, op: str, n: int, dtype: Any, rows: str) -> None:
    """32-bit accumulators leave 16-bit outputs a few steps of 65536: `error` says how many, sqrt(n) / 4 at most."""
    rng = np.random.default_rng(seed)
    kind = (S16, -32768, 32767)
    case = _on_grid(_case(rng, op, n, dtype, kind, 0.0), int(rng.choice([0, 1, 1000, 2**40])))
    c, x = case.constants(), _rows(rng, rows, dtype, n)
    assert c.error < max(1, n**0.5 / 4)
    assert np.abs(case.integers(x, c) - case.real(x)).max() <= 0.5 + c.error + 65536 * 2**-28


# --- constants ---


@MANY
@given(seeds, st.integers(1, 300), st.integers(-20, 20), st.integers(-20, 20))
def test_constants_fit_32_bits(seed: int, n: int, gamma_bits: int, beta_bits: int) -> None:
    rng = np.random.default_rng(seed)
    gamma, beta = rng.normal(size=n) * 2.0**gamma_bits, rng.normal(size=n) * 2.0**beta_bits
    c = norm_constants(gamma, beta, 1e-5, 0.01, 0.05, 255)
    assert c.bound == norm_bound(c.w, c.bias, c.fraction)
    assert c.bound + 2 ** (c.shift - 1) < 2**31
    assert c.w.dtype == c.bias.dtype == np.int32


def test_constants_of_nothing_but_beta() -> None:
    c = norm_constants(np.zeros(4), np.array([1.0, -1.0, 0.5, 0.0]), 0.0, 0.1, 0.1, 255)
    assert (c.bias / 2**c.shift).tolist() == [10, -10, 5, 0]
    assert not c.w.any()


@pytest.mark.parametrize(
    ("n", "gamma", "epsilon", "said"),
    [
        (0, 1.0, 0.0, "a norm over 0 elements"),
        (MAX_TERMS + 1, 1.0, 0.0, "from 1 to 16384 fit"),
        (4, 1.0, -1.0, "epsilon -1 is"),
        (4, 1.0, 1e30, "not from 0 to 2\\^60"),
        (4, float("nan"), 0.0, "not finite"),
        (4, 1e12, 0.0, "no accumulator of 32 bits"),
    ],
)
def test_constants_that_do_not_exist(n: int, gamma: float, epsilon: float, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        norm_constants(np.full(n, gamma), np.zeros(n), epsilon, 0.1, 0.1, 255)
