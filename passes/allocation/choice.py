"""From measurements and budgets to a decision: which candidate each group gets, and what that costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mulshift.ir import Array, UsageError
from mulshift.passes.allocation.budget import Budget
from mulshift.passes.allocation.candidates import Candidate
from mulshift.passes.allocation.measurements import Measurements
from mulshift.passes.allocation.problem import Problem
from mulshift.passes.allocation.solvers import least_cost, solve

LOSS = "loss"
"""Name of the limit that a metric budget becomes."""


@dataclass(frozen=True)
class Assignment:
    """A decision.

    Attributes:
        chosen: group -> candidate, in the order of the graph.
        loss: predicted, summed.
        costs: every known cost, in its unit.
        shares: the same as shares of all w8a8.
    """

    chosen: Mapping[str, Candidate]
    loss: float
    costs: Mapping[str, float]
    shares: Mapping[str, float]

    def products(self, measured: Measurements) -> dict[str, Candidate]:
        """Product -> candidate."""
        return {p.name: self.chosen[g.name] for g in measured.groups for p in g.products}


def choose(
    measured: Measurements,
    budgets: Sequence[Budget] = (),
    solver: str = "ilp",
    minimize: str | None = None,
    most_loss: float | None = None,
) -> Assignment:
    """The assignment of the least predicted loss within all budgets.

    Args:
        measured: by `measure`.
        budgets: on costs; metrics are handled by `metric`, which ends here with `most_loss`.
        solver: row of SOLVERS.
        minimize: a cost to minimise instead of the loss.
        most_loss: limit on the predicted loss.

    Raises:
        UsageError: no assignment is within all budgets; the line names the one that binds and what could be met.
    """
    problem = make_problem(measured, budgets, minimize, most_loss)
    found = solve(problem, solver)
    if found is None:
        raise infeasible(measured, problem, budgets)
    return assignment(measured, found)


def assignment(measured: Measurements, choice: Array) -> Assignment:
    """A choice [groups] with its costs."""
    chosen = {g.name: measured.candidates[c] for g, c in zip(measured.groups, choice, strict=True)}
    costs = {
        name: measured.offset(name) + sum(measured.cost(name, g, chosen[g.name]) for g in measured.groups)
        for name in measured.costs
    }
    shares = {name: cost / max(measured.reference(name), 1e-30) for name, cost in costs.items()}
    loss = sum(measured.loss[g.name][str(chosen[g.name])] for g in measured.groups)
    return Assignment(chosen, float(loss), costs, shares)


def make_problem(
    measured: Measurements,
    budgets: Sequence[Budget] = (),
    minimize: str | None = None,
    most_loss: float | None = None,
) -> Problem:
    """The numbers of a choice; what a cost has whatever is chosen is taken off its limit."""
    loss = np.array([[measured.loss[g.name].get(str(c), np.inf) for c in measured.candidates] for g in measured.groups])
    names = dict.fromkeys([b.name for b in budgets] + ([minimize] if minimize else []))
    costs = {
        n: np.array([[measured.cost(n, g, c) for c in measured.candidates] for g in measured.groups]) for n in names
    }
    limits = {b.name: b.limit(measured) - measured.offset(b.name) for b in budgets}
    aim = loss
    if minimize is not None:
        # Of equal costs the one of the least loss: a millionth of the smallest step decides nothing else.
        tie = loss / max(float(np.nanmax(np.where(np.isfinite(loss), loss, np.nan))), 1e-300)
        aim = np.where(np.isfinite(loss), costs[minimize], np.inf) + tie * 1e-9 * max(
            float(costs[minimize].max()), 1e-30
        )
    if most_loss is not None:
        costs[LOSS], limits[LOSS] = np.where(np.isfinite(loss), loss, 0.0), most_loss
    bits = np.array([c.precision.weights for c in measured.candidates])
    activations = np.array([c.precision.activations for c in measured.candidates])
    return Problem(aim, costs, limits, bits, activations)


def infeasible(measured: Measurements, problem: Problem, budgets: Sequence[Budget]) -> UsageError:
    """Names the budget that is missed by the least when the others are met, and the least that it could be.

    A budget that cannot be met even alone is named first.
    """
    alone = {b.name: problem.cost(b.name, problem.least(b.name)) for b in budgets}
    for budget in budgets:
        if not problem.fits_alone(budget.name, alone[budget.name]):
            return _cannot(measured, budget, alone[budget.name], problem.least(budget.name), "")
    best: tuple[float, Budget, float] | None = None
    for budget in budgets:
        least = least_cost(problem, budget.name)
        if least is not None:
            excess = least / max(problem.limits[budget.name], 1e-30)
            best = (excess, budget, least) if best is None or excess < best[0] else best
    if best is None:
        text = ", ".join(map(str, budgets)) or "the limit on the loss"
        return UsageError("budgets", f"infeasible because {text} cannot be met together", "loosen two of them")
    others = " and ".join(str(b) for b in budgets if b is not best[1])
    return _cannot(measured, best[1], best[2], None, f" with {others}" if others else "")


def _cannot(measured: Measurements, budget: Budget, least: float, at: Array | None, beside: str) -> UsageError:
    told = budget.tell(measured, least + measured.offset(budget.name))
    cause = f"infeasible because {budget} cannot be met{beside}: the least is {told}"
    if at is not None:
        shares = assignment(measured, at).shares
        rest = [f"{name}={share:.3g}" for name, share in shares.items() if name != budget.name]
        cause += f", at {' and '.join(rest)}" if rest else ""
    return UsageError("budgets", cause, f"give {budget.name}={told} or more")
