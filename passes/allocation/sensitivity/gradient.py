"""gradient: the change of a product's output, weighted by the gradient there. One backward pass a sample."""

from __future__ import annotations

from typing import Any, ClassVar

from mulshift.passes.allocation.candidates import Candidate
from mulshift.passes.allocation.groups import Group, Product
from mulshift.passes.allocation.job import Bench
from mulshift.passes.allocation.sensitivity.base import EachSample
from mulshift.passes.allocation.sensitivity.probing import Probed, by_group, probe


class Gradient(EachSample):
    """`E (sum over the group's products of g^T dz)^2`, dz the real change of the output z under the candidate:

        dz = P(Q_a(x), Q_w(w)) - P(x, w)

    The relative error of the outputs to first order, all correlations inside dz and between tied layers kept. The
    empirical Fisher information of Optimal Brain Surgeon (Hassibi & Stork 1992), taken at outputs instead of weights.
    """

    name: ClassVar[str] = "gradient"

    def run(self, bench: Bench, task: str) -> Any:
        """A table for one sample."""
        found = probe(bench, int(task), with_weights=False)
        return by_group(bench, lambda group, candidate: _error(bench, found, group, candidate))


def _error(bench: Bench, found: Probed, group: Group, candidate: Candidate) -> float:
    import torch

    sums: list[Any] = [0.0] * bench.job.probes
    with torch.no_grad():
        for product in group.products:
            change = _change(bench, found, product, candidate)
            for i, gradient in enumerate(found.grads[product.name]):
                sums[i] = sums[i] + _rows(gradient * change, found.rows)
    return sum(float((s**2).sum()) for s in sums) / len(sums)


def _change(bench: Bench, found: Probed, product: Product, candidate: Candidate) -> Any:
    import torch

    simulation = bench.simulation
    node, x = simulation.nodes[product.name], found.reads[product.name]
    evaluate = simulation.evaluator.evaluate
    w = torch.tensor(simulation.weight(product, candidate))
    w = w if node.inputs[1] is None or node.inputs[1].producer() is None else w.T  # behind a Transpose
    others = [None if v is None else simulation.constant(v) for v in node.inputs[2:]]
    values = [simulation.activation(product.name, x, candidate.precision.activations), w, *others]
    return evaluate(node, values, simulation.constant)[0] - found.makes[product.name]


def _rows(terms: Any, rows: int) -> Any:
    """Sums over all but the rows of the batch, float64; over everything where the first axis is no batch."""
    wide = terms.double()
    return wide.reshape(rows, -1).sum(1) if wide.ndim and wide.shape[0] % rows == 0 else wide.sum().reshape(1)
