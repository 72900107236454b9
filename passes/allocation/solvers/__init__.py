"""Ways to choose: one row each. Whatever a row answers is brought within all budgets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeAlias

import numpy as np

from mulshift.ir import Array, UsageError
from mulshift.passes.allocation.problem import Problem
from mulshift.passes.allocation.solvers.baq import baq
from mulshift.passes.allocation.solvers.greedy import greedy
from mulshift.passes.allocation.solvers.ilp import least_cost, optimum
from mulshift.passes.allocation.solvers.uniform import in_order, uniform
from mulshift.passes.allocation.solvers.zeroq import zeroq

Method: TypeAlias = Callable[[Problem], "Array | None"]
"""A choice [groups]; None, or one that passes a budget, where it finds none that fits."""


SOLVERS: dict[str, Method] = {
    "ilp": optimum,
    "greedy": greedy,
    "baq": baq,
    "zeroq": zeroq,
    "uniform": uniform,
    "in-order": in_order,
}


def solve(problem: Problem, solver: str = "ilp") -> Array | None:
    """A choice [groups] within all budgets; None if there is none.

    A heuristic that ends outside takes, of all assignments within, the one that changes the fewest of its groups.

    Raises:
        UsageError: there is no such solver.
    """
    if solver not in SOLVERS:
        raise UsageError("solver", f"there is no '{solver}'", f"use one of {', '.join(SOLVERS)}")
    choice = SOLVERS[solver](problem)
    if choice is None or problem.fits(choice):
        return choice
    changed = (np.arange(problem.loss.shape[1])[None] != choice[:, None]).astype(np.float64)
    worse = problem.loss / max(float(problem.loss[problem.allowed()].max(initial=0.0)), 1e-300)
    nearest = np.where(problem.allowed(), changed + worse / (2 * len(choice)), np.inf)
    return optimum(replace(problem, loss=nearest))


__all__ = ["SOLVERS", "least_cost", "solve"]
