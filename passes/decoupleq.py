"""decoupleq: integers and scales in turns, each the best for the other."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from mulshift.ir import UsageError
from mulshift.passes.gptq import integers
from mulshift.passes.lattice import order_columns
from mulshift.passes.rounding.base import RoundingPass
from mulshift.passes.rounding.problem import Problem, Solution

if TYPE_CHECKING:
    import torch

LARGEST_STEP = 2.0
"""A scale moves by at most this factor in one turn."""


@dataclass
class DecoupleQ(RoundingPass):
    """Guo et al. 2024 (arXiv:2404.12759): the layer's error is quadratic in a s q; least over q and over a in turns.

    Integers: constrained least squares, by GPTQ and coordinate descent. Then the factor of an output's scales, in
    closed form: `a = (t H v^T) / (v H v^T)` with `v = s q`; the bias, whose mean is out of H, follows likewise. Each
    output channel keeps the best that it has seen. With granularity "block", scales and biases are then tuned
    on the block's output with the integers frozen.

    Attributes:
        turns: of both.
        sweeps: of coordinate descent in each.
    """

    name: ClassVar[str] = "decoupleq"
    turns: int = 4
    sweeps: int = 2

    def check(self) -> None:
        super().check()
        if self.turns < 1 or self.sweeps < 0:
            raise UsageError(self.name, "an option is not positive", "give turns > 0 and sweeps >= 0")

    def solve(self, problem: Problem) -> Solution:
        """The best of each output over the turns, with its scale fitted at last."""
        import torch

        order = order_columns(problem.energy, self.damping)
        best = now = Solution(integers(problem, order, self.sweeps), problem.scale)
        least = problem.error(now.weights)
        for _ in range(self.turns):
            scale = now.scale * factor(problem, now)
            now = Solution(integers(replace(problem, scale=scale), order, self.sweeps), scale)
            error = problem.error(now.weights)
            better = (error < least)[:, :, None]
            best = Solution(torch.where(better, now.q, best.q), torch.where(better, now.scale, best.scale))
            least = torch.minimum(error, least)
        return Solution(best.q, best.scale * factor(problem, best))


def factor(problem: Problem, found: Solution) -> torch.Tensor:
    """The a with the least `(t - a v) H (t - a v)^T` of each output: [groups, outputs, 1]; 1 where nothing tells it."""
    import torch

    v = found.weights
    vh = v @ problem.energy
    along, square = (vh * problem.target).sum(dim=2), (vh * v).sum(dim=2)
    known = (along > 0) & (square > 0)
    a = torch.where(known, along / torch.where(known, square, 1.0), 1.0)
    return a.clamp(1 / LARGEST_STEP, LARGEST_STEP)[:, :, None]
