"""SparseGPT (Frantar and Alistarh 2023, arXiv:2301.00774): zeros group by group, made good by the columns behind."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mulshift.passes.lattice import inverse_factor
from mulshift.passes.sparsity.masks import keep_best
from mulshift.passes.sparsity.pattern import BLOCK, Sparsity

if TYPE_CHECKING:
    import torch

_LAZY = 128


def sparsegpt(
    w: torch.Tensor, energy: torch.Tensor, sparsity: Sparsity, damping: float
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """(weights with small `(w - v) H (w - v)^T`, where they may be other than zero); None if H is singular.

    Columns in order. With U the upper Cholesky factor of H^-1, dropping w_j costs `w_j^2 / U_jj^2` given the columns
    before, the score by which each group of columns chooses when it is reached, and changes the later ones by
    `-w_j / U_jj * U_j,:`. Rows of blocks choose at the start, by `w_j^2 / [H^-1]_jj`, since they choose along all of K.

    Args:
        w: float64 [groups, outputs, K] in `tap_order`.
        energy: H, float64 [groups, K, K].
        sparsity: the pattern.
        damping: share of H's mean diagonal that is added to the diagonal.
    """
    import torch

    upper = inverse_factor(energy, damping)
    if upper is None:
        return None
    v, cost = w.clone(), upper.diagonal(dim1=1, dim2=2).square()[:, None]
    if sparsity.across == BLOCK:
        kept = keep_best(w.square() / upper.square().sum(dim=1)[:, None], sparsity)
    else:
        kept = torch.ones_like(w, dtype=torch.bool)
    step = max(_LAZY // sparsity.of, 1) * sparsity.of
    for start in range(0, w.shape[2], step):
        stop = min(start + step, w.shape[2])
        errors = torch.empty_like(v[:, :, start:stop])
        for j in range(start, stop):
            group = slice(j, j + sparsity.of)
            if sparsity.across != BLOCK and j % sparsity.of == 0:
                kept[:, :, group] = keep_best(v[:, :, group].square() / cost[:, :, group], sparsity)
            error = v[:, :, j] * ~kept[:, :, j] / upper[:, j, j, None]
            v[:, :, j:stop] -= error[:, :, None] * upper[:, j, None, j:stop]
            errors[:, :, j - start] = error
        v[:, :, stop:] -= errors @ upper[:, start:stop, stop:]
    return v * kept, kept
