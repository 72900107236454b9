"""From ranges to scales: activations per tensor, weights per channel."""

from __future__ import annotations

import numpy as np

from mulshift.ir import Array, QParams, QuantSpec, weight_spec

MIN_SCALE = 2.0**-60
"""Smaller scales are raised to this, so that s_x * s_w stays a normal float32."""
HEADROOM_16 = 2.0
"""16-bit activations cover twice the range seen: 15 bits are plenty, and nothing that calibration missed is clipped."""
BIAS_BITS = 28


def activation_qparams(low: float, high: float, spec: QuantSpec) -> QParams:
    """Scale and zero point of a range, extended to hold 0 exactly. A constant 0 gets scale 1.

    Args:
        low, high: finite, low <= high.
        spec: per tensor.
    """
    low, high = min(low, 0.0), max(high, 0.0)
    if low == high:
        return _qparams(1.0, 0, spec)
    if spec.symmetric:
        room = HEADROOM_16 if spec.bits == 16 else 1.0
        scale = max(-low, high) * room / spec.qmax
        return _qparams(max(scale, MIN_SCALE), 0, spec)
    scale = float(np.float32(max((high - low) / (spec.qmax - spec.qmin), MIN_SCALE)))
    zero_point = int(np.clip(round(spec.qmin - low / scale), spec.qmin, spec.qmax))
    return _qparams(scale, zero_point, spec)


def _qparams(scale: float, zero_point: int, spec: QuantSpec) -> QParams:
    return QParams(np.asarray(scale, np.float32), np.asarray(zero_point, np.int32), spec)


def weight_qparams(
    weight: Array, axis: int, bits: int, method: str, bias: Array | None = None, input_scale: float = 1.0
) -> QParams:
    """Per-channel symmetric scales of a weight.

    A channel of zeros gets the largest scale of the others. A channel whose bias would not fit `BIAS_BITS` bits at
    `input_scale * scale` gets a larger scale (its weights are then negligible beside the bias).

    Args:
        weight: channels along `axis`.
        method: "max", or "mse" (each channel's clip with the least squared rounding error).
        bias: [channels], or None.
    """
    spec = weight_spec(bits, axis)
    rows = np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1).astype(np.float64)
    largest = np.abs(rows).max(axis=1, initial=0.0)
    scale = largest / spec.qmax
    if method == "mse":
        scale = _least_error(rows, scale, spec)
    alive = largest > 0
    scale = np.where(alive, scale, scale.max(initial=0.0) or 1.0)
    if bias is not None and bias.shape == scale.shape:
        scale = np.maximum(scale, np.abs(bias) / (input_scale * 2.0**BIAS_BITS))
    return QParams(np.maximum(scale, MIN_SCALE).astype(np.float32), np.zeros(scale.shape, np.int32), spec)


PAIR_LIMIT = 64
"""`255 * (64 + 64) <= 32767`: two products of u8 and weights within it add up in 16 bits."""


def reduce_range(q: QParams, weight: Array, axis: int) -> QParams:
    """Scales large enough that no weight rounds beyond PAIR_LIMIT; weight: channels along `axis`."""
    rows = np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1).astype(np.float64)
    least = (np.abs(rows).max(axis=1, initial=0.0) / PAIR_LIMIT).astype(np.float32)
    return QParams(np.maximum(q.scale, least), q.zero_point, q.spec)


def _least_error(rows: Array, scale: Array, spec: QuantSpec) -> Array:
    """The best of 33 shrunken scales a row, by squared error."""
    best = np.full(len(rows), np.inf)
    chosen = scale.copy()
    for factor in np.linspace(1.0, 0.6, 33):
        trial = np.maximum(scale * factor, MIN_SCALE)[:, None]
        q = np.clip(np.rint(rows / trial), spec.qmin, spec.qmax)
        error = ((rows - q * trial) ** 2).sum(axis=1)
        better = error < best
        best = np.where(better, error, best)
        chosen = np.where(better, scale * factor, chosen)
    return chosen
