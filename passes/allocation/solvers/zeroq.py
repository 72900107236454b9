"""zeroq: the Pareto frontier of (cost, loss) group by group, then its best point within the budgets."""

from __future__ import annotations

import numpy as np

from mulshift.ir import Array
from mulshift.passes.allocation.problem import Problem
from mulshift.passes.allocation.solvers.greedy import descend

POINTS = 4096
"""Points of the frontier that are kept; beyond that those that lie close together are thinned."""


def zeroq(problem: Problem) -> Array:
    """ZeroQ's search (Cai et al. 2020, arXiv:2001.00281): dynamic programming over the groups.

    After each group only assignments remain that no other one beats in cost and loss; exact while there are at most
    POINTS of them. The cost is that of the budget that the best candidates pass most; of the points within all budgets
    the one of the least loss is taken, and steps down follow if none is.
    """
    best = np.asarray(problem.loss.argmin(axis=1))
    excess = {name: problem.excess(name, best) for name in problem.limits}
    if not any(excess.values()):
        return best
    name = max(excess, key=lambda k: excess[k])
    choices = frontier(problem, name)
    fitting = [c for c in choices if problem.fits(c)]
    if fitting:
        return min(fitting, key=problem.total)
    nearest = min(choices, key=lambda c: sum(problem.excess(k, c) for k in problem.limits))
    return descend(problem, nearest)


def frontier(problem: Problem, name: str) -> list[Array]:
    """Assignments that no other one beats in loss and in one cost, cheapest first."""
    cost, loss = np.zeros(1), np.zeros(1)
    steps: list[tuple[Array, Array]] = []
    for i in problem.rows:
        columns = np.flatnonzero(np.isfinite(problem.loss[i]))
        more = (cost[:, None] + problem.costs[name][i, columns]).ravel()
        worse = (loss[:, None] + problem.loss[i, columns]).ravel()
        kept = _thinned(_undominated(more, worse), more)
        steps.append((kept // len(columns), columns[kept % len(columns)]))
        cost, loss = more[kept], worse[kept]
    found = []
    for point in range(len(cost)):
        choice, at = np.zeros(len(problem.loss), np.int64), point
        for i in reversed(range(len(steps))):
            before, candidate = steps[i]
            choice[i], at = candidate[at], before[at]
        found.append(choice)
    return found


def _undominated(cost: Array, loss: Array) -> Array:
    """Indices by rising cost and falling loss."""
    order = np.lexsort((loss, cost))
    least = np.minimum.accumulate(loss[order])
    falls = np.concatenate([[True], least[1:] < least[:-1]])
    return np.asarray(order[falls])


def _thinned(kept: Array, cost: Array) -> Array:
    """At most POINTS, the cheapest of each of so many equal spans of cost, and the ends."""
    if len(kept) <= POINTS:
        return kept
    low, high = float(cost[kept[0]]), float(cost[kept[-1]])
    span = ((cost[kept] - low) / max(high - low, 1e-300) * (POINTS - 2)).astype(np.int64)
    last = np.concatenate([span[1:] != span[:-1], [True]])  # of a span, the one of the least loss
    last[0] = True
    return np.asarray(kept[last])
