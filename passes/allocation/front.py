"""The Pareto front: the least predicted loss for each of a range of costs, as data and as a plot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mulshift.ir import UsageError
from mulshift.passes.allocation.budget import Budget
from mulshift.passes.allocation.choice import Assignment, assignment, choose, make_problem
from mulshift.passes.allocation.measurements import Measurements

POINTS = 24


@dataclass(frozen=True)
class Point:
    """One assignment of the front.

    Attributes:
        cost: share of all w8a8.
        loss: predicted.
        assignment: see there.
    """

    cost: float
    loss: float
    assignment: Assignment


def pareto(
    measured: Measurements,
    cost: str = "size",
    budgets: Sequence[Budget] = (),
    solver: str = "ilp",
    points: int = POINTS,
) -> list[Point]:
    """Assignments that no other one beats in a cost and in predicted loss, cheapest first.

    Args:
        measured: by `measure`.
        cost: row of COSTS, between whose least and largest useful value limits are spread evenly.
        budgets: that all of them keep.
        solver: row of SOLVERS.
        points: limits at most.

    Raises:
        UsageError: an unknown cost, or no assignment within the budgets.
    """
    if cost not in measured.costs:
        raise UsageError(f"front over '{cost}'", "is not known here", f"use one of {', '.join(measured.costs)}")
    others = [b for b in budgets if b.name != cost]
    best = choose(measured, budgets, solver)
    problem = make_problem(measured, [Budget(cost, 1.0)])
    least = assignment(measured, problem.least(cost)).shares[cost]
    found = [best]
    for share in np.linspace(best.shares[cost], least, points)[1:]:
        try:
            found.append(choose(measured, [*others, Budget(cost, max(float(share), 1e-12))], solver))
        except UsageError:
            break  # the other budgets leave no room below
    front: dict[float, Point] = {}
    for made in sorted(found, key=lambda a: (a.shares[cost], a.loss)):
        if not front or made.loss < min(p.loss for p in front.values()):
            front[made.shares[cost]] = Point(made.shares[cost], made.loss, made)
    return list(front.values())
