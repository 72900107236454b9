"""Zeros by the alternating direction method of multipliers (Boyd et al. 2011): all weights of a product at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mulshift.passes.sparsity.masks import keep_best
from mulshift.passes.sparsity.pattern import Sparsity

if TYPE_CHECKING:
    import torch

_RHO, _GROWTH, _STEPS = 0.1, 1.1, 30
"""Of the coupling: where it starts, in units of H's diagonal, and its factor a step; after 30 it is 1.7."""


def admm(target: torch.Tensor, energy: torch.Tensor, sparsity: Sparsity, damping: float) -> torch.Tensor:
    """Where the weights of a small `(t - v) H (t - v)^T` may be other than zero: bool [groups, outputs, K].

    As Boza 2024 (arXiv:2401.02938) and ALPS (Meng et al. 2024, arXiv:2406.07831): x is the least squares near z - u, z
    is x + u with the pattern, u adds up what they differ by,

        x <- (t H + r (z - u)) (H + r I)^-1,    z <- pattern(x + u),    u <- u + x - z,

    with r growing, so that zeros may change for long and then stay. Columns are in units of the root of H's diagonal.

    Args:
        target: t, float64 [groups, outputs, K], in `tap_order`.
        energy: H, float64 [groups, K, K].
        sparsity: the pattern.
        damping: share of H's mean diagonal that is added to the diagonal.
    """
    import torch

    diagonal = energy.diagonal(dim1=1, dim2=2)
    mean = diagonal.mean(dim=1)[:, None]
    ridge = damping * torch.where(mean > 0, mean, 1.0)
    unit = (diagonal + ridge).sqrt()
    h = (energy + torch.diag_embed(ridge.expand_as(diagonal))) / unit[:, :, None] / unit[:, None, :]
    values, q = torch.linalg.eigh(h.float())
    w = (target * unit[:, None]).float()
    wh = w @ h.float()
    z, u, rho = w * keep_best(w.square(), sparsity), torch.zeros_like(w), _RHO
    kept = z != 0
    for _ in range(_STEPS):
        x = ((wh + rho * (z - u)) @ q / (values[:, None] + rho)) @ q.transpose(1, 2)
        kept = keep_best((x + u).square(), sparsity)
        z = (x + u) * kept
        u = u + x - z
        rho *= _GROWTH
    return kept
