"""Numbers of two graphs side by side: equality, relative error, signal to quantization noise (SQNR)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mulshift.ir import Array


@dataclass(frozen=True)
class Difference:
    """Where two arrays of one value differ.

    Attributes:
        count: elements that differ (all of them if shapes or types differ).
        total: elements compared.
        index: first differing position.
        expected: the specification's number there.
        got: the other number there.
    """

    count: int
    total: int
    index: tuple[int, ...]
    expected: float | int | str
    got: float | int | str

    def __str__(self) -> str:
        return f"{self.count} of {self.total} differ, first at {list(self.index)}: {self.expected} became {self.got}"


def first_difference(expected: Array, got: Array) -> Difference | None:
    """The first place where two arrays are not equal (NaN equals NaN), or None; shape and type must agree too."""
    if expected.shape != got.shape or expected.dtype != got.dtype:
        sides = [f"{a.dtype}{list(a.shape)}" for a in (expected, got)]
        return Difference(expected.size, expected.size, (), sides[0], sides[1])
    unequal = expected != got
    if expected.dtype.kind == "f":
        unequal &= ~(np.isnan(expected) & np.isnan(got))
    count = int(np.count_nonzero(unequal))
    if count == 0:
        return None
    index = tuple(int(i) for i in np.argwhere(unequal)[0]) if unequal.ndim else ()
    return Difference(count, expected.size, index, expected[index].item(), got[index].item())


def relative_error(expected: Array, got: Array) -> float:
    """`max |expected - got| / max |expected|`; infinite where shapes differ or only one side is finite."""
    if expected.shape != got.shape:
        return math.inf
    if expected.size == 0:
        return 0.0
    wide, other = expected.astype(np.float64), got.astype(np.float64)
    finite = np.isfinite(wide)
    if not np.array_equal(finite, np.isfinite(other)) or not np.array_equal(wide[~finite], other[~finite], True):
        return math.inf
    error = float(np.abs(wide[finite] - other[finite]).max(initial=0.0))
    peak = float(np.abs(wide[finite]).max(initial=0.0))
    if error == 0.0:
        return 0.0
    return error / peak if peak else math.inf


@dataclass
class Sqnr:
    """Signal and noise energy, summed over any number of arrays in float64.

    Attributes:
        signal: sum of expected^2.
        noise: sum of (expected - got)^2.
    """

    signal: float = 0.0
    noise: float = 0.0

    def add(self, expected: Array, got: Array) -> None:
        """Count one pair of equal shape; positions where the reference is not finite are left out."""
        finite = np.isfinite(expected)
        wide = expected[finite].astype(np.float64)
        error = wide - got[finite].astype(np.float64)
        self.signal += float(np.dot(wide, wide))
        self.noise += float(np.dot(error, error))

    @property
    def db(self) -> float | None:
        """`10 log10(signal / noise)`; None where both are equal, or there is no signal to compare with."""
        if self.noise == 0.0 or self.signal == 0.0:
            return None
        return 10.0 * math.log10(self.signal / self.noise)


def sqnr_db(expected: Mapping[str, Array], got: Mapping[str, Array]) -> dict[str, float | None]:
    """SQNR in dB of each value that both sides have."""
    result: dict[str, float | None] = {}
    for name in expected.keys() & got.keys():
        meter = Sqnr()
        meter.add(expected[name], got[name])
        result[name] = meter.db
    return dict(sorted(result.items()))
