"""uniform: the same candidate everywhere. in-order: narrower from the input on. What the others are compared with."""

from __future__ import annotations

import numpy as np

from mulshift.ir import Array
from mulshift.passes.allocation.problem import Problem


def uniform(problem: Problem) -> Array:
    """The candidate of the least summed loss that fits everywhere; the best of the cheapest ones if none does.

    A group that cannot have it takes its own best one.
    """
    own = problem.loss.argmin(axis=1)
    choices = [np.where(np.isfinite(problem.loss[:, c]), c, own) for c in range(problem.loss.shape[1])]
    fitting = [c for c in choices if problem.fits(c)]
    if fitting:
        return min(fitting, key=problem.total)
    return min(choices, key=lambda c: (sum(problem.excess(name, c) for name in problem.limits), problem.total(c)))


def in_order(problem: Problem) -> Array:
    """All as wide as possible; then, group by group in the order of the graph, the next narrower until it fits.

    When all groups have the next one and a budget is still passed, it goes on with the one after that.
    """
    order = np.lexsort((problem.loss.sum(axis=0), -problem.activations * problem.bits))
    choice = np.full(len(problem.loss), order[0])
    allowed = problem.allowed()
    choice = np.where(allowed[problem.rows, choice], choice, problem.loss.argmin(axis=1))
    for candidate in order[1:]:
        for i in problem.rows:
            if problem.fits(choice):
                return choice
            if allowed[i, candidate] and _helps(problem, i, int(choice[i]), int(candidate)):
                choice[i] = candidate
    return choice


def _helps(problem: Problem, i: int, now: int, then: int) -> bool:
    """Whether the change lowers a cost that has a budget and raises none."""
    changes = [float(problem.costs[name][i, then] - problem.costs[name][i, now]) for name in problem.limits]
    return any(c < 0 for c in changes) and all(c <= 0 for c in changes)
