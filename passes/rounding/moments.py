"""What rounding has to know of a layer's inputs: second moments, of the quantized ones and against the float ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@dataclass
class Moments:
    """Sums over rows x of the quantized graph and u of the float one, at the same places.

    Attributes:
        count: rows.
        x, u: sums, float64 [groups, K].
        xx: `sum x^T x`, float64 [groups, K, K].
        ux: `sum u^T x`, float64 [groups, K, K].
    """

    count: int
    x: torch.Tensor
    u: torch.Tensor
    xx: torch.Tensor
    ux: torch.Tensor

    @classmethod
    def of(cls, x: torch.Tensor, u: torch.Tensor) -> Moments:
        """Of rows [groups, rows, K] each."""
        turned = x.transpose(1, 2)
        sums = x.sum(1).double(), u.sum(1).double()
        return cls(x.shape[1], *sums, (turned @ x).double(), (u.transpose(1, 2) @ x).double())

    def empty(self) -> Moments:
        """Of no rows yet, in the same shape."""
        return Moments(0, *(a.new_zeros(a.shape) for a in (self.x, self.u, self.xx, self.ux)))

    def __add__(self, other: Moments) -> Moments:
        sums = (self.x + other.x, self.u + other.u, self.xx + other.xx, self.ux + other.ux)
        return Moments(self.count + other.count, *sums)

    def add(self, other: Moments) -> None:
        """Take more rows in."""
        self.count += other.count
        for mine, more in ((self.x, other.x), (self.u, other.u), (self.xx, other.xx), (self.ux, other.ux)):
            mine += more

    def energies(self, centered: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """`xx` and `ux`; about the means where a bias takes care of these, so that weights need not."""
        if not centered:
            return self.xx, self.ux
        n = max(self.count, 1)
        xx = self.xx - self.x[:, :, None] * self.x[:, None, :] / n
        return xx, self.ux - self.u[:, :, None] * self.x[:, None, :] / n
