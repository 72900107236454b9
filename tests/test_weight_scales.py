"""Scales of low-bit weights: known optima, groups as multiples of one scale, and integers that come back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mulshift.ir import Array, weight_spec
from mulshift.passes.groups import LARGEST_MULTIPLE, as_multiples, group_qparams
from mulshift.passes.scales import on_range, weight_qparams
from mulshift.passes.weight_scales import best_scales, rounding_error

NORMAL = np.random.default_rng(0).standard_normal((4, 40_000))


@pytest.mark.parametrize(("bits", "known"), [(1, 0.3634), (2, 0.1902), (3, 0.04686), (4, 0.01294)])
def test_normal_weights_reach_the_known_least_error(bits: int, known: float) -> None:
    """Max 1960, table II: evenly spaced outputs, 2, 3, 7 and 15 of them; 3 % for the sample."""
    spec = weight_spec(bits)
    scale = best_scales(NORMAL, spec, "mse")
    error = rounding_error(NORMAL, scale, spec) / (NORMAL**2).sum(axis=1)
    np.testing.assert_allclose(error, known, rtol=0.03)


@pytest.mark.parametrize("bits", [8, 4, 3, 2])
def test_searching_is_never_worse_than_the_largest(bits: int) -> None:
    rows, spec = np.random.default_rng(1).laplace(size=(50, 30)), weight_spec(bits)
    errors = [rounding_error(rows, best_scales(rows, spec, method), spec) for method in ("mse", "max")]
    assert (errors[0] <= errors[1]).all()


def test_auto_clips_below_8_bits_alone() -> None:
    w = np.random.default_rng(2).standard_normal((5, 64)).astype(np.float32)
    for bits, method in ((8, "max"), (4, "mse")):
        assert weight_qparams(w, 0, bits, "auto") == weight_qparams(w, 0, bits, method)
    assert weight_qparams(w, 0, 4, "auto") != weight_qparams(w, 0, 4, "max")


def test_a_channel_of_zeros_gets_a_scale() -> None:
    w = np.zeros((3, 8), np.float32)
    w[1] = 4.0
    for bits in (8, 4, 2, 1):
        assert (weight_qparams(w, 0, bits, "auto").scale > 0).all()
    q = weight_qparams(w, 0, 4, "auto", groups=(1, 4))
    np.testing.assert_allclose(q.dequantize(q.quantize(w)), w, rtol=1e-6)  # the scale has 20 bits


def test_one_bit_is_the_mean_magnitude_and_a_sign() -> None:
    w = np.asarray([[1.0, -3.0, 0.0, 2.0]], np.float32)
    q = weight_qparams(w, 0, 1, "auto")
    assert q.scale.tolist() == [1.5]
    np.testing.assert_array_equal(on_range(w, q), [[1.5, -1.5, 1.5, 1.5]])


def test_a_large_bias_raises_the_scale() -> None:
    w, bias = np.full((2, 8), 1e-9, np.float32), np.asarray([0.0, 1.0], np.float32)
    for groups in (None, (1, 4)):
        scale = weight_qparams(w, 0, 4, "auto", bias, 1e-3, groups).scale.reshape(2, -1)
        assert (scale[0] < 1e-9).all() and (scale[1] >= 0.9999 * 1000 / 2**28).all()


@st.composite
def weights(draw: st.DrawFn) -> tuple[Array, int, int]:
    """(weights, channel axis, group) of matrices and convolutions, some with outliers."""
    kernel = draw(st.sampled_from([(), (3, 3), (1,)]))
    inputs, outputs = draw(st.integers(3, 40)), draw(st.integers(1, 5))
    channels = draw(st.integers(0, 1))
    shape = (outputs, inputs) if channels == 0 else (inputs, outputs)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    w = rng.standard_normal((*shape, *kernel)) * 10.0 ** draw(st.integers(-6, 6))
    w[rng.random(w.shape) < draw(st.sampled_from([0.0, 0.05]))] *= 30
    return w.astype(np.float32), channels, draw(st.integers(1, inputs - 1))


@settings(max_examples=60, deadline=None)
@given(weights(), st.sampled_from([4, 3, 2, 1]), st.sampled_from(["max", "mse"]))
def test_groups_are_multiples_of_one_scale_a_channel(given: tuple[Array, int, int], bits: int, method: str) -> None:
    w, channels, group = given
    axis = 1 - channels
    q = group_qparams(w, channels, axis, group, bits, method)
    assert q.scale.shape == tuple(-(-n // group) if i == axis else n for i, n in enumerate(w.shape))
    found = as_multiples(q.scale, channels)
    assert not isinstance(found, int)
    s, m = found
    spread = [-1 if i == channels else 1 for i in range(w.ndim)]
    assert m.min() >= 1 and m.max() <= LARGEST_MULTIPLE
    np.testing.assert_array_equal(q.scale, (s.reshape(spread) * m).astype(np.float32))
    each = np.arange(w.shape[axis]) // group
    whole = q.quantize(w) * m.take(each, axis=axis)
    assert np.abs(whole).max() <= 127
    np.testing.assert_array_equal(q.dequantize(q.quantize(w)), (s.reshape(spread) * whole).astype(np.float32))
    if method == "max" and bits > 1:
        np.testing.assert_array_equal(np.round(on_range(w, q) / q.shaped(w.shape)[0]), q.quantize(w))
        assert (np.abs(w) <= q.shaped(w.shape)[0] * (q.spec.qmax + 1e-4)).all()


@settings(max_examples=30, deadline=None)
@given(weights(), st.sampled_from([4, 3, 2, 1]))
def test_clipped_weights_round_alike_in_the_type_that_stores_them(given: tuple[Array, int, int], bits: int) -> None:
    w, channels, group = given
    for groups in (None, (1 - channels, group)):
        q = weight_qparams(w, channels, bits, "auto", groups=groups)
        int4 = np.clip(np.rint(on_range(w, q) / q.shaped(w.shape)[0]), -8, 7)
        np.testing.assert_array_equal(int4, q.quantize(w))


def test_groups_never_lose_to_one_scale_by_much() -> None:
    """Each group's scale is within 1 part in 16 of its own best one, so that groups win on weights with structure."""
    w = np.random.default_rng(5).standard_normal((8, 256)).astype(np.float32)
    w *= np.repeat(np.random.default_rng(6).uniform(0.1, 3.0, (8, 8)), 32, axis=1).astype(np.float32)
    errors = [
        ((q.dequantize(q.quantize(w)) - w) ** 2).sum()
        for q in (weight_qparams(w, 0, 4, "auto"), weight_qparams(w, 0, 4, "auto", groups=(1, 32)))
    ]
    assert errors[1] < 0.6 * errors[0]


def test_scales_without_a_common_measure_are_told() -> None:
    assert as_multiples(np.asarray([[1.0, 2.0], [1.0, 1.41421356]], np.float32), 0) == 1
