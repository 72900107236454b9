"""Weights as a format has them: rounded to nearest, one scale an output channel or a group of inputs."""

from __future__ import annotations

import numpy as np

from mulshift.ir import Array, UsageError
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

    Raises:
        UsageError: bits that weights cannot have.
    """
    moved = np.moveaxis(weight, axis, 0)
    rows = moved.reshape(moved.shape[0], -1).astype(np.float32)
    made = np.concatenate([_rounded(part, precision.weights) for part in _groups(rows, precision.group)], axis=1)
    return np.ascontiguousarray(np.moveaxis(made.reshape(moved.shape), 0, axis))


def scales_beside_channels(weight: tuple[int, ...], axis: int, precision: Precision) -> int:
    """Scales stored with grouped weights; the one of a channel belongs to its requantization, whatever the bits."""
    if not precision.group:
        return 0
    channels = weight[axis]
    inputs = int(np.prod(weight)) // max(channels, 1)
    return channels * -(-inputs // precision.group)


def _groups(rows: Array, group: int) -> list[Array]:
    if not group:
        return [rows]
    return [rows[:, k : k + group] for k in range(0, max(rows.shape[1], 1), group)]


def _rounded(rows: Array, bits: int) -> Array:
    try:
        q = weight_qparams(rows, 0, bits, "max" if bits == 8 else "mse")
    except ValueError as e:
        raise UsageError("candidates", f"weights of {bits} bits are not known here", "use 8, 4 or 2") from e
    return q.dequantize(q.quantize(rows))
