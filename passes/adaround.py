"""adaround: each weight up or down, by gradient descent on a relaxed choice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from mulshift.passes.rounding.base import RoundingPass
from mulshift.passes.rounding.problem import Problem, Solution
from mulshift.passes.rounding.relaxation import Relaxation, minimise

if TYPE_CHECKING:
    import torch

ZETA, GAMMA = 1.1, -0.1
"""The sigmoid is stretched to this range and clipped to [0, 1]."""
BETA = (20.0, 2.0)
"""Exponent of the penalty, at the end of the warm-up and at the end."""
WARM_UP = 0.2
"""Share of the iterations without a penalty."""


@dataclass
class AdaRound(RoundingPass):
    """Nagel et al. 2020 (arXiv:2004.10568): `s (floor(t / s) + h(V))`, `h(V) = clip(1.2 sigmoid(V) - 0.1, 0, 1)`.

    V starts where h is the fraction of t / s; Adam moves it along the layer's quadratic error plus
    `strength * sum(1 - |2 h - 1|^beta)`, beta falling from 20 to 2, so that every h ends at 0 or 1. All data is in H,
    so each step sees all of it. With granularity "block", V then goes on with the block's error. Scales stay.

    Attributes:
        strength: of the penalty, beside squared errors in units of one step of one weight.
        rate: step of Adam on V.
    """

    name: ClassVar[str] = "adaround"
    iterations: int = 300
    strength: float = 0.05
    rate: float = 0.03

    def solve(self, problem: Problem) -> Solution:
        """V by Adam from the fractions."""
        return minimise(UpOrDown(problem, self.rate, self.strength), problem, self.iterations)

    def relax(self, problem: Problem, found: Solution) -> Relaxation:
        """V that starts at the layer's solution, softened."""
        relaxation = UpOrDown(problem, self.rate, self.strength)
        relaxation.start(0.25 + 0.5 * (found.q - relaxation.floor).clamp(0, 1))
        return relaxation


class UpOrDown(Relaxation):
    """The relaxed choice between floor and ceiling for one layer."""

    def __init__(self, problem: Problem, rate: float, strength: float) -> None:
        import torch

        grid = problem.grid
        self.rate, self._strength, self._grid, self._scale = rate, strength, grid, problem.scale
        ratio = problem.target / problem.scale
        self.floor = torch.floor(ratio).clamp_(grid.low, grid.high - 1)
        self._v = torch.zeros_like(ratio, dtype=torch.float32, requires_grad=True)
        self._base, self._step = self.floor.float(), problem.scale.float()
        self._kept = torch.ones_like(self._step) if problem.kept is None else problem.kept.float()
        self.start((ratio - self.floor).clamp(0, 1))

    def start(self, h: torch.Tensor) -> None:
        """Set V so that h(V) is this (inside the flat ends)."""
        import torch

        p = ((h - GAMMA) / (ZETA - GAMMA)).clamp(1e-3, 1 - 1e-3)
        with torch.no_grad():
            self._v.copy_(torch.log(p / (1 - p)))

    def parameters(self) -> list[torch.Tensor]:
        return [self._v]

    def weights(self, progress: float) -> torch.Tensor:
        return self._step * (self._base + self._h()) * self._kept

    def penalty(self, progress: float) -> torch.Tensor | float:
        if progress < WARM_UP:
            return 0.0
        beta = BETA[0] + (BETA[1] - BETA[0]) * (progress - WARM_UP) / (1 - WARM_UP)
        return self._strength * (1 - (2 * self._h() - 1).abs().pow(beta)).sum()

    def solution(self) -> Solution:
        q = self.floor + (self._h().detach() >= 0.5)
        return Solution(q.clamp_(self._grid.low, self._grid.high) * self._kept, self._scale)

    def _h(self) -> torch.Tensor:
        import torch

        return (torch.sigmoid(self._v) * (ZETA - GAMMA) + GAMMA).clamp(0, 1)
