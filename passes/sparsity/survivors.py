"""The best weights of those that may be other than zero: least squares, a system an output, all side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def refit(
    target: torch.Tensor, start: torch.Tensor, kept: torch.Tensor, energy: torch.Tensor, damping: float, steps: int
) -> torch.Tensor:
    """Conjugate gradients on `min over v of (t - v) (H + l I) (t - v)^T`, v zero where not kept, in float32.

    Preconditioned by the diagonal. Each output has its own system, H without the rows and columns that it dropped; the
    products with H are shared.

    Args:
        target: t, float64 [groups, outputs, K].
        start: where to begin; what is not kept of it counts as zero.
        kept: bool, the same shape.
        energy: H, float64 [groups, K, K].
        damping: l as a share of H's mean diagonal.
        steps: at most so many.
    """
    import torch

    mean = energy.diagonal(dim1=1, dim2=2).mean(dim=1)[:, None, None]
    energy = (energy / torch.where(mean > 0, mean, 1.0)).float()
    target, start = target.float(), start.float()
    diagonal = energy.diagonal(dim1=1, dim2=2)
    inverse = 1 / (diagonal[:, None] + damping)

    def along(x: torch.Tensor) -> torch.Tensor:
        return (x @ energy + damping * x) * kept

    v = start * kept
    rest = along(target - v)
    z = inverse * rest
    direction, square = z, (rest * z).sum(dim=2, keepdim=True)
    done = square * 1e-12
    for _ in range(steps):
        going = square > done
        if not going.any():
            break
        moved = along(direction)
        curvature = (direction * moved).sum(dim=2, keepdim=True)
        length = torch.where(going & (curvature > 0), square / curvature.clamp_min(1e-30), 0.0)
        v = v + length * direction
        rest = rest - length * moved
        z = inverse * rest
        before, square = square, (rest * z).sum(dim=2, keepdim=True)
        direction = z + torch.where(before > 0, square / before.clamp_min(1e-30), 0.0) * direction
    return v.double()
