"""Rounding to a grid under a quadratic form: the mathematics of round-weights, on batches of matrices."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_LAZY = 128
_RETRIES = 8


def round_to_grid(
    w: torch.Tensor, energy: torch.Tensor, scale: torch.Tensor, limit: int, damping: float
) -> torch.Tensor | None:
    """Integers q with small `(w - s q) H (w - s q)^T`, by sequential rounding with error feedback (GPTQ; Babai).

    Columns go by falling diagonal of H. With U the upper Cholesky factor of H^-1, the error e_j of column j changes
    the later ones by `-e_j / U_jj * U_j,:`; the updates of 128 columns are applied to the rest at once.

    Args:
        w: float64 [groups, outputs, K].
        energy: H, float64 [groups, K, K], symmetric, positive semidefinite.
        scale: float64 [groups, outputs], positive.
        limit: |q| <= limit.
        damping: share of H's mean diagonal added to the diagonal; ten times more each time that H is still singular.

    Returns:
        float64 [groups, outputs, K] of integers; None if H stays singular (no data, or not finite).
    """
    import torch

    order = torch.argsort(energy.diagonal(dim1=1, dim2=2), dim=1, descending=True, stable=True)
    upper = _inverse_factor(_permuted(energy, order), damping)
    if upper is None:
        return None
    index = order[:, None, :].expand_as(w)
    rest = torch.gather(w, 2, index)
    q = torch.empty_like(rest)
    for start in range(0, w.shape[2], _LAZY):
        stop = min(start + _LAZY, w.shape[2])
        errors = torch.empty_like(rest[:, :, start:stop])
        for j in range(start, stop):
            q[:, :, j] = torch.round(rest[:, :, j] / scale).clamp_(-limit, limit)
            error = (rest[:, :, j] - q[:, :, j] * scale) / upper[:, j, j, None]
            rest[:, :, j:stop] -= error[:, :, None] * upper[:, j, None, j:stop]
            errors[:, :, j - start] = error
        rest[:, :, stop:] -= errors @ upper[:, start:stop, stop:]
    return torch.empty_like(q).scatter_(2, index, q)


def output_error(difference: torch.Tensor, energy: torch.Tensor) -> torch.Tensor:
    """`d H d^T` of each row: [groups, outputs, K], [groups, K, K] -> [groups, outputs]."""
    return ((difference @ energy) * difference).sum(dim=2)


def _permuted(h: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
    rows = h.gather(1, order[:, :, None].expand_as(h))
    return rows.gather(2, order[:, None, :].expand_as(h))


def _inverse_factor(h: torch.Tensor, damping: float) -> torch.Tensor | None:
    """The upper Cholesky factor of the inverse of H with a damped diagonal."""
    import torch

    mean = h.diagonal(dim1=1, dim2=2).mean(dim=1)
    if not torch.isfinite(mean).all() or not (mean > 0).any():
        return None
    mean = torch.where(mean > 0, mean, mean.max())  # a group that saw only zeros: any rounding is as good
    eye = torch.eye(h.shape[1], dtype=h.dtype)
    for retry in range(_RETRIES):
        damped = h + (damping * 10.0**retry) * mean[:, None, None] * eye
        lower, failed = torch.linalg.cholesky_ex(damped)
        if failed.any():
            continue
        upper, failed = torch.linalg.cholesky_ex(torch.cholesky_inverse(lower), upper=True)
        if not failed.any():
            return torch.as_tensor(upper)
    return None
