"""Rounding as something that gradients can move: what AdaRound, FlexRound and the tuning of scales have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from mulshift.passes.rounding.adam import Adam
from mulshift.passes.rounding.problem import Problem, Solution

if TYPE_CHECKING:
    import torch


class Relaxation(ABC):
    """Weights of one layer as a differentiable function of parameters. Progress runs from 0 to 1."""

    rate: float
    """Step of Adam."""

    @abstractmethod
    def parameters(self) -> list[torch.Tensor]:
        """What Adam moves; float32 leaves that require gradients."""

    @abstractmethod
    def weights(self, progress: float) -> torch.Tensor:
        """float32 [groups, outputs, K]."""

    def penalty(self, progress: float) -> torch.Tensor | float:
        """What is added to the loss, per output, in units of one squared step of one weight."""
        return 0.0

    @abstractmethod
    def solution(self) -> Solution:
        """The integers and scales that the parameters have come to."""


class FrozenIntegers(Relaxation):
    """Integers that stay, one factor of the scales an output that learns: `a s q`, `a = exp(p)`."""

    def __init__(self, found: Solution, rate: float = 1e-3) -> None:
        import torch

        self.rate = rate
        self._found = found
        self._fixed = found.weights.float()
        self._p = torch.zeros(*found.q.shape[:2], 1, requires_grad=True)

    def parameters(self) -> list[torch.Tensor]:
        return [self._p]

    def weights(self, progress: float) -> torch.Tensor:
        return self._fixed * self._p.exp()

    def solution(self) -> Solution:
        return Solution(self._found.q, self._found.scale * self._p.detach().double().exp())


def minimise(relaxation: Relaxation, problem: Problem, iterations: int) -> Solution:
    """Adam on the layer's quadratic error, in units of the steps of its grid, plus the penalty.

    The whole of the data is in H, so that there are no batches and nothing is drawn.
    """
    target, energy = problem.target.float(), problem.energy
    mean = energy.diagonal(dim1=1, dim2=2).mean(dim=1).clamp_min(1e-30)
    energy = (energy / mean[:, None, None]).float()
    units = problem.scale.float().pow(2).mean(dim=2)
    adam = Adam([(tensor, relaxation.rate) for tensor in relaxation.parameters()])
    for i in range(iterations):
        progress = i / max(iterations - 1, 1)
        d = target - relaxation.weights(progress)
        error = ((d @ energy) * d).sum(dim=2) / units
        adam.step(error.sum() + relaxation.penalty(progress))
    return relaxation.solution()
