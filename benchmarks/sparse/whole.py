"""Bits or zeros, whole models: `python benchmarks/sparse/whole.py MODEL [--quick] [--threads N]`.

The integer linear program chooses among 8-bit weights, dense, 2:4 and 2:4 shared, by measured error and by the
measured time of each kernel; layers whose sparse kernel is slower than its dense twin go back to dense, as `compile`
does it. The models are timed in turns with the dense 8-bit one; a copy of that among them tells how much turns differ
by themselves. Prints one JSON object: for each budget milliseconds, the ratio to dense, and how many layers are what.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(1, str(Path(__file__).resolve().parent.parent / "precision"))
from cases import case
from prepared import prepare

import mulshift
from mulshift.backends import Artifact
from mulshift.ir import Feeds, Level, UsageError, load
from mulshift.kernel_profile import profile_integer, quick_recipe, time_model
from mulshift.passes.allocation.budget import parse_budgets
from mulshift.passes.allocation.choice import Assignment, choose
from mulshift.passes.allocation.groups import integer_names
from mulshift.passes.allocation.measurements import Measurements
from mulshift.passes.pipeline import Pipeline
from mulshift.single_nodes import Form, with_weights_of
from mulshift.sparse_layers import compare, put_back, sparse_layers

CANDIDATES = ("w8a8", "w8a8:2:4", "w8a8:2:4:shared")
FORMS = (Form(), Form(8, "2:4"), Form(8, "2:4:shared"))
BUDGETS = {
    True: ("latency=0.8", "size=0.7"),
    False: ("latency=0.8", "latency=0.9", "latency=0.95", "size=0.8", "size=0.6"),
}
SECONDS = {True: 0.05, False: 0.4}
"""Of timing, for each kind of node."""
MODEL_SECONDS, TURNS = {True: 1.0, False: 5.0}, {True: 4, False: 10}
"""Of each whole model, in turns, so that what else the machine does hits all alike."""
SAMPLES = 2
"""That ranges come from: they decide no kernel."""
DENSE, AGAIN = "dense", "dense again"
ROOM = 1e-6
"""Of a budget that is set to the least that there is."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", choices=("efficientnet-lite0", "resnet20", "minilm"))
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    given, quick = case(options.model, 1), options.quick
    ready = prepare(given, quick)
    made = Pipeline(quick_recipe(given.recipe), checked=0).run(load(given.path), given.calibration[:SAMPLES])
    graph, feeds = made.levels[Level.INTEGER], given.calibration[0]
    names = integer_names(ready.graph.graph)
    timed = profile_integer(
        graph, feeds, {new: old for old, new in names.items()}, options.threads, SECONDS[quick], FORMS
    )
    measured = ready.measured(candidates=CANDIDATES)
    known = replace(measured, latencies=timed.latencies(measured.candidates))
    artifacts: dict[str, Artifact] = {name: mulshift.lower(graph, "onnxruntime") for name in (DENSE, AGAIN)}
    rows: dict[str, dict[str, Any]] = {}
    for budget in BUDGETS[quick]:
        chosen = nearest(known, budget)
        forms = {names[n]: Form.of(c) for n, c in chosen.products(known).items()}
        artifact, back = with_dense(with_weights_of(graph, forms), feeds, options.threads, SECONDS[quick])
        artifacts[budget] = artifact
        rows[budget] = {
            "budget": budget,
            "predicted": chosen.shares["latency"],
            "size": chosen.shares["size"],
            "chosen": dict(Counter(str(c) for c in chosen.chosen.values())),
            "sparse": len(sparse_layers(artifact.model.graph)),
            "put_back": back,
        }
    best = dict.fromkeys(artifacts, float("inf"))
    for _ in range(TURNS[quick]):
        for name, artifact in artifacts.items():
            took = time_model(artifact, feeds, options.threads, MODEL_SECONDS[quick] / TURNS[quick])
            best[name] = min(best[name], took)
    dense = min(best[DENSE], best[AGAIN])
    for budget, row in rows.items():
        row |= {"ms": best[budget] * 1e3, "ratio": best[budget] / dense}
    noise = max(best[DENSE], best[AGAIN]) / dense - 1
    found = {"model": given.name, "machine": timed.machine, "dense_ms": dense * 1e3, "noise": noise}
    print(json.dumps(found | {"rows": list(rows.values())}))


def nearest(measured: Measurements, budget: str) -> Assignment:
    """The choice within a budget, or within the least that there is of its cost."""
    try:
        return choose(measured, parse_budgets([budget]))
    except UsageError:
        (name,) = (b.name for b in parse_budgets([budget]))
        least = choose(measured, minimize=name).shares[name]
        return choose(measured, parse_budgets([f"{name}={least * (1 + ROOM)}"]))


def with_dense(integer: Any, feeds: Feeds, threads: int, seconds: float) -> tuple[Artifact, int]:
    """Lowered, with the sparse layers that are slower than their dense twins put back, and how many these were."""
    slower = [c.name for c in compare(integer, feeds, threads, seconds) if c.slower]
    put_back(integer.graph, slower)
    return mulshift.lower(integer, "onnxruntime"), len(slower)


if __name__ == "__main__":
    main()
