"""How the weights that go are chosen: a row is a method. It gives a product's new weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

from mulshift.ir import Array
from mulshift.passes.sparsity.admm import admm
from mulshift.passes.sparsity.masks import keep_best
from mulshift.passes.sparsity.pattern import Sparsity
from mulshift.passes.sparsity.sparsegpt import sparsegpt
from mulshift.passes.sparsity.survivors import refit

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Task:
    """One product; all in `tap_order`.

    Attributes:
        w: its weights, float64 [groups, outputs, K].
        norms: of its inputs over the samples, `|x_j|_2`, float64 [groups, K].
        target: w, or what w regressed on the inputs of the sparse model is: weights that any mask should come close to.
        energy: H of these inputs, float64 [groups, K, K].
        damping: share of H's mean diagonal that is added to the diagonal.
        steps: of conjugate gradients.
    """

    w: torch.Tensor
    norms: torch.Tensor
    target: torch.Tensor
    energy: torch.Tensor
    damping: float
    steps: int

    def ordered(self, order: Array) -> Task:
        """With columns in this order."""
        energy = self.energy[:, order][:, :, order] if self.energy.numel() else self.energy
        target, norms = self.target[:, :, order], self.norms[:, order]
        return replace(self, w=self.w[:, :, order], norms=norms, target=target, energy=energy)


Method: TypeAlias = Callable[[Task, Sparsity], "torch.Tensor"]


@dataclass(frozen=True)
class Score:
    """A row.

    Attributes:
        weights: of a task, with the pattern.
        updates: whether the weights that stay, and the biases, move.
        measures: whether it looks at inputs.
    """

    weights: Method
    updates: bool = False
    measures: bool = True


def _magnitude(task: Task, sparsity: Sparsity) -> torch.Tensor:
    """`|w|`."""
    return task.w * keep_best(task.w.abs(), sparsity)


def _wanda(task: Task, sparsity: Sparsity) -> torch.Tensor:
    """`|w_j| |x_j|_2` (Sun et al. 2023, arXiv:2306.11695)."""
    return task.w * keep_best(task.w.abs() * task.norms[:, None], sparsity)


def _sparsegpt(task: Task, sparsity: Sparsity) -> torch.Tensor:
    """SparseGPT's zeros; then, for these zeros, the least squares that its one pass comes near to."""
    found = sparsegpt(task.target, task.energy, sparsity, task.damping)
    if found is None:  # no data
        return _magnitude(task, sparsity)
    return refit(task.target, *found, task.energy, task.damping, task.steps)


def _admm(task: Task, sparsity: Sparsity) -> torch.Tensor:
    """Zeros that all weights of the product agree on, and the least squares for them."""
    kept = admm(task.target, task.energy, sparsity, task.damping)
    return refit(task.target, task.target, kept, task.energy, task.damping, task.steps)


SCORES: dict[str, Score] = {
    "magnitude": Score(_magnitude, measures=False),
    "wanda": Score(_wanda),
    "sparsegpt": Score(_sparsegpt, updates=True),
    "admm": Score(_admm, updates=True),
}
