"""Rounding to a grid under a quadratic form: the mathematics of round-weights, on batches of matrices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_LAZY = 128
_RETRIES = 8


@dataclass(frozen=True)
class Grid:
    """The integers that a weight may be: low to high, or -1 and 1 alone (`binary`)."""

    low: int
    high: int
    binary: bool = False

    def round(self, x: torch.Tensor) -> torch.Tensor:
        """The nearest of them, halves to even; of one bit the sign."""
        import torch

        if self.binary:
            return torch.where(x < 0, -1.0, 1.0).to(x.dtype)
        return torch.round(x).clamp_(self.low, self.high)


@dataclass(frozen=True)
class Order:
    """What sequential rounding needs of H, the same for any weights and scales.

    Attributes:
        columns: by falling diagonal of H, [groups, K].
        upper: Cholesky factor of H^-1 in that order, [groups, K, K].
    """

    columns: torch.Tensor
    upper: torch.Tensor


def order_columns(energy: torch.Tensor, damping: float) -> Order | None:
    """The order of H's columns, and its factor.

    Args:
        energy: H, float64 [groups, K, K], symmetric, positive semidefinite.
        damping: share of H's mean diagonal added to the diagonal; ten times more each time that H is still singular.

    Returns:
        None if H stays singular (no data, or not finite).
    """
    import torch

    columns = torch.argsort(energy.diagonal(dim1=1, dim2=2), dim=1, descending=True, stable=True)
    upper = inverse_factor(_permuted(energy, columns), damping)
    return None if upper is None else Order(columns, upper)


def round_to_grid(
    w: torch.Tensor, order: Order, scale: torch.Tensor, grid: Grid, kept: torch.Tensor | None = None
) -> torch.Tensor:
    """Integers q with small `(w - s q) H (w - s q)^T`, by sequential rounding with error feedback (GPTQ; Babai).

    Columns go by falling diagonal of H. With U the upper Cholesky factor of H^-1, the error e_j of column j changes
    the later ones by `-e_j / U_jj * U_j,:`; the updates of 128 columns are applied to the rest at once.

    Args:
        w: float64 [groups, outputs, K].
        order: of `order_columns`.
        scale: float64 [groups, outputs] or, of each weight, [groups, outputs, K]; positive.
        grid: what q may be.
        kept: where q may be other than zero, the shape of w; None for everywhere.

    Returns:
        float64 [groups, outputs, K] of integers.
    """
    import torch

    upper = order.upper
    index = order.columns[:, None, :].expand_as(w)
    rest = torch.gather(w, 2, index)
    scales = scale[:, :, None].expand_as(w) if scale.ndim == 2 else torch.gather(scale, 2, index)
    there = None if kept is None else torch.gather(kept, 2, index)
    q = torch.empty_like(rest)
    for start in range(0, w.shape[2], _LAZY):
        stop = min(start + _LAZY, w.shape[2])
        errors = torch.empty_like(rest[:, :, start:stop])
        for j in range(start, stop):
            q[:, :, j] = grid.round(rest[:, :, j] / scales[:, :, j])
            if there is not None:
                q[:, :, j] *= there[:, :, j]
            error = (rest[:, :, j] - q[:, :, j] * scales[:, :, j]) / upper[:, j, j, None]
            rest[:, :, j:stop] -= error[:, :, None] * upper[:, j, None, j:stop]
            errors[:, :, j - start] = error
        rest[:, :, stop:] -= errors @ upper[:, start:stop, stop:]
    return torch.empty_like(q).scatter_(2, index, q)


def descend(
    q: torch.Tensor,
    w: torch.Tensor,
    energy: torch.Tensor,
    scale: torch.Tensor,
    grid: Grid,
    sweeps: int,
    kept: torch.Tensor | None = None,
) -> torch.Tensor:
    """Better integers: each in turn takes its best value with all others fixed (QuantEase, Behdin et al. 2023).

    `q_j <- round(q_j + g_j / (s_j H_jj))` with `g = (w - s q) H`. The error never rises.

    Args:
        q: float64 [groups, outputs, K], inside the grid.
        w, energy: as in `round_to_grid`.
        scale: of each weight, [groups, outputs, K].
        grid: see there.
        sweeps: over all columns.
        kept: see there; q is zero elsewhere.
    """
    import torch

    q = q.clone()
    diagonal = energy.diagonal(dim1=1, dim2=2)
    floor = diagonal.mean(dim=1, keepdim=True).clamp_min(torch.finfo(w.dtype).tiny)
    alive = diagonal > 1e-9 * floor
    gradient = (w - q * scale) @ energy
    for _ in range(sweeps):
        before = q.clone()
        for start in range(0, w.shape[2], _LAZY):
            stop = min(start + _LAZY, w.shape[2])
            moved = torch.zeros_like(q[:, :, start:stop])
            for j in range(start, stop):
                h = torch.where(alive[:, j], diagonal[:, j], torch.ones_like(diagonal[:, j]))[:, None]
                step = grid.round(q[:, :, j] + gradient[:, :, j] / (h * scale[:, :, j])) - q[:, :, j]
                moves = alive[:, j, None] if kept is None else alive[:, j, None] & kept[:, :, j]
                step = torch.where(moves, step, torch.zeros_like(step))
                q[:, :, j] += step
                change = step * scale[:, :, j]
                gradient[:, :, start:stop] -= change[:, :, None] * energy[:, j, None, start:stop]
                moved[:, :, j - start] = change
            gradient[:, :, :start] -= moved @ energy[:, start:stop, :start]
            gradient[:, :, stop:] -= moved @ energy[:, start:stop, stop:]
        if torch.equal(before, q):
            break
    return q


def output_error(difference: torch.Tensor, energy: torch.Tensor) -> torch.Tensor:
    """`d H d^T` of each row: [groups, outputs, K], [groups, K, K] -> [groups, outputs]."""
    return ((difference @ energy) * difference).sum(dim=2)


def _permuted(h: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
    rows = h.gather(1, order[:, :, None].expand_as(h))
    return rows.gather(2, order[:, None, :].expand_as(h))


def inverse_factor(h: torch.Tensor, damping: float) -> torch.Tensor | None:
    """U, upper, with `U^T U` the inverse of H with a damped diagonal: [groups, K, K]; None if H stays singular."""
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
