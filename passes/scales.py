"""From ranges to scales: activations per tensor, weights per channel."""

from __future__ import annotations

import numpy as np

from mulshift.ir import Array, QParams, QuantSpec, weight_spec
from mulshift.passes.groups import group_qparams
from mulshift.passes.weight_scales import MIN_SCALE, best_scales

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
    weight: Array,
    axis: int,
    bits: int,
    method: str,
    bias: Array | None = None,
    input_scale: float = 1.0,
    groups: tuple[int, int] | None = None,
) -> QParams:
    """Symmetric scales of a weight, one a channel or a multiple of it for each group (`mulshift.passes.groups`).

    A channel of zeros gets the largest scale of the others. A channel whose bias would not fit `BIAS_BITS` bits at
    `input_scale * scale` gets a larger scale (its weights are then negligible beside the bias).

    Args:
        weight: channels along `axis`.
        bits: 8, 4, 3, 2 or 1.
        method: "max", "mse" (each channel's clip with the least squared rounding error), or "auto": "max" for 8 bits,
            "mse" for fewer.
        bias: [channels], or None.
        groups: (axis, weights along it that share a scale), or None.
    """
    method = ("max" if bits == 8 else "mse") if method == "auto" else method
    least: Array | float = 0.0
    if bias is not None and bias.shape == (weight.shape[axis],):
        least = np.abs(bias) / (input_scale * 2.0**BIAS_BITS)
    if groups is not None:
        return group_qparams(weight, axis, *groups, bits, method, least)
    spec = weight_spec(bits, axis)
    rows = np.ascontiguousarray(np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1), np.float64)
    scale = best_scales(rows, spec, method)
    scale = np.where(scale > 0, scale, scale.max(initial=0.0) or 1.0)
    scale = np.maximum(scale, least)
    return QParams(np.maximum(scale, MIN_SCALE).astype(np.float32), np.zeros(scale.shape, np.int32), spec)


def on_range(weight: Array, q: QParams) -> Array:
    """The weights within what their integers reach: then QuantizeLinear of a type with more bits does the same.

    Clipped to `qmax * scale`; of one bit `sign(w) * scale`. float32; the very array if that changes nothing.
    """
    scale, _ = q.shaped(weight.shape)
    if q.spec.bits == 1:
        return np.asarray(np.where(weight < 0, -scale, scale), np.float32)
    if q.spec.bits == 8:
        return weight
    most = np.asarray(scale * np.float32(q.spec.qmax), np.float32)
    return weight if (np.abs(weight) <= most).all() else np.clip(weight, -most, most)


PAIR_LIMIT = 64
"""`255 * (64 + 64) <= 32767`: two products of u8 and weights within it add up in 16 bits."""


SUM_LIMIT = 120
"""`255 * 128 <= 32767`, less what rounding adds to a sum of six weights."""


def reduce_range(q: QParams, weight: Array, axis: int, windows: bool = False) -> QParams:
    """Scales large enough that products of u8 and neighbouring weights add up in 16 bits; channels along `axis`.

    No weight rounds beyond PAIR_LIMIT; of `windows`, [channels, 1, 3, 3] of a depthwise Conv, whose columns are all
    added, no sum of one sign of the outer rows or the middle one beyond SUM_LIMIT.
    """
    rows = np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1).astype(np.float64)
    least = np.abs(rows).max(axis=1, initial=0.0) / PAIR_LIMIT
    if windows:
        least = _sums(weight.astype(np.float64)) / SUM_LIMIT
    return QParams(np.maximum(q.scale, least.astype(np.float32)), q.zero_point, q.spec)


def _sums(windows: Array) -> Array:
    """[channels, 1, 3, 3] -> [channels]: the largest sum of weights of one sign, of rows 0 and 2 or of row 1."""
    parts = (windows[:, 0, ::2], windows[:, 0, 1:2])
    signed = [sign * part for part in parts for sign in (1, -1)]
    return np.asarray(np.max([np.maximum(part, 0).sum(axis=(1, 2)) for part in signed], axis=0))
