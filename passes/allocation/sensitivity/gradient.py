"""gradient: the change of a product's output, weighted by the gradient there. One backward pass a sample."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from mulshift.passes.allocation.candidates import Candidate
from mulshift.passes.allocation.groups import Group, Product
from mulshift.passes.allocation.job import Bench
from mulshift.passes.allocation.sensitivity.base import EachSample
from mulshift.passes.allocation.sensitivity.probing import Probe, by_group, mean_tables, probe


class Gradient(EachSample):
    """`E (sum over the group's products of g^T dz)^2`, dz the real change of the output z under the candidate:

        dz = P(Q_a(x), Q_w(w)) - P(x, w)

    The relative error of the outputs to first order, all correlations inside dz and between tied layers kept. The
    empirical Fisher information of Optimal Brain Surgeon (Hassibi & Stork 1992), taken at outputs instead of weights.
    """

    name: ClassVar[str] = "gradient"
    note: ClassVar[str] = "output error to first order, one backward pass a sample"

    def run(self, bench: Bench, task: str) -> Any:
        """A table for one sample."""
        return mean_tables([by_group(bench, lambda g, c, p=p: _error(bench, p, g, c)) for p in _probes(bench, task)])


def _probes(bench: Bench, task: str) -> Sequence[Probe]:
    return list(probe(bench, int(task), with_weights=False))


def _error(bench: Bench, found: Probe, group: Group, candidate: Candidate) -> float:
    import torch

    total: Any = 0.0
    for product in group.products:
        if product.name in found.grads:
            with torch.no_grad():
                total = total + _rows(found.grads[product.name] * _change(bench, found, product, candidate), found.rows)
    return 0.0 if isinstance(total, float) else float((total**2).sum())


def _change(bench: Bench, found: Probe, product: Product, candidate: Candidate) -> Any:
    import torch

    simulation = bench.simulation
    node, x = simulation.nodes[product.name], found.reads[product.name]
    evaluate = simulation.evaluator.evaluate
    w = torch.tensor(simulation.weight(product, candidate))
    w = w if node.inputs[1] is None or node.inputs[1].producer() is None else w.T  # behind a Transpose
    others = [None if v is None else simulation.constant(v) for v in node.inputs[2:]]
    values = [simulation.activation(product.name, x, candidate.precision.activations), w, *others]
    return evaluate(node, values, simulation.constant)[0] - found.makes[product.name]


def _rows(product: Any, rows: int) -> Any:
    """Sums over all but the rows of the batch, float64; over everything where the first axis is no batch."""
    wide = product.double()
    return wide.reshape(rows, -1).sum(1) if wide.ndim and wide.shape[0] % rows == 0 else wide.sum().reshape(1)
