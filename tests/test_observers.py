"""Histograms that grow by merging, and the ranges chosen from them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mulshift.ir import ACTIVATION_U8, Array
from mulshift.passes.observers import METHODS, SAMPLED, Histogram, entropy, mse, percentile
from mulshift.passes.scales import activation_qparams


def histogram(*arrays: Array, bins: int = 8192) -> Histogram:
    h = Histogram(bins)
    for array in arrays:
        assert h.update(torch.from_numpy(np.asarray(array, np.float32)))
    return h


def error(x: Array, low: float, high: float) -> float:
    q = activation_qparams(low, high, ACTIVATION_U8)
    return float(((q.dequantize(q.quantize(x)) - x) ** 2).sum())


_SIXTY_FOURTHS = st.integers(-(10**6), 10**6).map(lambda n: n / 64)
"""Exact in float32, and far from where it underflows."""


@given(st.lists(st.lists(_SIXTY_FOURTHS, min_size=1, max_size=20), min_size=1, max_size=6))
def test_merging_gives_the_histogram_of_all_at_once_in_any_order(parts: list[list[float]]) -> None:
    arrays = [np.asarray(p, np.float32) for p in parts]
    h = histogram(*arrays, bins=64)
    everything = np.concatenate(arrays).astype(np.float64)
    edges = np.linspace(-h.radius, h.radius, 65)
    expected = np.bincount(np.clip(np.searchsorted(edges, everything, side="right") - 1, 0, 63), minlength=64)
    np.testing.assert_array_equal(h.counts, expected)
    assert (h.low, h.high) == (everything.min(), everything.max())
    reverse = histogram(*arrays[::-1], bins=64)
    if reverse.radius == h.radius:  # only a first sample of zeros starts at another radius
        np.testing.assert_array_equal(reverse.counts, h.counts)


def test_its_size_does_not_depend_on_what_it_saw() -> None:
    h = histogram(*(10.0**k * np.ones((2, 3)) for k in range(-30, 30)))
    assert h.counts.shape == (8192,)
    assert h.counts.sum() == 60 * 6


def test_nan_and_infinity_are_refused_and_leave_no_trace() -> None:
    h = histogram([1.0, -2.0])
    before = h.counts.copy()
    for bad in (np.nan, np.inf, -np.inf):
        assert not h.update(torch.tensor([0.0, bad]))
    np.testing.assert_array_equal(h.counts, before)
    assert (h.low, h.high) == (-2.0, 1.0)


def test_large_tensors_are_strided_but_their_extremes_are_exact() -> None:
    x = np.zeros(2 * SAMPLED + 1, np.float32)
    x[1] = 7.0  # not on the stride of 3
    h = histogram(x)
    assert h.high == 7.0
    assert h.counts.sum() == -(-len(x) // 3)


def test_an_empty_tensor_is_nothing() -> None:
    h = Histogram()
    assert h.update(torch.zeros(0))
    assert h.low > h.high


def test_percentile_leaves_out_both_tails() -> None:
    x = np.linspace(-1, 1, 100_001)
    low, high = percentile(histogram(x), 98.0)
    # 1 % of [-1, 1] at each end, to one bin of 2 * 2 / 8192
    assert low == pytest.approx(-0.98, abs=2 * 2 / 8192)
    assert high == pytest.approx(0.98, abs=2 * 2 / 8192)


def test_percentile_keeps_the_zero_of_a_relu() -> None:
    x = np.maximum(np.random.default_rng(0).standard_normal(10_000), 0)
    low, high = percentile(histogram(x), 99.0)
    assert low == 0.0
    assert 2.0 < high < x.max()


@pytest.mark.parametrize("method", [mse, entropy])
def test_an_outlier_is_clipped(method: Callable[[Histogram], tuple[float, float]]) -> None:
    x = np.random.default_rng(0).standard_normal(100_000)
    low, high = method(histogram(*[x] * 20, [60.0]))
    assert x.min() <= low < -1.0
    assert 1.0 < high < 30.0


def test_mse_has_less_error_than_the_extremes() -> None:
    rng = np.random.default_rng(1)
    for x in (rng.standard_normal(50_000), rng.laplace(size=50_000), np.maximum(rng.standard_normal(50_000), 0)):
        x = x.astype(np.float32)
        low, high = mse(histogram(x))
        assert error(x, low, high) < error(x, float(x.min()), float(x.max()))


def test_mse_keeps_what_is_uniform() -> None:
    x = np.random.default_rng(2).uniform(-1, 3, 50_000).astype(np.float32)
    low, high = mse(histogram(x))
    # clipping a uniform density costs more than the steps it saves
    assert low < -0.97
    assert high > 2.94


@settings(max_examples=30)
@given(st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=50), st.sampled_from(sorted(METHODS)))
def test_every_range_lies_in_the_extremes(numbers: list[float], method: str) -> None:
    h = histogram(np.asarray(numbers))
    low, high = METHODS[method](h)
    assert min(h.low, 0.0) <= low <= high <= max(h.high, 0.0)
