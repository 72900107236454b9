"""What new weights of a product aim at: the float outputs, as a quadratic problem, and the bias that follows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mulshift.ir import Array
from mulshift.passes.rounding.layers import Product
from mulshift.passes.rounding.moments import Moments
from mulshift.passes.rounding.problem import bias_moved
from mulshift.passes.rounding.regression import regress, shrunken

if TYPE_CHECKING:
    import torch


def aim(
    layer: Product, halves: tuple[Moments, Moments], compensate: bool, compared: int | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """(t, H) of `(t - v) H (t - v)^T`: [groups, outputs, K] and [groups, K, K].

    Args:
        layer: whose float weights are w.
        halves: moments of two halves of the samples.
        compensate: t is w regressed on the inputs as they are now, else w itself; about the means where a bias follows.
        compared: of `regress`.
    """
    first, second = (half.energies(moves_bias(layer, compensate)) for half in halves)
    w = layer.matrix(layer.exact)
    return regress(w, (first, second), compared) if compensate else w, shrunken(first[0], second[0])


def moves_bias(layer: Product, compensate: bool) -> bool:
    """Whether the bias makes good the mean of what new weights change."""
    return compensate and layer.bias is not None


def moved_bias(layer: Product, moments: Moments, weights: Array) -> Array | None:
    """The bias, float32 [channels], with which the mean output stays that of the float product; None without one."""
    if layer.bias is None:
        return None
    moved = bias_moved(moments, layer.matrix(layer.exact), layer.matrix(weights)).reshape(-1).numpy()
    return np.asarray(layer.bias.exact(layer.channels) + moved, np.float32)
