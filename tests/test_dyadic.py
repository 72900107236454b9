"""The arithmetic against Python's unbounded integers."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mulshift.ir import Dyadic
from mulshift.ir.dyadic import (
    accumulator_bound,
    is_narrow,
    narrow_dyadic,
    normalize,
    requantize,
    shift_round_half_up,
    to_dyadic,
)

INT32 = (-(2**31) + 1, 2**31 - 1)
"""Section 3: |acc| < 2^31."""

accumulators = st.one_of(st.integers(*INT32), st.sampled_from([*INT32, 0, 1, -1]))
mantissas = st.one_of(st.integers(0, 2**31 - 1), st.sampled_from([0, 1, 2**30, 2**31 - 1]))
shifts = st.integers(2, 62)
ratios = st.fractions(min_value=Fraction(1, 2**70), max_value=2**28).filter(lambda f: f < 2**28)


def _exact(acc: int, b: int, c: int) -> int:
    return (acc * b + (1 << (c - 1))) >> c


@given(accumulators, mantissas, shifts)
def test_requantize_equals_python_integers(acc: int, b: int, c: int) -> None:
    wide = requantize(np.array([acc], np.int32), b, c, 0, -(2**62), 2**62)
    assert wide.tolist() == [_exact(acc, b, c)]


@given(accumulators, mantissas, shifts, st.integers(0, 255))
def test_clamp_and_zero_point(acc: int, b: int, c: int, z: int) -> None:
    got = int(requantize(np.int64(acc), b, c, z, 0, 255))
    assert got == min(max(_exact(acc, b, c) + z, 0), 255)


def test_all_of_int8_over_a_grid_of_multipliers() -> None:
    q = np.arange(-128, 128)
    for c in range(2, 63):
        for b in {1, 2, 3, 2 ** (c - 1) % 2**31, (2**c - 1) % 2**31, 2**30, 2**31 - 1}:
            got = requantize(q, b, c, 0, -(2**62), 2**62)
            assert got.tolist() == [_exact(int(v), b, c) for v in q]


def test_channels_broadcast() -> None:
    acc = np.arange(-12, 12).reshape(2, 3, 4) * 10**6
    b, c = np.array([[5], [7], [2**31 - 1]], np.int32), np.array([[3], [20], [62]], np.int32)
    got = requantize(acc, b, c, 1, -(2**40), 2**40)
    for index, v in np.ndenumerate(acc):
        assert got[index] == _exact(int(v), int(b[index[1], 0]), int(c[index[1], 0])) + 1


def test_the_argument_is_not_changed() -> None:
    acc = np.arange(5, dtype=np.int64)
    requantize(acc, 3, 2, 1, 0, 3)
    assert acc.tolist() == [0, 1, 2, 3, 4]


@given(st.integers(-(2**40), 2**40), st.integers(1, 20))
def test_exact_halves_round_up_on_both_sides(k: int, c: int) -> None:
    half = (2 * k + 1) << (c - 1)  # (k + 1/2) * 2^c
    assert int(shift_round_half_up(np.int64(half), c)) == k + 1


def test_the_case_that_float64_gets_wrong() -> None:
    assert int(requantize(np.int32(156880203), 1276859491, 40, 0, -(2**31), 2**31 - 1)) == 182185


@given(ratios, st.integers(1, 31))
def test_to_dyadic_is_the_nearest_with_that_many_bits(ratio: Fraction, bits: int) -> None:
    d = to_dyadic(ratio, bits)
    if d.c > 2:  # at c = 2 the mantissa is moved up and may have more bits than asked for
        assert d.b < 2**bits
    # half a unit of the last place, and the last place is as small as `bits` and c <= 62 allow
    assert abs(Fraction(d.b, 2**d.c) - ratio) <= max(ratio / 2**bits, Fraction(1, 2**63))


def test_a_mantissa_that_rounds_up_to_2_to_the_31() -> None:
    just_below_one = 1 - Fraction(1, 2**40)
    assert to_dyadic(just_below_one) == Dyadic(2**30, 30)
    assert to_dyadic(just_below_one, 4) == Dyadic(2**3, 3)
    assert to_dyadic(2**29 - Fraction(1, 4)) == Dyadic(2**31 - 1, 2)
    with pytest.raises(ValueError, match="needs b >= 2"):
        to_dyadic(2**29 - Fraction(1, 2**10))  # the nearest is 2^31 / 2^2


@pytest.mark.parametrize(
    ("ratio", "expected"),
    [
        (0, Dyadic(0, 62)),
        (Fraction(1, 2**62), Dyadic(1, 62)),
        (Fraction(1, 2**63), Dyadic(1, 62)),  # exactly half of the smallest, rounded up
        (Fraction(1, 2**63) - Fraction(1, 2**80), Dyadic(0, 62)),
        (1e-30, Dyadic(0, 62)),
        (5e-324, Dyadic(0, 62)),
        (Fraction(1, 2**2000), Dyadic(0, 62)),
        (1, Dyadic(2**30, 30)),
        (2**28, Dyadic(2**30, 2)),
    ],
)
def test_extreme_ratios(ratio: float | Fraction, expected: Dyadic) -> None:
    assert to_dyadic(ratio) == expected


@pytest.mark.parametrize("ratio", [-1.0, float("nan"), float("inf"), 2.0**29, 1e30, Fraction(2**2000)])
def test_bad_ratios_are_refused(ratio: float) -> None:
    with pytest.raises(ValueError, match="ratio"):
        to_dyadic(ratio)


@pytest.mark.parametrize("bits", [0, 32])
def test_bad_widths_are_refused(bits: int) -> None:
    with pytest.raises(ValueError, match="mantissa"):
        to_dyadic(0.5, bits)


@given(ratios, st.integers(1, 31), accumulators)
def test_normalize_keeps_the_bits(ratio: Fraction, bits: int, acc: int) -> None:
    d = to_dyadic(ratio, bits)
    n = normalize(d)
    assert n.b * 2**d.c == d.b * 2**n.c
    assert n.b >= 2**30 or n.c == 62 or n.b == 0
    assert _exact(acc, n.b, n.c) == _exact(acc, d.b, d.c)


@given(mantissas, shifts, st.integers(0, 2**31 - 1))
def test_narrow_is_exactly_what_fits_32_bits(b: int, c: int, bound: int) -> None:
    fits = max(abs(bound * b + 2 ** (c - 1)), abs(-bound * b + 2 ** (c - 1))) < 2**31
    assert bool(is_narrow(b, c, bound)) == (bound * b + 2 ** (c - 1) < 2**31)
    assert not bool(is_narrow(b, c, bound)) or fits


def test_narrow_is_tight() -> None:
    b, c = 2**15, 16
    limit = (2**31 - 1 - 2 ** (c - 1)) // b
    assert is_narrow(b, c, limit)
    assert not is_narrow(b, c, limit + 1)
    with np.errstate(over="raise"):
        product = np.array([limit, -limit], np.int32) * np.int32(b) + np.int32(2 ** (c - 1))
    assert product.tolist() == [limit * b + 2 ** (c - 1), -limit * b + 2 ** (c - 1)]


def test_narrow_takes_channels_and_unbounded_integers() -> None:
    assert is_narrow([1, 2**30], [2, 2], np.array([5, 2**40], object)).tolist() == [True, False]


@given(ratios, st.integers(1, 2**30))
def test_narrow_dyadic_is_the_most_precise_that_fits(ratio: Fraction, bound: int) -> None:
    d = narrow_dyadic(ratio, bound, 4)
    fitting = [to_dyadic(ratio, bits) for bits in range(4, 32)]
    fitting = [f for f in fitting if f.b and bool(is_narrow(f.b, f.c, bound))]
    assert d == (fitting[-1] if fitting else None)


def test_accumulator_bound_is_reached_and_never_passed() -> None:
    rng = np.random.default_rng(3)
    w, bias = rng.integers(-127, 128, (4, 3, 2)), rng.integers(-1000, 1000, 4)
    bound = accumulator_bound(w, bias, 255)
    reached = [int(abs(bias[i])) + 255 * int(np.abs(w[i]).sum()) for i in range(4)]
    assert list(bound) == reached
    assert list(accumulator_bound(w, None, 255, out_axis=2)) == [255 * int(np.abs(w[..., i]).sum()) for i in range(2)]
    huge = accumulator_bound(np.full((1, 2), 2**31, np.int64), None, 2**40)
    assert huge[0] == 2**72


@pytest.mark.parametrize(("b", "c"), [(-1, 5), (2**31, 5), (1, 1), (1, 63)])
def test_a_dyadic_outside_its_range_is_refused(b: int, c: int) -> None:
    with pytest.raises(ValueError, match="outside"):
        Dyadic(b, c)


def test_the_value_of_a_dyadic() -> None:
    assert Dyadic(3, 2).value == 0.75
    assert Dyadic(2**31 - 1, 62).value == (2**31 - 1) / 2**62
