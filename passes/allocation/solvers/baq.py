"""baq: bits by a closed form that makes the marginal loss of a stored bit equal everywhere, then rounded."""

from __future__ import annotations

import numpy as np

from mulshift.ir import Array
from mulshift.passes.allocation.problem import Problem
from mulshift.passes.allocation.solvers.greedy import descend

_STEPS = 200


def baq(problem: Problem) -> Array:
    """BAQ (Zhang et al. 2025, "Bit Allocation Quantization for Large Language Models"): with `L_i(b) = a_i 4^-b` and a
    cost of `n_i` a bit, `min sum L_i` under `sum n_i b_i = B` has

        b_i = B / N + 1/2 log2(a_i / n_i) - mean_n(1/2 log2(a / n)),    N = sum n

    (all with the same loss a stored bit), clamped to the bits that there are (reverse water-filling). a_i is the
    geometric mean of `L 4^b` over the candidates of the widest activations, n_i the slope of the cost of the budget
    that binds most. Bits are rounded to the nearest candidate, and steps down follow where a budget is passed.
    """
    wide = problem.activations == problem.activations.max()
    columns = np.flatnonzero(wide)
    columns = columns[np.argsort(-problem.bits[columns], kind="stable")]
    bits = real_bits(problem, columns)
    distance = np.abs(problem.bits[columns][None] - bits[:, None])
    distance = np.where(problem.allowed()[:, columns], distance, np.inf)
    choice = columns[distance.argmin(axis=1)]
    choice = np.where(np.isfinite(distance.min(axis=1)), choice, problem.loss.argmin(axis=1))
    return descend(problem, choice)


def real_bits(problem: Problem, columns: Array) -> Array:
    """[groups]: the closed form before rounding, for the tightest budget."""
    b = problem.bits[columns].astype(np.float64)
    low, high = float(b.min()), float(b.max())
    name = _tightest(problem, columns)
    if name is None or low == high:
        return np.full(len(problem.loss), high)
    weight = np.log2(np.maximum(problem.loss[:, columns], 1e-300)) / 2 + b  # 1/2 log2 a, one estimate a candidate
    log_a = np.where(np.isfinite(weight), weight, np.nan)
    log_a = np.nanmean(log_a, axis=1)
    cost = problem.costs[name][:, columns]
    first, last = int(b.argmax()), int(b.argmin())
    slope = np.maximum((cost[:, first] - cost[:, last]) / (high - low), 1e-300)
    room = problem.limits[name] - float((cost[:, last] - slope * low).sum())
    return water_filling(log_a - np.log2(slope) / 2, slope, room, low, high)


def water_filling(level: Array, n: Array, total: float, low: float, high: float) -> Array:
    """`clip(level + t, low, high)` with the t for which `sum n b = total`; all low or high where no t does."""
    under, over = low - float(level.max()) - 1, high - float(level.min()) + 1
    for _ in range(_STEPS):
        t = (under + over) / 2
        if float((n * np.clip(level + t, low, high)).sum()) <= total:
            under = t
        else:
            over = t
    return np.asarray(np.clip(level + under, low, high))


def _tightest(problem: Problem, columns: Array) -> str | None:
    """The budget that the widest candidates pass most; None if they pass none."""
    widest = np.full(len(problem.loss), columns[0])
    excess = {name: problem.excess(name, widest) for name in problem.limits}
    name = max(excess, key=lambda k: excess[k], default=None)
    return name if name is not None and excess[name] > 0 else None
