"""The portable kernels against the arithmetic's definition in Python: integers, so `==`."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mulshift import kernels
from mulshift.ir import dyadic

INT32 = np.iinfo(np.int32)
EXTREME_ACC = np.array([INT32.min, INT32.min + 1, -(2**30), -3, -2, -1, 0, 1, 2, 3, 2**30, INT32.max - 1, INT32.max])
EXTREME_B = np.array([0, 1, 2, 3, 2**15, 2**30, 2**30 + 1, 2**31 - 2, 2**31 - 1])

int32s = st.integers(int(INT32.min), int(INT32.max))
mantissas = st.integers(0, 2**31 - 1)
shifts = st.integers(dyadic.MIN_SHIFT, dyadic.MAX_SHIFT)


@given(arrays(np.int32, st.integers(1, 64), elements=int32s), mantissas, shifts, int32s, st.tuples(int32s, int32s))
def test_equals_the_definition(acc: np.ndarray, b: int, c: int, zero_point: int, borders: tuple[int, int]) -> None:
    low, high = sorted(borders)
    expected = dyadic.requantize(acc, b, c, zero_point, low, high)
    assert np.array_equal(kernels.requantize(acc, b, c, zero_point, low, high), expected)


@pytest.mark.parametrize("c", range(dyadic.MIN_SHIFT, dyadic.MAX_SHIFT + 1))
@pytest.mark.parametrize(("zero_point", "low", "high"), [(128, 0, 255), (INT32.max, INT32.min, INT32.max)])
def test_equals_the_definition_at_the_extremes(c: int, zero_point: int, low: int, high: int) -> None:
    acc, b = (v.reshape(-1) for v in np.meshgrid(EXTREME_ACC, EXTREME_B))
    shift = np.full_like(b, c)
    # Python's own unbounded integers: neither int64 nor NumPy decides here.
    exact = [
        min(max(((int(a) * int(m) + 2 ** (c - 1)) >> c) + int(zero_point), low), high)
        for a, m in zip(acc, b, strict=True)
    ]
    assert kernels.requantize(acc, b, shift, int(zero_point), int(low), int(high)).tolist() == exact


def test_every_byte_over_a_grid_of_ratios() -> None:
    acc = np.arange(-128, 128)
    for b in (1, 3, 181, 2**30, 2**31 - 1):
        for c in (2, 7, 8, 31, 32, 62):
            expected = dyadic.requantize(acc, b, c, -3, -128, 127)
            assert np.array_equal(kernels.requantize(acc, b, c, -3, -128, 127), expected)


@pytest.mark.parametrize(("acc", "expected"), [(2, 1), (-2, 0), (6, 2), (-6, -1), (10, 3), (-10, -2)])
def test_exact_halves_go_up(acc: int, expected: int) -> None:
    """acc / 4 is a half: 0.5, -0.5, 1.5, ..."""
    assert kernels.requantize(np.array([acc]), 1, 2, 0, -128, 127).tolist() == [expected]


def test_the_case_that_float64_gets_wrong() -> None:
    """156880203 * 1276859491 / 2^40 = 182184.5 to within float64's reach; exact is just above (EXAMPLES.md)."""
    assert kernels.requantize(np.array([156880203]), 1276859491, 40, 0, 0, 2**31 - 1).tolist() == [182185]


def test_one_ratio_a_channel() -> None:
    acc = np.arange(-12, 12).reshape(2, 4, 3) * 1000
    b, c = np.array([2**30, 2**20 + 1, 77]), np.array([31, 22, 5])
    y = kernels.requantize(acc, b, c, 5, -1000, 1000)
    assert y.dtype == np.int32
    assert np.array_equal(y, dyadic.requantize(acc, b, c, 5, -1000, 1000))


@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (0, 3)])
def test_small_shapes(shape: tuple[int, ...]) -> None:
    assert kernels.requantize(np.full(shape, 9), 1, 2, 0, 0, 255).tolist() == np.full(shape, 2).tolist()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"acc": np.array([2**31])}, "acc does not fit int32"),
        ({"acc": np.array([0.5])}, "acc must be integers"),
        ({"b": -1}, "b must be >= 0"),
        ({"b": 2**31}, "b does not fit int32"),
        ({"b": np.array([1, 2])}, "b has shape"),
        ({"c": 1}, "c from 2 to 62"),
        ({"c": 63}, "c from 2 to 62"),
        ({"qmin": 5, "qmax": 4}, "qmin 5 is above qmax 4"),
    ],
)
def test_a_number_out_of_range_is_refused(changed: dict[str, object], message: str) -> None:
    good: dict[str, object] = {"acc": np.array([1, 2, 3]), "b": 1, "c": 2, "zero_point": 0, "qmin": 0, "qmax": 255}
    with pytest.raises(ValueError, match=message):
        kernels.requantize(**(good | changed))  # type: ignore[arg-type]


def test_a_missing_library_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setattr(kernels, "__file__", f"{tmp_path}/__init__.py")
    with pytest.raises(FileNotFoundError, match="not built; run 'pip install -e"):
        kernels.library_path()
