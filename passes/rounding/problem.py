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
    """

    target: torch.Tensor
    energy: torch.Tensor
    scale: torch.Tensor
    grid: Grid

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


def regress(w: torch.Tensor, xx: torch.Tensor, ux: torch.Tensor, damping: float) -> torch.Tensor:
    """Weights t that give on quantized inputs x what w gives on float inputs u: `min |t x - w u|^2`.

    `t = w + w (U - H) (H + l I)^-1` with `H = sum x^T x`, `U = sum u^T x`, and l a share of H's mean diagonal: ridge
    regression towards w (asymmetric calibration, Li et al. 2025, GPTAQ, arXiv:2504.02692).

    Args:
        w: [groups, outputs, K].
        xx, ux: H and U, [groups, K, K].
        damping: the share.
    """
    import torch

    mean = xx.diagonal(dim1=1, dim2=2).mean(dim=1)
    mean = torch.where(mean > 0, mean, torch.ones_like(mean))
    damped = xx + damping * mean[:, None, None] * torch.eye(xx.shape[1], dtype=xx.dtype)
    lower, failed = torch.linalg.cholesky_ex(damped)
    if failed.any():
        return w
    moved = torch.cholesky_solve((w @ (ux - xx)).transpose(1, 2), lower).transpose(1, 2)
    return w + moved


def bias_moved(moments: Moments, w: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
    """What to add to the bias so that the mean output stays: `E[w u] - E[new x]`, [groups, outputs]."""
    n = max(moments.count, 1)
    return (w @ moments.u[:, :, None] - new @ moments.x[:, :, None])[:, :, 0] / n
