"""sqnr and kl: what the outputs become when one group alone is rounded. One run a group, candidate and sample."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from mulshift.passes.allocation.job import Bench
from mulshift.passes.allocation.sensitivity.base import EachGroup

if TYPE_CHECKING:
    import torch


class OutputChange(EachGroup):
    """Mean over samples and outputs of a distance from the float outputs."""

    def run(self, bench: Bench, task: str) -> Any:
        """Candidate -> distance, for one group."""
        import torch

        row: dict[str, float] = {}
        with torch.no_grad():
            group = next(g for g in bench.job.groups if g.name == task)
            for candidate in bench.job.of(group):
                observe = bench.simulation.observer({task: candidate})
                interpreter = bench.simulation.interpreter({task: candidate})
                total, count = 0.0, 0
                for index in range(bench.job.samples):
                    expected = bench.outputs(index)
                    got = interpreter.run(bench.sample(index), observe)
                    for name, tensor in expected.items():
                        total, count = total + self.distance(tensor, got[name]), count + 1
                row[str(candidate)] = total / max(count, 1)
        return row

    @abstractmethod
    def distance(self, expected: torch.Tensor, got: torch.Tensor) -> float:
        """Of one output on one sample; not negative."""


class Sqnr(OutputChange):
    """`|y' - y|^2 / |y|^2`, the inverse of the SQNR."""

    name: ClassVar[str] = "sqnr"

    def distance(self, expected: torch.Tensor, got: torch.Tensor) -> float:
        """Relative energy of the difference."""
        energy = float((expected.double() ** 2).sum())
        noise = float(((expected.double() - got.double()) ** 2).sum())
        return noise / max(energy, 1e-30)


class Kl(OutputChange):
    """`sum p log(p / p')` of the softmax over the last axis, mean over rows; for outputs that are logits."""

    name: ClassVar[str] = "kl"

    def distance(self, expected: torch.Tensor, got: torch.Tensor) -> float:
        """In nats; rounding in the last bit of float64 may not make it negative."""
        import torch

        if not expected.ndim or not expected.numel():
            return 0.0
        p, q = (torch.log_softmax(t.double(), dim=-1) for t in (expected, got))
        divergence = (p.exp() * (p - q)).sum(dim=-1)
        return max(float(divergence.mean()), 0.0)
