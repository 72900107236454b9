"""Each sensitivity held against measured loss on labelled data: `python benchmarks/precision/sensitivity.py MODEL`.

The loss (cross-entropy, or squared error of the similarity of sentences) is measured with one group alone at each
candidate. Prints one JSON object: Spearman's rank correlation of prediction and increase over all groups and
candidates, with the loss on labels, with the divergence from the float model, and with the noise of the outputs.
`--quick` scores less data and fewer candidates.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(1, str(Path(__file__).resolve().parent))
from cases import Case, case, sqnr
from prepared import Prepared, kept, prepare

from mulshift.determinism import one_torch_thread
from mulshift.passes.allocation.simulation import Simulation, ranges_of

CANDIDATES = {True: ("w4a8", "w2a8"), False: ("w8a8", "w4a8", "w2a8")}
ROWS = {
    "efficientnet-lite0": {True: 40, False: 200},
    "resnet20": {True: 200, False: 2000},
    "minilm": {True: 40, False: 400},
}
"""Images or pairs of sentences that losses are measured on."""
SENSITIVITIES = {True: ("gradient", "hessian"), False: ("gradient", "hessian", "kl", "sqnr")}


@dataclass(frozen=True)
class Truth:
    """What one group alone at one candidate does.

    Attributes:
        loss: increase of the loss on labels; small changes may lower it by chance.
        divergence: of what the score is made from (`Case.divergence`), the increase that labels would show on average
            if they were drawn from the float model.
        noise: relative squared error of the outputs.
    """

    loss: float
    divergence: float
    noise: float


def measure(ready: Prepared, given: Case, quick: bool) -> dict[tuple[str, str], Truth]:
    """(group, candidate) -> change against the float model on the same rows."""
    import torch

    measured = ready.measured()
    products = [p for g in measured.groups for p in g.products]
    simulation = Simulation(ready.graph, measured.groups, ranges_of(ready.graph.graph, products))

    def outputs(assignment: dict[str, Any]) -> list[np.ndarray]:
        interpreter, observe = simulation.interpreter(assignment), simulation.observer(assignment)
        return [next(iter(interpreter.run(f, observe).values())).numpy() for f in given.scored]

    found = {}
    with torch.no_grad(), one_torch_thread():
        base = outputs({})
        wanted = [c for c in measured.candidates if str(c) in CANDIDATES[quick]]
        for group in measured.groups:
            for candidate in wanted:
                got = outputs({group.name: candidate})
                loss = given.loss(got) - given.loss(base)
                noise = 10 ** (-sqnr(base, got) / 10)
                found[group.name, str(candidate)] = Truth(loss, given.divergence(base, got), noise)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", choices=("efficientnet-lite0", "resnet20", "minilm"))
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    name = f"sensitivity-{options.model}{'-quick' * options.quick}"
    print(kept(name, vars(options), lambda: correlations(options.model, options.quick)))


def correlations(model: str, quick: bool) -> dict[str, Any]:
    """The whole object."""
    from scipy.stats import spearmanr

    given = case(model, ROWS[model][quick])
    ready = prepare(given, quick)
    truth = measure(ready, given, quick)
    found: dict[str, dict[str, float]] = {}
    for name in SENSITIVITIES[quick]:
        loss = ready.measured(name).loss
        predicted = [loss[group][candidate] for group, candidate in truth]
        found[name] = {
            kind: float(spearmanr(predicted, [getattr(t, kind) for t in truth.values()]).statistic)
            for kind in ("loss", "divergence", "noise")
        }
    return {"model": given.name, "pairs": len(truth), "rank_correlation": found}


if __name__ == "__main__":
    main()
