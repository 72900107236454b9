"""The scale of a row of weights: by its largest, or by the least squared error of rounding and clipping."""

from __future__ import annotations

import numpy as np

from mulshift.ir import Array, QuantSpec

MIN_SCALE = 2.0**-60
"""Smaller scales are raised to this, so that s_x * s_w stays a normal float32."""

_SEARCH = {8: (0.6, 33), 4: (0.35, 24), 3: (0.2, 24), 2: (0.1, 24)}
"""Bits -> the smallest share of the "max" scale that is tried, and how many: the fewer bits, the more is clipped."""
_REFINED = 2
_CACHED = 1 << 14
"""Numbers searched at a time: 128 kB stay in a core's cache, twice as fast as 512 kB or all rows at once."""


def best_scales(rows: Array, spec: QuantSpec, method: str, mask: Array | None = None) -> Array:
    """One scale a row; 0 where a row holds only zeros.

    "max" is `max|w| / qmax`. "mse" tries shares of it; with 4 bits and fewer the best is refined twice by the scale
    that is best for the integers that it gives, `s = w q / q q`. One bit has the scale `mean|w|` whatever the method
    (XNOR-Net, Rastegari et al. 2016, arXiv:1603.05279).

    Args:
        rows: float64 [rows, n].
        spec: signed, symmetric.
        method: "max" or "mse".
        mask: [rows, n], false where a row holds no weight but padding; padding is 0.
    """
    if rows.size > _CACHED and len(rows) > 1:
        parts = slices(len(rows), rows.shape[1])
        return np.concatenate([best_scales(rows[p], spec, method, None if mask is None else mask[p]) for p in parts])
    if spec.bits == 1:
        count = rows.shape[1] if mask is None else mask.sum(axis=1)
        return np.asarray(np.abs(rows).sum(axis=1) / np.maximum(count, 1))
    scale = np.asarray(np.abs(rows).max(axis=1, initial=0.0) / spec.qmax)
    if method == "max":
        return scale
    best = np.full(len(rows), np.inf)
    chosen = scale.copy()

    def offer(trial: Array) -> None:
        nonlocal best, chosen
        error = rounding_error(rows, np.maximum(trial, MIN_SCALE), spec)
        better = error < best
        best, chosen = np.where(better, error, best), np.where(better, trial, chosen)

    lowest, count = _SEARCH[spec.bits]
    for share in np.linspace(1.0, lowest, count):
        offer(scale * share)
    for _ in range(_REFINED if spec.bits < 8 else 0):
        q = _integers(rows, np.maximum(chosen, MIN_SCALE), spec)
        squares = (q * q).sum(axis=1)
        offer(np.where(squares > 0, (rows * q).sum(axis=1) / np.maximum(squares, 1), chosen))
    return chosen


def slices(rows: int, size: int) -> list[slice]:
    """Rows of `size` numbers each, as many at a time as a search has in the cache."""
    step = max(_CACHED // max(size, 1), 1)
    return [slice(start, start + step) for start in range(0, rows, step)]


def rounding_error(rows: Array, scale: Array, spec: QuantSpec, mask: Array | None = None) -> Array:
    """`sum (w - s q)^2` of each row, q the integers nearest to w / s that there are."""
    difference = rows - _integers(rows, scale, spec) * scale[:, None]
    if mask is not None:
        difference = difference * mask
    return np.asarray((difference**2).sum(axis=1))


def _integers(rows: Array, scale: Array, spec: QuantSpec) -> Array:
    if spec.bits == 1:
        return np.where(rows < 0, -1.0, 1.0)
    return np.asarray(np.clip(np.rint(rows / scale[:, None]), spec.qmin, spec.qmax))
