"""The integer linear program against brute force on small instances, and how long 200 groups take it."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator

import numpy as np
from rows import Row, at_most, exactly

from mulshift.passes.allocation.problem import Problem
from mulshift.passes.allocation.solvers import solve

INSTANCES = {True: 200, False: 2000}
GROUPS, CANDIDATES = 200, 6
SECONDS = 1.0
REAL = 1e-9
"""Relative: sums of the same floats in another order."""


def random_problem(rng: np.random.Generator, groups: int, candidates: int, budgets: int) -> Problem:
    """Losses that fall and costs that grow with bits, and limits between the least and the most."""
    bits = np.sort(rng.choice(np.arange(1, 17), candidates, replace=False)).astype(np.float64)
    loss = rng.lognormal(0, 2, (groups, 1)) * 4.0**-bits * rng.uniform(0.5, 2, (groups, candidates))
    costs = {
        f"cost {k}": rng.lognormal(0, 1, (groups, 1)) * bits * rng.uniform(0.8, 1.2, (groups, candidates))
        for k in range(budgets)
    }
    limits = {k: float(rng.uniform(c.min(1).sum(), c.max(1).sum())) for k, c in costs.items()}
    return Problem(loss, costs, limits, bits, np.full(candidates, 8.0))


def brute_force(problem: Problem) -> float | None:
    """The least loss of all assignments that fit; None if none does."""
    groups, candidates = problem.loss.shape
    choices = (np.array(c) for c in itertools.product(range(candidates), repeat=groups))
    return min((problem.total(c) for c in choices if problem.fits(c)), default=None)


def exact_rows(quick: bool) -> Iterator[Row]:
    """Instances with another optimum; seconds of the largest."""
    rng, wrong = np.random.default_rng(0), 0
    for _ in range(INSTANCES[quick]):
        problem = random_problem(rng, int(rng.integers(1, 6)), int(rng.integers(2, 4)), int(rng.integers(1, 4)))
        choice, wanted = solve(problem), brute_force(problem)
        if choice is None or wanted is None:
            wrong += (choice is None) != (wanted is None)
        else:
            wrong += abs(problem.total(choice) - wanted) > REAL * wanted or not problem.fits(choice)
    yield exactly(f"ILP against brute force, {INSTANCES[quick]} instances: other optima", wrong)
    large = random_problem(rng, GROUPS, CANDIDATES, 3)
    start = time.perf_counter()
    solve(large)
    seconds = time.perf_counter() - start
    yield at_most(f"ILP, {GROUPS} groups x {CANDIDATES} candidates, 3 budgets: seconds", seconds, SECONDS)
