"""hessian: mean curvature of a layer's weights times the squared error of rounding them (HAWQ-V2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from mulshift.passes.allocation.candidates import Candidate
from mulshift.passes.allocation.groups import Group
from mulshift.passes.allocation.job import Bench
from mulshift.passes.allocation.sensitivity.base import EachSample
from mulshift.passes.allocation.sensitivity.probing import Probed, by_group, probe


class Hessian(EachSample):
    """`tr(H) / n * |Q(w) - w|^2` (Dong et al. 2020, HAWQ-V2, arXiv:1911.03852), the same for what the layer reads.

    H is the Hessian of the relative squared error of the outputs, its trace by Hutchinson's estimator:
    `tr(H) = E |dL/dw|^2` (`probing`). n is the number of weights.
    """

    name: ClassVar[str] = "hessian"
    sees_outputs: ClassVar[bool] = False

    def run(self, bench: Bench, task: str) -> Any:
        """A table for one sample."""
        found = probe(bench, int(task), with_weights=True)
        return by_group(bench, lambda group, candidate: _error(bench, found, group, candidate))


def _error(bench: Bench, found: Probed, group: Group, candidate: Candidate) -> float:
    import torch

    simulation, total = bench.simulation, 0.0
    with torch.no_grad():
        for name, product in group.weights().items():
            tensor = bench.model.graph.initializers[name].const_value
            assert tensor is not None
            change = torch.tensor(simulation.weight(product, candidate)) - torch.from_numpy(tensor.numpy().copy())
            total += _curvature(found.weight_grads[name]) * float((change.double() ** 2).sum())
        for product in group.products:
            x = found.reads[product.name]
            change = simulation.activation(product.name, x, candidate.precision.activations) - x
            total += _curvature(found.read_grads[product.name]) * float((change.double() ** 2).sum())
    return total


def _curvature(gradients: Sequence[Any]) -> float:
    """`E |dL/dv|^2 / n` over the random vectors."""
    return sum(float((g.double() ** 2).mean()) for g in gradients if g.numel()) / len(gradients)
