"""ilp: the choice as an integer linear program, solved by HiGHS (scipy.optimize.milp) to optimality.

One binary x[i, c] a group and candidate:

    min sum loss x,    sum_c x[i, c] = 1,    sum cost_k x <= limit_k

Before that, what no optimum can hold is taken out: candidates that another one beats in everything, and candidates
whose reduced cost in the linear relaxation already passes the best assignment known (Dantzig & Wolfe; reduced cost
fixing). HiGHS works with absolute tolerances, so rows are scaled up and the loss to what is left to decide; an answer
is checked exactly, and one that misses a budget by a tolerance is cut off and the rest solved again.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mulshift.ir import Array
from mulshift.passes.allocation.problem import Problem
from mulshift.passes.allocation.solvers.greedy import descend, greedy, improved

ROOM = 1e6
"""What limits are scaled to: HiGHS's tolerance of 1e-6 is then 1e-12 of them."""
_CUTS = 50


def optimum(problem: Problem) -> Array | None:
    """The choice [groups] of the least summed loss within all budgets; None if there is none."""
    variables = _undominated(problem)
    start = greedy(problem)
    best = start if problem.fits(start) else None
    relaxed = _relaxation(problem, variables)
    if relaxed is None:
        return _branch(problem, variables, best)
    near = improved(problem, _nearest(problem, variables, relaxed.x))
    if problem.fits(near) and (best is None or problem.total(near) < problem.total(best)):
        best = near
    if best is not None:
        variables = _fixed(problem, variables, relaxed, problem.total(best))
    return _branch(problem, variables, best)


@dataclass(frozen=True, eq=False)
class _Variables:
    """The (group, candidate) pairs that are left."""

    group: Array
    candidate: Array

    def keep(self, mask: Array) -> _Variables:
        return _Variables(self.group[mask], self.candidate[mask])


@dataclass(frozen=True, eq=False)
class _Relaxed:
    """Optimum of the linear relaxation, where it lies, and its reduced costs."""

    value: float
    x: Array
    reduced: Array


def _undominated(problem: Problem) -> _Variables:
    """Without candidates that cost and lose at least as much as another one of the same group (ties: the later)."""
    allowed = problem.allowed()
    measures = np.stack([problem.loss, *(problem.costs[name] for name in problem.limits)])
    a, b = measures[:, :, :, None], measures[:, :, None, :]
    better = (a <= b).all(axis=0) & allowed[:, :, None]  # [groups, winner, loser]
    strict = (a < b).any(axis=0)
    earlier = np.triu(np.ones(better.shape[1:], bool), 1)
    beaten = (better & (strict | earlier)).any(axis=1)
    group, candidate = np.nonzero(allowed & ~beaten)
    return _Variables(group, candidate)


def _scaled(problem: Problem, v: _Variables) -> tuple[Any, Array, Array]:
    """Sparse constraint matrix, lower and upper bounds: groups first, then budgets with limits of ROOM."""
    from scipy.sparse import csr_matrix, vstack

    groups, count = len(problem.loss), len(v.group)
    parts = [csr_matrix((np.ones(count), (v.group, np.arange(count))), shape=(groups, count))]
    lower, upper = [np.ones(groups)], [np.ones(groups)]
    for name, limit in problem.limits.items():
        cost = problem.costs[name][v.group, v.candidate]
        scale = max(abs(limit), float(np.abs(cost).max(initial=0.0)), 1e-30) / ROOM
        parts.append(csr_matrix(cost[None] / scale))
        lower.append(np.array([-np.inf]))
        upper.append(np.array([limit / scale * (1 + 1e-12)]))
    return vstack(parts).tocsr(), np.concatenate(lower), np.concatenate(upper)


def _relaxation(problem: Problem, v: _Variables) -> _Relaxed | None:
    from scipy.optimize import linprog

    loss = problem.loss[v.group, v.candidate]
    scale = max(float(loss.max(initial=0.0)), 1e-300)
    matrix, _, upper = _scaled(problem, v)
    groups = len(problem.loss)
    budgets = {"A_ub": matrix[groups:], "b_ub": upper[groups:]} if problem.limits else {}
    made = linprog(loss / scale, A_eq=matrix[:groups], b_eq=upper[:groups], bounds=(0, 1), method="highs", **budgets)
    if made.status != 0:
        return None
    return _Relaxed(float(made.fun) * scale, np.asarray(made.x), np.asarray(made.lower.marginals) * scale)


def _nearest(problem: Problem, v: _Variables, x: Array) -> Array:
    """The relaxation rounded, and steps down where that passes a budget."""
    share = np.full(problem.loss.shape, -1.0)
    share[v.group, v.candidate] = x
    return descend(problem, np.asarray(share.argmax(axis=1)))


def _fixed(problem: Problem, v: _Variables, relaxed: _Relaxed, incumbent: float) -> _Variables:
    """Without variables that would lift the relaxation above the incumbent."""
    room = (incumbent - relaxed.value) + 1e-6 * max(incumbent, 1e-300)
    keep = relaxed.reduced <= room
    present = np.zeros(len(problem.loss), bool)
    present[v.group[keep]] = True
    return v.keep(keep | ~present[v.group])


def _branch(problem: Problem, v: _Variables, best: Array | None) -> Array | None:
    """HiGHS on what is left; answers that pass a budget by HiGHS's tolerance are cut off one by one."""
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import csr_matrix

    loss = problem.loss[v.group, v.candidate]
    base = np.full(len(problem.loss), np.inf)
    np.minimum.at(base, v.group, loss)
    above = loss - base[v.group]  # the same constant less for every choice
    worst = float(above.max(initial=0.0))
    target = worst if best is None else max(problem.total(best) - float(base.sum()), 0.0)
    scale = 1e4 / target if target > 0 else 1.0
    matrix, lower, upper = _scaled(problem, v)
    constraints = [LinearConstraint(matrix, lower, upper)]
    for _ in range(_CUTS):
        with _silent_stdout():
            made = milp(
                above * scale,
                integrality=np.ones(len(above)),
                bounds=Bounds(0, 1),
                constraints=constraints,
                options={"mip_rel_gap": 0.0},
            )
        if made.x is None:
            return best
        chosen = np.asarray(made.x) > 0.5
        choice = np.zeros(len(problem.loss), np.int64)
        choice[v.group[chosen]] = v.candidate[chosen]
        if problem.fits(choice):
            return choice if best is None or problem.total(choice) <= problem.total(best) else best
        constraints.append(LinearConstraint(csr_matrix(chosen[None].astype(float)), -np.inf, len(problem.loss) - 1.0))
    return best


@contextmanager
def _silent_stdout() -> Iterator[None]:
    """HiGHS 1.12 leaves lines of its developers on the process's stdout, which holds our one JSON object."""
    sys.stdout.flush()
    kept, null = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(null)


def least_cost(problem: Problem, name: str) -> float | None:
    """The least that one cost can be within all other budgets; None if those alone cannot be met."""
    others = problem.without(name)
    aim = replace(others, loss=np.where(problem.allowed(), problem.costs[name], np.inf))
    shift = float(np.nanmin(np.where(problem.allowed(), aim.loss, np.nan)))
    choice = optimum(replace(aim, loss=aim.loss - min(shift, 0.0)))
    return None if choice is None else problem.cost(name, choice)
