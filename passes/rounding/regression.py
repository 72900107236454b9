"""Weights that do on the quantized inputs what the float weights do on the float ones, as far as the data can tell."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

RIDGES = (0.01, 0.1, 1.0)
"""Shares of H's mean diagonal that are tried."""


def regress(
    w: torch.Tensor, halves: Sequence[tuple[torch.Tensor, torch.Tensor]], compared: int | None = None
) -> torch.Tensor:
    """Ridge regression towards w of `min E |t x - w u|^2`, x quantized, u float inputs.

    `t = w + w (U - H) (H + l I)^-1` with `H = sum x^T x`, `U = sum u^T x` (asymmetric calibration, Li et al. 2025,
    GPTAQ, arXiv:2504.02692). l is what does best on the half of the samples that it was not fitted on; w itself where
    nothing does better.

    Args:
        w: float64 [groups, outputs, K].
        halves: (H, U) of each half of the samples, [groups, K, K].
        compared: about how many outputs, evenly spaced, on which l is chosen; None for all.
    """
    some = w if compared is None else w[:, :: max(w.shape[1] // compared, 1)]
    held_out = [0.0] * len(RIDGES)
    for (xx, ux), test in permutations(halves):
        for i, ridge in enumerate(RIDGES):
            held_out[i] += _loss(_ridge(some, xx, ux, ridge), some, *test)
    best = min(range(len(RIDGES)), key=held_out.__getitem__)
    if not held_out[best] < sum(_loss(some, some, *test) for test in halves):
        return w
    (h, u), (more_h, more_u) = halves
    return _ridge(w, h + more_h, u + more_u, RIDGES[best])


def shrunken(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """`H = first + second`, moved towards a multiple of I as far as the halves disagree.

    `(1 - r) H + r m I` with m the mean of H's diagonal; `r = <A - m I / 2, A - B> / |A - m I / 2|^2 / 2` for halves A
    and B, averaged over both orders, has the least expected squared error (Ledoit and Wolf 2004, whose variance of H is
    taken from the halves here). Directions that few rows have seen are then not taken for silent ones.

    Args:
        first, second: float64 [groups, K, K], sums over as many rows each, nearly.
    """
    import torch

    h = first + second
    eye = torch.eye(h.shape[1], dtype=h.dtype)
    centre = h.diagonal(dim1=1, dim2=2).mean(dim=1)[:, None, None] * eye
    spread = (first - centre / 2).square().sum(dim=(1, 2)) + (second - centre / 2).square().sum(dim=(1, 2))
    noise = (first - second).square().sum(dim=(1, 2))
    r = (noise / spread.clamp_min(1e-300) / 2).clamp(0, 1)[:, None, None]
    return (1 - r) * h + r * centre


def _ridge(w: torch.Tensor, xx: torch.Tensor, ux: torch.Tensor, share: float) -> torch.Tensor:
    import torch

    mean = xx.diagonal(dim1=1, dim2=2).mean(dim=1)
    mean = torch.where(mean > 0, mean, torch.ones_like(mean))
    damped = xx + share * mean[:, None, None] * torch.eye(xx.shape[1], dtype=xx.dtype)
    lower, failed = torch.linalg.cholesky_ex(damped)
    if failed.any():
        return w
    return w + torch.cholesky_solve((w @ (ux - xx)).transpose(1, 2), lower).transpose(1, 2)


def _loss(t: torch.Tensor, w: torch.Tensor, xx: torch.Tensor, ux: torch.Tensor) -> float:
    """`sum |t x - w u|^2` but for `|w u|^2`."""
    return float(((t @ xx) * t).sum() - 2 * ((w @ ux) * t).sum())
