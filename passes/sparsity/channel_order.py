"""An order of input channels with which an N:M pattern keeps more (Pool and Yu 2021, NeurIPS, channel permutations)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mulshift.ir import Array

if TYPE_CHECKING:
    import torch

_LEAST = 1e-6
"""Of all scores: what a swap has to gain, well above the rounding of float32 sums."""

_CACHED = 128
"""Channels that are compared at a time: their scores stay in a core's cache."""


@dataclass(frozen=True)
class Search:
    """How far to go. All bounds are counts, so that the same input gives the same order anywhere.

    Attributes:
        sweeps: at most so many over all pairs of channels, between two perturbations.
        escapes: perturbations, each from the best order so far.
        seed: draws them.
    """

    sweeps: int = 12
    escapes: int = 0
    seed: int = 0


def kept_score(scores: Array, kept: int, of: int) -> float:
    """Sum of the largest `kept` of each `of` consecutive scores of a row; scores: [rows, channels]."""
    groups = np.sort(scores.reshape(len(scores), -1, of), axis=2)
    return float(groups[:, :, of - kept :].sum(dtype=np.float64))


def search(scores: Array, kept: int, of: int, how: Search) -> Array:
    """The order: `scores[:, order]` keeps at least as much as `scores`.

    A sweep finds what every swap of two channels would gain, exactly, and does the best of them that share no group;
    where none gains, the order is perturbed and the best one is kept.

    Args:
        scores: float32 [rows, channels], channels a multiple of `of`, not negative.
    """
    import torch

    rng = np.random.default_rng(how.seed)
    columns = torch.from_numpy(np.ascontiguousarray(scores.T, np.float32))
    least = _LEAST * float(scores.sum(dtype=np.float64))
    best = order = np.arange(scores.shape[1])
    most = kept_score(scores, kept, of)
    for escape in range(how.escapes + 1):
        order = _swapped(best, rng) if escape else best
        order = _climb(columns, order, kept, of, how.sweeps, least)
        found = kept_score(scores[:, order], kept, of)
        if found > most:
            best, most = order, found
    groups = np.sort(best.reshape(-1, of), axis=1)
    return np.asarray(groups[np.argsort(groups[:, 0])].reshape(-1))


def _swapped(order: Array, rng: np.random.Generator) -> Array:
    """One channel in sixteen somewhere else."""
    moved = rng.permutation(order.size)[: max(order.size // 16, 2)]
    found = order.copy()
    found[moved] = order[np.roll(moved, 1)]
    return found


def _climb(columns: torch.Tensor, order: Array, kept: int, of: int, sweeps: int, least: float) -> Array:
    """Swaps until none gains `least`. columns: [channels, rows]."""
    import torch

    groups = torch.from_numpy(order.copy()).reshape(-1, of)
    after = torch.empty(len(columns), len(columns))
    now = torch.empty(len(groups))
    stale = torch.arange(len(groups))
    for _ in range(sweeps):
        after[groups[stale].reshape(-1)] = _replaced(columns, groups[stale], kept)
        now[stale] = columns[groups[stale]].sort(dim=1, descending=True).values[:, :kept].sum(dim=(1, 2))
        place = torch.empty(len(columns), dtype=torch.long)
        place[groups.reshape(-1)] = torch.arange(len(columns))
        group = place // of
        gain = after + after.T - now[group][:, None] - now[group][None]
        gain[group[:, None] == group[None]] = 0.0
        stale = _swap(groups, gain, place, least)
        if not len(stale):
            break
    return groups.reshape(-1).numpy()


def _replaced(columns: torch.Tensor, groups: torch.Tensor, kept: int) -> torch.Tensor:
    """What each group keeps if each of its channels is replaced by each channel: [groups * of, channels].

    With `kept - 1` of the others certain, and c the next of them, a channel s brings `max(c, s)`.
    """
    import torch

    of = groups.shape[1]
    others = torch.tensor([[m for m in range(of) if m != slot] for slot in range(of)])
    rest = columns[groups[:, others].reshape(-1, of - 1)].sort(dim=1, descending=True).values  # [g * of, of - 1, rows]
    certain, next_one = rest[:, : kept - 1].sum(dim=(1, 2)), rest[:, kept - 1]
    found = certain[:, None].repeat(1, len(columns))
    for start in range(0, len(columns), _CACHED):
        part = columns[start : start + _CACHED]
        larger = torch.empty_like(part)
        for k, c in enumerate(next_one):
            torch.maximum(part, c, out=larger)
            found[k, start : start + _CACHED] += larger.sum(dim=1)
    return found


def _swap(groups: torch.Tensor, gain: torch.Tensor, place: torch.Tensor, least: float) -> torch.Tensor:
    """Swap each channel with the one that gains most by it, the best first, a group once; the groups that changed."""
    import torch

    of = groups.shape[1]
    gains, partner = gain.max(dim=1)
    good = torch.argsort(gains, descending=True, stable=True)[: int((gains > least).sum())]
    touched = np.zeros(len(groups), bool)
    slots, where = groups.reshape(-1), place.numpy()
    for i, j in zip(good.tolist(), partner[good].tolist(), strict=True):
        a, b = where[i], where[j]
        if touched[a // of] or touched[b // of]:
            continue
        touched[[a // of, b // of]] = True
        slots[a], slots[b] = j, i
    return torch.from_numpy(touched.nonzero()[0])
