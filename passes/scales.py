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
SLOT_LIMIT, MAGNITUDE_LIMIT = 125, 240
"""`255 * 128 <= 32767` and `128 * 255 <= 32767`, less what rounding adds to two and to thirteen weights."""


def reduce_range(q: QParams, weight: Array, axis: int, windows: bool = False) -> QParams:
    """Scales large enough that products of u8 and neighbouring weights add up in 16 bits; channels along `axis`.

    No weight rounds beyond PAIR_LIMIT; of `windows`, [channels, 1, n, n] of a depthwise Conv, no sum of weights that
    meet there beyond its limit: see `_three` and `_five`.
    """
    rows = np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1).astype(np.float64)
    least = np.abs(rows).max(axis=1, initial=0.0) / PAIR_LIMIT
    if windows:
        least = (_three if weight.shape[2] == 3 else _five)(weight[:, 0].astype(np.float64))
    return QParams(np.maximum(q.scale, least.astype(np.float32)), q.zero_point, q.spec)


def _three(windows: Array) -> Array:
    """[channels, 3, 3] -> [channels]: scales for sums of one sign, of rows 0 and 2 or of row 1, within SUM_LIMIT."""
    parts = (windows[:, ::2], windows[:, 1:2])
    return np.asarray(np.max([_one_sign(part, (1, 2)) for part in parts], axis=0) / SUM_LIMIT)


def _five(windows: Array) -> Array:
    """[channels, 5, 5] -> [channels]: scales for what `kernels/src/isa/avx2_five.h` adds in 16 bits.

    Of six rows of a column, 0 and 3, 1 and 4, 2 and 5 are a slot each; the window is the upper five or the lower five.
    Sums of one sign of a slot stay within SLOT_LIMIT, magnitudes of every second one within MAGNITUDE_LIMIT.
    """
    both = [np.pad(windows, ((0, 0), (lower, 1 - lower), (0, 0))) for lower in (0, 1)]
    slots = np.stack(both, axis=1).reshape(len(windows), 2, 2, 3, 5).transpose(0, 1, 4, 3, 2).reshape(-1, 2, 15, 2)
    magnitudes = np.abs(slots).sum(axis=3)
    groups = np.maximum(magnitudes[:, :, ::2].sum(axis=2), magnitudes[:, :, 1::2].sum(axis=2))
    pairs = _one_sign(slots, 3).max(axis=(1, 2))
    return np.asarray(np.maximum(pairs / SLOT_LIMIT, groups.max(axis=1) / MAGNITUDE_LIMIT))


def _one_sign(weights: Array, axes: int | tuple[int, ...]) -> Array:
    """The larger sum along `axes` of the weights of one sign."""
    return np.asarray(np.maximum(np.maximum(weights, 0).sum(axis=axes), np.maximum(-weights, 0).sum(axis=axes)))
