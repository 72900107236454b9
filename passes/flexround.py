"""flexround: rounding moved by dividing the weights by what is learned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from mulshift.passes.rounding.base import RoundingPass
from mulshift.passes.rounding.problem import Problem, Solution
from mulshift.passes.rounding.relaxation import Relaxation, minimise

if TYPE_CHECKING:
    import torch


@dataclass
class FlexRound(RoundingPass):
    """Lee et al. 2023 (arXiv:2306.00317): `a s round(t / (a s * S2 * s3 * s4))`, all factors learned, from 1.

    a and s3 are one number an output channel, s4 one an input, S2 one a weight: a weight may end further than one step
    from where it was, and large ones move more. Gradients pass the rounding straight through. Granularity "block"
    goes on with the block's error. The scale moves (a).

    Attributes:
        rate: step of Adam on the logarithms of the factors.
    """

    name: ClassVar[str] = "flexround"
    iterations: int = 300
    rate: float = 3e-3

    def solve(self, problem: Problem) -> Solution:
        """The factors by Adam; rounding to nearest for an output that gained nothing."""
        import torch

        found = minimise(Division(problem, self.rate), problem, self.iterations)
        plain = Solution(problem.round(problem.target / problem.scale), problem.scale)
        better = (problem.error(found.weights) < problem.error(plain.weights))[:, :, None]
        return Solution(torch.where(better, found.q, plain.q), torch.where(better, found.scale, plain.scale))

    def relax(self, problem: Problem, found: Solution) -> Relaxation:
        """Factors that start at the layer's solution."""
        return Division(problem, self.rate, found)


class Division(Relaxation):
    """The learned division for one layer; with `found`, one that begins there."""

    def __init__(self, problem: Problem, rate: float, found: Solution | None = None) -> None:
        import torch

        self.rate, self._grid = rate, problem.grid
        start = Solution(problem.target / problem.scale, problem.scale) if found is None else found
        self._ratio, self._scale = start.q.float(), start.scale
        self._step = self._scale.float()
        groups, outputs, inputs = self._ratio.shape
        shapes = ((groups, outputs, 1), (groups, outputs, inputs), (groups, outputs, 1), (groups, 1, inputs))
        self._logs = [torch.zeros(shape, requires_grad=True) for shape in shapes]

    def parameters(self) -> list[torch.Tensor]:
        return self._logs

    def weights(self, progress: float) -> torch.Tensor:
        inside = (self._ratio * self._factor()).clamp(self._grid.low, self._grid.high)
        q = inside + (self._grid.round(inside) - inside).detach()
        return self._step * self._logs[0].exp() * q

    def solution(self) -> Solution:
        a, q = self._logs[0].detach().exp(), self._grid.round(self._ratio * self._factor().detach())
        return Solution(q.double(), self._scale * a.double())

    def _factor(self) -> torch.Tensor:
        a, each, output, inputs = self._logs
        return (-(a + each + output + inputs)).exp()
