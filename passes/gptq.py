"""gptq: weights rounded column by column, each error made good by the columns that are still to come."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from mulshift.passes.lattice import Order, descend, order_columns, round_to_grid
from mulshift.passes.rounding.base import RoundingPass
from mulshift.passes.rounding.problem import Problem, Solution

if TYPE_CHECKING:
    import torch


@dataclass
class Gptq(RoundingPass):
    """Frantar et al. 2022 (arXiv:2210.17323), columns by falling energy, layer after layer with quantized inputs.

    With `compensate` the target is the float layer's output on float inputs (Li et al. 2025, GPTAQ,
    arXiv:2504.02692). Then coordinate descent (Behdin et al. 2023, QuantEase, arXiv:2309.01885). Scales stay
    unless blocks are tuned, so that what `narrow-scales` chose holds.

    Attributes:
        sweeps: of coordinate descent, over all columns; it stops where nothing moves.
    """

    name: ClassVar[str] = "gptq"
    sweeps: int = 3

    def solve(self, problem: Problem) -> Solution:
        """Babai's nearest plane, then descent."""
        order = order_columns(problem.energy, self.damping)
        return Solution(integers(problem, order, self.sweeps), problem.scale)


def integers(problem: Problem, order: Order | None, sweeps: int) -> torch.Tensor:
    """Integers for the problem's scales: float64 [groups, outputs, K]. Without an order (no data) the nearest."""
    nearest = problem.round(problem.target / problem.scale)
    if order is None:
        return nearest
    found = round_to_grid(problem.target, order, problem.scale, problem.grid, problem.kept)
    better = problem.error(found * problem.scale) < problem.error(nearest * problem.scale)
    q = found.where(better[:, :, None], nearest)
    return descend(q, problem.target, problem.energy, problem.scale, problem.grid, sweeps, problem.kept)
