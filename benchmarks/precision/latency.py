"""Predicted against measured latency of mixed models: `python benchmarks/precision/latency.py MODEL [--quick]`.

The prediction is the measured 8-bit model, less its kernels, plus the kernels of the chosen bits, each timed alone
(`mulshift profile`). Prints one JSON object: for each assignment milliseconds predicted and measured, and the error.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(1, str(Path(__file__).resolve().parent))
from cases import Case, case
from prepared import kept_graph, prepare

import mulshift
from mulshift.ir import Level, UsageError, load
from mulshift.kernel_profile import Profile, profile_integer, quick_recipe, time_model
from mulshift.passes.allocation.budget import parse_budgets
from mulshift.passes.allocation.choice import Assignment, choose
from mulshift.passes.allocation.groups import integer_names
from mulshift.passes.pipeline import Pipeline
from mulshift.single_nodes import Form, with_weights_of

BUDGETS = ("size=0.75", "size=0.6", "size=0.5", "latency=0.95", "latency=0.9")
FORMS = (Form(), Form(4))
SECONDS = {True: 0.1, False: 0.4}
"""Of timing, for each kind of node."""
MODEL_SECONDS, TURNS = {True: 3.0, False: 5.0}, 10
"""Of each whole model, in turns, so that what else the machine does hits all alike."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", choices=("efficientnet-lite0", "resnet20", "minilm"))
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    seconds, given = SECONDS[options.quick], case(options.model, 1)
    ready = prepare(given, options.quick)
    graph, feeds = kept_graph(f"integer-{given.name}", given, lambda: _integer(given)), given.calibration[0]
    products = {new: old for old, new in integer_names(ready.graph.graph).items()}
    timed = profile_integer(graph, feeds, products, options.threads, seconds, FORMS)
    measured = ready.measured()
    rows: dict[str, Assignment | str] = {
        budget: _row(measured, timed, budget) for budget in (BUDGETS[:3] if options.quick else BUDGETS)
    }
    artifacts = {"8 bits": mulshift.lower(graph, "onnxruntime")}
    for budget, row in rows.items():
        if isinstance(row, Assignment):
            forms = {name: Form(bits) for name, bits in ready.integer_bits(measured, row).items()}
            artifacts[budget] = mulshift.lower(with_weights_of(graph, forms), "onnxruntime")
    real = dict.fromkeys(artifacts, float("inf"))
    for _ in range(TURNS):
        for name, artifact in artifacts.items():
            real[name] = min(
                real[name], time_model(artifact, feeds, options.threads, MODEL_SECONDS[options.quick] / TURNS)
            )
    names = {p.name for p in timed.products}
    wanted = [p.name for g in measured.groups for p in g.products]
    print(
        json.dumps(
            {
                "model": given.name,
                "machine": timed.machine,
                "products": len(wanted),
                "timed": sum(name in names for name in wanted),
                "model_ms": real["8 bits"] * 1e3,
                "rows": [_told(budget, row, real, timed) for budget, row in rows.items()],
            }
        )
    )


def _integer(given: Case) -> Any:
    made = Pipeline(quick_recipe(given.recipe), checked=0).run(load(given.path), given.calibration[:8])
    return made.levels[Level.INTEGER]


def _told(budget: str, row: Assignment | str, real: dict[str, float], timed: Profile) -> dict[str, Any]:
    """The 8-bit model counts as measured in the turns of the mixed ones: a busy machine slows both."""
    if isinstance(row, str):
        return {"budget": budget, "infeasible": row}
    predicted = row.costs["latency"] - timed.model + real["8 bits"]
    return {
        "budget": budget,
        "predicted_ms": predicted * 1e3,
        "measured_ms": real[budget] * 1e3,
        "error": abs(predicted / real[budget] - 1),
        "of_8_bits": real[budget] / real["8 bits"],
    }


def _row(measured: Any, timed: Profile, budget: str) -> Assignment | str:
    from dataclasses import replace

    known = replace(measured, latencies=timed.latencies(measured.candidates))
    try:
        return choose(known, parse_budgets([budget]))
    except UsageError as e:
        return str(e)


if __name__ == "__main__":
    main()
