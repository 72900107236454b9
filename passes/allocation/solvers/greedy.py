"""greedy: from the best candidate of every group, the cheapest step down until all budgets are met."""

from __future__ import annotations

import numpy as np

from mulshift.ir import Array
from mulshift.passes.allocation.problem import Problem


def greedy(problem: Problem) -> Array:
    """Starts with the least loss everywhere, then repeats the change with the least added loss for each unit of excess.

    The excess of a choice is summed over the budgets, each relative to its limit. The answer may miss a budget if
    changes of single groups do not lead there.
    """
    choice = np.asarray(problem.loss.argmin(axis=1))
    return descend(problem, choice)


def descend(problem: Problem, choice: Array) -> Array:
    """The repeated change, from any choice; stops when all budgets are met or no change lowers the excess."""
    choice = choice.copy()
    while not problem.fits(choice):
        step = _best_step(problem, choice)
        if step is None:
            break
        choice[step[0]] = step[1]
    return choice


def _best_step(problem: Problem, choice: Array) -> tuple[int, int] | None:
    rows = problem.rows
    gain = np.zeros_like(problem.loss)
    for name, limit in problem.limits.items():
        cost, scale = problem.costs[name], max(abs(limit), 1e-30)
        now = problem.cost(name, choice)
        after = now + (cost - cost[rows, choice][:, None])
        gain += (max(now - limit, 0.0) - np.maximum(after - limit, 0.0)) / scale
    gain = np.where(problem.allowed(), gain, 0.0)
    added = np.where(problem.allowed(), problem.loss, np.inf) - problem.loss[rows, choice][:, None]
    useful = gain > 1e-12  # of a limit: less is the rounding of sums
    useful[rows, choice] = False
    if not useful.any():
        return None
    ratio = np.where(useful, np.where(added > 0, added, 0.0) / np.where(useful, gain, 1.0), np.inf)
    # Of equal ratios (steps that add no loss) the one that gains most.
    ties = ratio <= ratio.min()
    flat = int(np.where(ties, gain, -1.0).argmax())
    return flat // ratio.shape[1], flat % ratio.shape[1]


def improved(problem: Problem, choice: Array, rounds: int = 100) -> Array:
    """Local search: single changes and pairs of them that lower the loss within all budgets, until none does."""
    choice = choice.copy()
    for _ in range(rounds if problem.fits(choice) else 0):
        step = _best_pair(problem, choice)
        if step is None:
            break
        for group, candidate in step:
            choice[group] = candidate
    return choice


def _best_pair(problem: Problem, choice: Array) -> list[tuple[int, int]] | None:
    rows, columns = np.nonzero(problem.allowed())
    added = problem.loss[rows, columns] - problem.loss[rows, choice[rows]]
    room = {name: limit - problem.cost(name, choice) for name, limit in problem.limits.items()}
    more = {name: problem.costs[name][rows, columns] - problem.costs[name][rows, choice[rows]] for name in room}
    # Of a pair, one change lowers the loss; "no change" is among the candidates, so single ones are pairs too.
    first = np.flatnonzero(added < 0)
    if not len(first):
        return None
    total = added[first][:, None] + added[None]
    fits = (rows[first][:, None] != rows[None]) | (columns[None] == choice[rows][None])
    for name, cost in more.items():
        fits &= cost[first][:, None] + cost[None] <= room[name]
    total = np.where(fits, total, 0.0)
    best = int(total.argmin())
    i, j = first[best // len(added)], best % len(added)
    if not total.flat[best] < -1e-12 * max(problem.total(choice), 1e-300):
        return None
    changes = [(int(rows[j]), int(columns[j])), (int(rows[i]), int(columns[i]))]
    return changes if rows[i] != rows[j] else changes[1:]
