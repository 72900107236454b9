"""One layer's rounding as a quadratic problem, the same for every method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mulshift.passes.lattice import Grid, output_error
from mulshift.passes.rounding.moments import Moments

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Problem:
    """Integers q and a factor a of the scales with small `sum over outputs of (t - a s q) H (t - a s q)^T`.

    Attributes:
        target: t, float64 [groups, outputs, K].
        energy: H, float64 [groups, K, K], symmetric, positive semidefinite.
        scale: s, float64 [groups, outputs, K], positive.
        grid: what q may be.
        kept: where q may be other than zero, bool [groups, outputs, K], and the target is; None for everywhere.
    """

    target: torch.Tensor
    energy: torch.Tensor
    scale: torch.Tensor
    grid: Grid
    kept: torch.Tensor | None = None

    def round(self, ratio: torch.Tensor) -> torch.Tensor:
        """The nearest integers that there are."""
        q = self.grid.round(ratio)
        return q if self.kept is None else q * self.kept

    def error(self, weights: torch.Tensor) -> torch.Tensor:
        """[groups, outputs]."""
        return output_error(self.target - weights, self.energy)


@dataclass(frozen=True)
class Solution:
    """Attributes:
    q: integers, float64 [groups, outputs, K].
    scale: of each weight, float64 [groups, outputs, K]: the problem's, times one factor an output.
    """

    q: torch.Tensor
    scale: torch.Tensor

    @property
    def weights(self) -> torch.Tensor:
        """[groups, outputs, K]."""
        return self.q * self.scale


def bias_moved(moments: Moments, w: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
    """What to add to the bias so that the mean output stays: `E[w u] - E[new x]`, [groups, outputs]."""
    n = max(moments.count, 1)
    return (w @ moments.u[:, :, None] - new @ moments.x[:, :, None])[:, :, 0] / n
