"""Hadamard matrices: the defining property in integers, the orders reached, and what is not."""

from __future__ import annotations

import numpy as np
import pytest

from mulshift.passes.hadamard import factors, hadamard, largest_order, orthogonal, signs

ORDERS = {
    1: (1, 1), 2: (2, 1), 4: (4, 1), 64: (64, 1), 12: (1, 12), 20: (1, 20), 24: (2, 12), 28: (1, 28), 36: (1, 36),
    44: (1, 44), 48: (4, 12), 52: (1, 52), 60: (1, 60), 72: (2, 36), 76: (1, 76), 100: (1, 100), 144: (4, 36),
    192: (16, 12), 244: (1, 244), 344: (1, 344), 384: (32, 12), 560: (4, 140), 576: (16, 36), 768: (64, 12),
}  # fmt: skip
"""52 = 2 (25 + 1), 100 = 2 (49 + 1), 244 = 243 + 1 and 344 = 343 + 1 need GF(5^2), GF(7^2), GF(3^5) and GF(7^3)."""


@pytest.mark.parametrize("n", ORDERS)
def test_rows_are_orthogonal_in_integers(n: int) -> None:
    h = signs(n)
    assert h is not None and h.shape == (n, n)
    wide = h.astype(np.int64)
    assert np.array_equal(np.abs(wide), np.ones((n, n)))
    assert np.array_equal(wide @ wide.T, n * np.eye(n))
    assert factors(n) == ORDERS[n]
    scaled = hadamard(n)
    assert scaled is not None and np.array_equal(scaled, wide / np.sqrt(n))


def test_kronecker_of_the_power_of_two_and_the_base() -> None:
    h, two, base = signs(96), signs(8), signs(12)
    assert h is not None and two is not None and base is not None
    assert np.array_equal(h, np.kron(two, base))


@pytest.mark.parametrize("n", [0, 3, 6, 10, 92, 116, 172])
def test_orders_that_no_construction_here_reaches(n: int) -> None:
    assert factors(n) is None
    assert hadamard(n) is None


WIDTHS = {1536: (128, 12), 2304: (64, 36), 3072: (256, 12), 4864: (64, 76), 11008: (32, 344)}


@pytest.mark.parametrize("n", WIDTHS)
def test_widths_of_models(n: int) -> None:
    assert factors(n) == WIDTHS[n]


def test_most_orders_below_1000_are_reached() -> None:
    missing = [n for n in range(4, 1000, 4) if factors(n) is None]
    assert missing[:5] == [92, 116, 156, 172, 184]
    assert len(missing) < 60


def test_largest_order() -> None:
    assert largest_order(1536, 512) == 512
    assert largest_order(172, 512) == 4
    assert largest_order(576, 576) == 576
    assert largest_order(7, 512) == 1


def test_orthogonal_is_orthogonal_and_seeded() -> None:
    q = orthogonal(17, 3)
    np.testing.assert_allclose(q @ q.T, np.eye(17), atol=1e-14)  # float64 has 1e-16, sums of 17
    assert np.array_equal(q, orthogonal(17, 3))
    assert not np.allclose(q, orthogonal(17, 4))
