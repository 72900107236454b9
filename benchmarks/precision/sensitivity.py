"""Each sensitivity held against measured loss on labelled data: `python benchmarks/precision/sensitivity.py MODEL`.

The loss (cross-entropy, or squared error of the similarity of sentences) is measured with one group alone at each
candidate. Prints one JSON object: Spearman's rank correlation of prediction and increase over all groups and
candidates, and the seconds of each sensitivity.
`--quick` scores less data and fewer candidates.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(1, str(Path(__file__).resolve().parent))
from cases import Case, case
from prepared import Prepared, prepare

from mulshift.determinism import one_torch_thread
from mulshift.passes.allocation.metric import Simulation, ranges_of

CANDIDATES = {True: ("w4a8", "w2a8"), False: ("w8a8", "w4a8", "w2a8")}
ROWS = {True: 60, False: 400}
"""Images or pairs of sentences that losses are measured on."""
SENSITIVITIES = {True: ("gradient", "hessian"), False: ("gradient", "hessian", "kl", "sqnr")}


def increases(ready: Prepared, given: Case, quick: bool) -> dict[tuple[str, str], float]:
    """(group, candidate) -> loss less that of the float model, on the same rows."""
    import torch

    measured = ready.measured()
    products = [p for g in measured.groups for p in g.products]
    simulation = Simulation(ready.graph, measured.groups, ranges_of(ready.graph.graph, products))

    def loss(assignment: dict[str, Any]) -> float:
        interpreter, observe = simulation.interpreter(assignment), simulation.observer(assignment)
        outputs = [next(iter(interpreter.run(f, observe).values())).numpy() for f in given.scored]
        return ready.case.loss(outputs)

    with torch.no_grad(), one_torch_thread():
        base = loss({})
        wanted = [c for c in measured.candidates if str(c) in CANDIDATES[quick]]
        return {(g.name, str(c)): loss({g.name: c}) - base for g in measured.groups for c in wanted}


def main() -> None:
    from scipy.stats import spearmanr

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", choices=("efficientnet-lite0", "resnet20", "minilm"))
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    given = case(options.model, ROWS[options.quick])
    ready = prepare(given, options.quick)
    truth = increases(ready, given, options.quick)
    found: dict[str, Any] = {}
    for name in SENSITIVITIES[options.quick]:
        start = time.perf_counter()
        loss = ready.measured(name).loss
        pairs = [(loss[group][candidate], increase) for (group, candidate), increase in truth.items()]
        rank = float(spearmanr(*zip(*pairs, strict=True)).statistic)
        found[name] = {"rank_correlation": rank, "seconds": round(time.perf_counter() - start, 1)}
    print(json.dumps({"model": given.name, "pairs": len(truth), "sensitivities": found}))


if __name__ == "__main__":
    main()
