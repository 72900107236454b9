"""Budgets on a metric, as `top1=-1.0`: how much loss it allows is learned from a few assignments, then checked.

The predicted loss orders assignments; what a loss of so much costs in accuracy only labelled data can tell. So a few
assignments of the front are simulated and evaluated, the metric is a monotone, piecewise linear function of the loss
through them, and the largest loss that it allows becomes a limit. The answer is evaluated itself; while it misses the
budget it joins the points and the limit falls.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import onnx_ir as ir

from mulshift.ir import Array, Feeds, UsageError
from mulshift.passes.allocation.budget import Budget
from mulshift.passes.allocation.choice import Assignment, choose
from mulshift.passes.allocation.front import pareto
from mulshift.passes.allocation.measurements import Measurements
from mulshift.passes.allocation.simulation import Simulation, ranges_of

Runner: TypeAlias = Callable[[Feeds], dict[str, Array]]
"""Outputs of a model, by name, for one feed."""
Evaluate: TypeAlias = Callable[[Runner], Mapping[str, float]]
"""Metrics on labelled data, name -> value, given what runs the model; larger is better."""
FIRST_POINTS, MOST_ROUNDS = 5, 6


def simulated(model: ir.Model, measured: Measurements, assignment: Assignment | None) -> Runner:
    """Runs the float model with its products rounded as assigned, or as it is."""
    import torch

    products = [p for g in measured.groups for p in g.products]
    simulation = Simulation(model, measured.groups, ranges_of(model.graph, products))
    chosen = {} if assignment is None else dict(assignment.chosen)
    interpreter, observe = simulation.interpreter(chosen), simulation.observer(chosen)

    def run(feeds: Feeds) -> dict[str, Array]:
        with torch.no_grad():
            made: dict[str, Any] = interpreter.run(feeds, observe)
        return {name: tensor.numpy() for name, tensor in made.items()}

    return run


def within_metrics(
    model: ir.Model,
    measured: Measurements,
    budgets: Sequence[Budget],
    evaluate: Evaluate,
    solver: str = "ilp",
    minimize: str = "size",
) -> Assignment:
    """An assignment whose evaluated metrics keep their budgets.

    With budgets on costs too, the predicted loss is minimised, as ever, and the metrics are checked; without, the cost
    `minimize` is.

    Raises:
        UsageError: the best assignment within the other budgets misses a metric; the line says by how much.
    """
    costs = [b for b in budgets if not b.is_metric]
    metrics = [b for b in budgets if b.is_metric]
    base = evaluate(simulated(model, measured, None))

    for budget in metrics:
        if budget.name not in base:
            raise UsageError(f"budget '{budget}'", f"no metric '{budget.name}'", f"there is {', '.join(base)}")

    def change(found: Assignment) -> dict[str, float]:
        got = evaluate(simulated(model, measured, found))
        return {b.name: float(got[b.name]) - float(base[b.name]) for b in metrics}

    if costs:
        return _checked(choose(measured, costs, solver), metrics, change)
    return _cheapest(measured, metrics, change, solver, minimize)


def _checked(
    found: Assignment, metrics: Sequence[Budget], change: Callable[[Assignment], dict[str, float]]
) -> Assignment:
    changes = change(found)
    for budget in metrics:
        if changes[budget.name] < budget.value:
            got = changes[budget.name]
            cause = f"infeasible because {budget} cannot be met: the best found reaches {budget.name}={got:.3g}"
            told = ", ".join(f"{name}={share:.3g}" for name, share in found.shares.items())
            raise UsageError("budgets", f"{cause}, at {told}", "loosen it or another one")
    return found


def _cheapest(
    measured: Measurements,
    metrics: Sequence[Budget],
    change: Callable[[Assignment], dict[str, float]],
    solver: str,
    minimize: str,
) -> Assignment:
    best = choose(measured, (), solver)
    points = [(best.loss, change(_checked(best, metrics, change)))]
    points += [(p.loss, change(p.assignment)) for p in pareto(measured, minimize, (), solver, FIRST_POINTS)]
    found = best
    for _ in range(MOST_ROUNDS):
        limit = max(min(allowed_loss([(loss, c[b.name]) for loss, c in points], b.value) for b in metrics), best.loss)
        found = choose(measured, (), "ilp", minimize, limit)
        changes = change(found)
        if all(changes[b.name] >= b.value for b in metrics):
            return found
        points.append((found.loss, changes))
    return best


def allowed_loss(points: Sequence[tuple[float, float]], least: float) -> float:
    """The largest loss at which the change of the metric is still `least`, by a falling piecewise linear fit.

    Args:
        points: (loss, change); the fit passes through (0, 0).
        least: not positive, as -1.0.
    """
    order = sorted([(0.0, 0.0), *points])
    loss = np.array([p[0] for p in order])
    change = np.minimum.accumulate(np.array([p[1] for p in order]))
    good = change >= least
    if good.all():
        return float(loss[-1])
    bad = int(np.argmin(good))
    if bad == 0:
        return 0.0
    span = change[bad - 1] - change[bad]
    return float(loss[bad - 1] + (loss[bad] - loss[bad - 1]) * (change[bad - 1] - least) / span)
