"""Weights as a format has them: rounded to nearest, one scale an output channel or a group of inputs."""

from __future__ import annotations

import numpy as np

from mulshift.ir import Array
from mulshift.passes.precision import Precision
from mulshift.passes.scales import weight_qparams


def rounded_weights(weight: Array, axis: int, precision: Precision) -> Array:
    """`s * round(w / s)`, the scales by least squared error below 8 bits, by the maximum else.

    Args:
        weight: float, output channels along `axis`.
        axis: see there.
        precision: its weight bits and group.

    Returns:
        float32, the shape of `weight`.
    """
    given = np.asarray(weight, np.float32)
    q = weight_qparams(given, axis, precision.weights, "auto", groups=groups_of(weight.shape, axis, precision))
    return q.dequantize(q.quantize(given))


def multipliers(shape: tuple[int, ...], axis: int, precision: Precision) -> int:
    """Numbers stored for groups; the scale of a channel belongs to its requantization, whatever the bits."""
    groups = groups_of(shape, axis, precision)
    if groups is None:
        return 0
    along, size = groups
    return int(np.prod(shape)) // max(shape[along], 1) * -(-shape[along] // size)


def groups_of(shape: tuple[int, ...], axis: int, precision: Precision) -> tuple[int, int] | None:
    """(axis, size) of the groups, as insert-fake-quant has them; None where a channel has one scale."""
    along = 1 - axis
    fits = precision.group and precision.weights < 8 and 0 <= along < len(shape) and shape[along] > precision.group
    return (along, precision.group) if fits else None
