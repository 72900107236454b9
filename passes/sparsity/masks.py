"""Which weights a pattern lets stay: the largest scores of a group, of a tile's groups, or of a row of blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mulshift.ir import Array
from mulshift.passes.rounding.layers import Product
from mulshift.passes.sparsity.pattern import BLOCK, Sparsity

if TYPE_CHECKING:
    import torch


def inputs(layer: Product) -> int:
    """Input channels of a product, of one of its groups."""
    shape = layer.weights.shape
    return int(shape[1]) if layer.node.op_type == "Conv" else int(shape[1 - layer.axis])


def unfit(layer: Product, sparsity: Sparsity) -> str:
    """Why a product cannot have the pattern; empty if it can."""
    channels = inputs(layer)
    if sparsity.fits(channels):
        return ""
    many = "no multiple of" if channels > sparsity.of else "fewer than"
    per = f"each of its {layer.groups} groups has {channels}" if layer.groups > 1 else f"it has {channels}"
    return f"{per} input channel{'s' * (channels != 1)}, {many} {sparsity.of}, so it stays dense"


def tap_order(layer: Product) -> Array:
    """Columns of `layer.matrix` tap by tap: a pattern's groups are consecutive channels at a tap (ARITHMETIC.md 6)."""
    channels = inputs(layer)
    return np.arange(layer.weights[0].size if layer.kernel else channels).reshape(channels, -1).T.reshape(-1)


def largest(scores: Array, axis: int, sparsity: Sparsity, groups: int = 1) -> Array:
    """`keep_best` of an array in the shape of weights: bool in that shape.

    Args:
        scores: not negative; Conv [O, I, k...], or of a matrix.
        axis: of the output channels.
        sparsity: that fits their input channels.
        groups: of a convolution; a tile does not reach from one to the next.
    """
    import torch

    moved = np.moveaxis(scores, (axis, 1 - axis), (0, -1))  # input channels innermost: tap by tap
    rows = np.ascontiguousarray(moved).reshape(groups, len(moved) // groups, -1)
    kept = keep_best(torch.from_numpy(rows), sparsity).numpy().reshape(moved.shape)
    return np.moveaxis(kept, (0, -1), (axis, 1 - axis))


def keep_best(scores: torch.Tensor, sparsity: Sparsity) -> torch.Tensor:
    """Where the weights with the largest sums of scores are, bool; the first of equals.

    Args:
        scores: [groups, outputs, K], K a multiple of `sparsity.of`, in `tap_order`; not negative.
    """
    import torch

    groups, outputs, k = scores.shape
    tiles = torch.nn.functional.pad(scores, (0, 0, 0, -outputs % sparsity.across))
    tiles = tiles.reshape(groups, -1, sparsity.across, k).sum(dim=2)
    size = k if sparsity.across == BLOCK else sparsity.of
    runs = tiles.reshape(groups, -1, k // size, size)
    best = torch.argsort(runs, dim=3, descending=True, stable=True)[..., : size * sparsity.kept // sparsity.of]
    kept = torch.zeros(runs.shape, dtype=torch.bool).scatter_(3, best, True).reshape(tiles.shape)
    return kept.repeat_interleave(sparsity.across, dim=1)[:, :outputs]


def holds(weights: torch.Tensor, sparsity: Sparsity) -> bool:
    """Whether weights, as in `keep_best`, have the pattern."""
    there = (weights != 0).to(weights.dtype)
    return bool((weights[~keep_best(there, sparsity)] == 0).all())
