"""Solvers beside each other at equal budgets on one model: `python benchmarks/precision/allocation.py MODEL`.

MODEL is efficientnet-lite0, resnet20 or minilm. Prints one JSON object; `dominates` tells, for each budget and rival,
whether the ILP's model is no larger and at least as good in the metric and in SQNR. `--quick` scores less data and
leaves out rivals; `--simulate` rounds in the interpreter instead of making artifacts. What was measured and scored
before, by the same sources, is taken from build/.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(1, str(Path(__file__).resolve().parent))
from cases import QUICK, Case, case, float_run, sqnr
from prepared import CANDIDATES, Prepared, kept, prepare

from mulshift.passes.allocation.budget import parse_budgets
from mulshift.passes.allocation.choice import choose

BUDGETS = (0.6, 0.5)
RIVALS = ("greedy", "uniform", "in-order", "baq", "zeroq")
QUICK_RIVALS = ("greedy", "uniform")
EQUAL = {"metric": 1e-9, "sqnr": 0.01}
"""What counts as no difference: dB are told with two decimals."""


def rows(
    ready: Prepared, expected: list[Any], solvers: tuple[str, ...], sensitivity: str, simulate: bool
) -> list[dict[str, Any]]:
    """One a budget and solver; equal assignments are scored once."""
    measured = ready.measured(sensitivity)
    scores: dict[tuple[str, ...], dict[str, float]] = {}
    found = []
    for budget in BUDGETS:
        for solver in solvers:
            start = time.perf_counter()
            chosen = choose(measured, parse_budgets([f"size={budget}"]), solver)
            seconds = time.perf_counter() - start
            key = tuple(map(str, chosen.chosen.values()))
            if key not in scores:
                run = (ready.simulation if simulate else ready.artifact)(measured, chosen)
                outputs = ready.case.outputs(run)
                scores[key] = {"metric": ready.case.score(outputs), "sqnr": sqnr(expected, outputs)}
            found.append(
                {
                    "budget": budget,
                    "solver": solver,
                    "share": chosen.shares["size"],
                    "predicted_loss": chosen.loss,
                    "seconds": round(seconds, 3),
                    "groups": dict(Counter(key)),
                    **scores[key],
                }
            )
    return found


def dominates(found: list[dict[str, Any]]) -> dict[str, dict[str, bool]]:
    """Budget -> rival -> whether the ILP is at least as good in everything."""
    result: dict[str, dict[str, bool]] = {}
    for budget in BUDGETS:
        at = {row["solver"]: row for row in found if row["budget"] == budget}
        best = at.pop("ilp")
        result[str(budget)] = {
            name: all(best[k] >= row[k] - slack for k, slack in EQUAL.items()) and (best["share"] <= budget + 1e-9)
            for name, row in at.items()
        }
    return result


def measure(given: Case, quick: bool, sensitivity: str, simulate: bool) -> dict[str, Any]:
    """The whole object."""
    expected = given.outputs(float_run(given.path))
    solvers = ("ilp", *(QUICK_RIVALS if quick else RIVALS))
    found = rows(prepare(given, quick), expected, solvers, sensitivity, simulate)
    return {
        "model": given.name,
        "metric": given.metric,
        "candidates": CANDIDATES,
        "sensitivity": sensitivity,
        "form": "simulation" if simulate else "integer artifact",
        "float": given.score(expected),
        "rows": found,
        "dominates": dominates(found),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", choices=("efficientnet-lite0", "resnet20", "minilm"))
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--simulate", action="store_true")
    parser.add_argument("--sensitivity", default="sqnr")
    options = parser.parse_args()

    count = QUICK[options.model] * options.quick
    name = f"allocation-{options.model}{'-quick' * options.quick}"
    print(
        kept(
            name,
            vars(options),
            lambda: measure(case(options.model, count), options.quick, options.sensitivity, options.simulate),
        )
    )


if __name__ == "__main__":
    main()
