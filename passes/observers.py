"""What calibration keeps of an activation: a histogram of fixed size; and four ways to choose a range from it.

A `Histogram` covers [-radius, radius) with `bins` equal bins, radius a power of two. A sample that does not fit doubles
the radius and merges bins in pairs, so that memory does not depend on the number of samples. Merging is exact: every
old bin lies in one new bin.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from mulshift.ir import Array

if TYPE_CHECKING:
    import torch

BINS = 8192
SAMPLED = 1 << 18
"""Elements of one tensor that enter the histogram; larger tensors are strided. The extremes see every element."""
_TINY = 2.0**-40


@dataclass
class Histogram:
    """Streaming extremes and histogram of one activation.

    Attributes:
        bins: a power of two, at least 4.
        low, high: exact extremes so far; low > high before the first element.
        radius: half width; 0 before the first element.
        counts: int64 [bins].
    """

    bins: int = BINS
    low: float = math.inf
    high: float = -math.inf
    radius: float = 0.0
    counts: Array = field(default_factory=lambda: np.zeros(0, np.int64), repr=False)

    def update(self, tensor: torch.Tensor, counted: bool = True) -> bool:
        """Take one tensor in; False (and nothing taken) if it holds NaN or infinity.

        Args:
            tensor: floating point, any shape.
            counted: whether the histogram is wanted too, or the extremes only.
        """
        import torch

        if tensor.numel() == 0:
            return True
        low, high = (float(v) for v in torch.aminmax(tensor))
        if not (math.isfinite(low) and math.isfinite(high)):
            return False
        self.low, self.high = min(self.low, low), max(self.high, high)
        if counted:
            self._fit(max(abs(low), abs(high)))
            self.counts += self._count(tensor)
        return True

    def _fit(self, largest: float) -> None:
        if not self.radius:
            self.radius = 2.0 ** math.floor(math.log2(max(largest, _TINY)) + 1)
            self.counts = np.zeros(self.bins, np.int64)
        while largest >= self.radius:
            self.radius *= 2
            merged = self.counts.reshape(-1, 2).sum(axis=1)
            quarter = self.bins // 4
            self.counts = np.pad(merged, (quarter, quarter))

    def _count(self, tensor: torch.Tensor) -> Array:
        import torch

        flat = tensor.detach().reshape(-1)
        flat = flat[:: -(-flat.numel() // SAMPLED)].to(torch.float32)
        index = (flat * (self.bins / 2 / self.radius)).floor_().to(torch.int32).add_(self.bins // 2)
        counted = torch.bincount(index.clamp_(0, self.bins - 1), minlength=self.bins)
        return np.asarray(counted.numpy(), np.int64)

    @property
    def centers(self) -> Array:
        """The middle of every bin, float64 [bins]."""
        return (np.arange(self.bins) + 0.5 - self.bins / 2) * (2 * self.radius / self.bins)


def min_max(h: Histogram) -> tuple[float, float]:
    """The extremes."""
    return h.low, h.high


def percentile(h: Histogram, percent: float = 99.99) -> tuple[float, float]:
    """The range that leaves out `100 - percent` per cent of the elements, half of them at each end.

    An end at which the histogram stops (a ReLU's zero) loses nothing: its first bin holds more than that.
    """
    tail = h.counts.sum() * (100.0 - percent) / 200.0
    edges = np.linspace(-h.radius, h.radius, h.bins + 1)
    total = np.cumsum(h.counts)
    low = edges[int(np.searchsorted(total, tail, side="right"))]
    high = edges[int(np.searchsorted(total, total[-1] - tail, side="left")) + 1]
    return _within(h, float(low), float(high))


def mse(h: Histogram, levels: int = 256) -> tuple[float, float]:
    """The range inside the extremes with the least mean squared error of rounding and clipping (Sung et al. 2015).

    Both ends are tried at all pairs of 12 factors each, then each end in turn at 21 around the best.
    """
    low, high = min(h.low, 0.0), max(h.high, 0.0)
    coarse, fine = 0.8 ** np.arange(12), np.linspace(1.15, 0.85, 21)
    rough, exact = (_nonempty(h, merged) for merged in (4, 1))

    def best(points: tuple[Array, Array], lows: Array, highs: Array) -> tuple[float, float]:
        candidates = [(float(a), float(b)) for a in lows for b in highs]
        return min(candidates, key=lambda c: _rounding_error(*points, c[0], c[1], levels))

    a, b = best(rough, low * coarse[: 12 if low else 1], high * coarse[: 12 if high else 1])
    for _ in range(2):
        a, b = best(exact, np.maximum(a * fine, low)[: 21 if low else 1], np.asarray([b]))
        a, b = best(exact, np.asarray([a]), np.minimum(b * fine, high)[: 21 if high else 1])
    return a, b


def _nonempty(h: Histogram, merged: int) -> tuple[Array, Array]:
    """Centres and float64 counts of the bins that hold something, `merged` neighbours taken together."""
    counts = h.counts.reshape(-1, merged).sum(axis=1)
    kept = counts > 0
    return h.centers.reshape(-1, merged).mean(axis=1)[kept], counts[kept].astype(np.float64)


def _rounding_error(x: Array, weight: Array, low: float, high: float, levels: int) -> float:
    """Sum of weight * (x - dequantize(quantize(x)))^2."""
    step = (high - low) / (levels - 1)
    if step <= 0:
        return float((weight * x * x).sum())
    zero_point = round(-low / step)
    q = np.clip(np.rint(x / step), -zero_point, levels - 1 - zero_point)
    return float((weight * (x - step * q) ** 2).sum())


def entropy(h: Histogram, levels: int = 256) -> tuple[float, float]:
    """The symmetric clip of the extremes with the least Kullback-Leibler divergence (Migacz, GTC 2017).

    Of the magnitudes' histogram, folded to 2048 bins, every 16th threshold from `levels / 2` bins on is tried.
    """
    half = h.bins // 2
    magnitude = h.counts[half:] + h.counts[:half][::-1]
    p = magnitude.reshape(min(2048, half), -1).sum(axis=1).astype(np.float64)
    bins, levels = len(p), levels // 2
    starts = range(min(levels, bins), bins + 1, max(1, bins // 128))
    best = min(starts, key=lambda t: _divergence(p, t, levels))
    threshold = best * h.radius / bins
    return _within(h, -threshold, threshold)


def _divergence(p: Array, threshold: int, levels: int) -> float:
    """KL(clipped p || p rounded to `levels` values over its first `threshold` bins)."""
    inside = p[:threshold]
    reference = inside.copy()
    reference[-1] += p[threshold:].sum()
    group = np.arange(threshold) * levels // threshold
    filled = inside > 0
    total = np.bincount(group, weights=inside, minlength=levels)
    number = np.bincount(group, weights=filled, minlength=levels)
    q = np.where(filled, (total / np.maximum(number, 1))[group], 0.0)
    if not q.sum():
        return math.inf
    reference, q = reference / reference.sum(), q / q.sum()
    used = reference > 0
    return float((reference[used] * np.log(reference[used] / np.maximum(q[used], 1e-12))).sum())


def _within(h: Histogram, low: float, high: float) -> tuple[float, float]:
    return max(low, h.low), min(high, h.high)


METHODS: dict[str, Callable[[Histogram], tuple[float, float]]] = {
    "min-max": min_max,
    "percentile": percentile,
    "mse": mse,
    "entropy": entropy,
}
