"""Groups of weights along the reduced axis whose scales are small integer multiples of their channel's scale.

`s[c, g] = s[c] * m[c, g]`, 1 <= m <= 15: then `w = s[c, g] * q = s[c] * (m * q)`, so that a channel keeps one scale and
its accumulator one `b / 2^c`, and `m * q` are 8-bit integers (VS-Quant, Dai et al. 2021, arXiv:2102.04503; progressive
group quantization of QServe, Lin et al. 2024, arXiv:2405.04532). s[c] has 20 bits: s[c] * m is exact in float32.
"""

from __future__ import annotations

import numpy as np

from mulshift.ir import Array, QParams, QuantSpec, weight_spec
from mulshift.passes.weight_scales import MIN_SCALE, best_scales, rounding_error, slices

LARGEST_MULTIPLE = 15
"""`15 * 7 <= 127`: 4-bit weights times a multiple are 8-bit weights."""
_SMALLEST_TOP = 8
"""The largest group of a channel has a multiple of 8 to 15, so that any group is at most 1 part in 16 off."""
_MANTISSA = 20
_TOLERANCE = 2.0**-20


def group_qparams(
    weight: Array, channels: int, axis: int, group: int, bits: int, method: str, least: Array | float = 0.0
) -> QParams:
    """Scales of groups of `group` weights along `axis`; the last group of a row may be shorter.

    Each group's own scale t[c, g] is found as a channel's would be. Then, of the s[c] that make the multiple of the
    channel's largest t 8 to 15, and of m just below and just above t / s, those with the least squared error are taken
    ("max" looks at m above alone, so that nothing is clipped).

    Args:
        weight: any rank.
        channels: axis of the output channels.
        axis: the axis that is divided, another one.
        group: weights that share a scale, below the size of `axis`.
        bits: 4 or fewer.
        method: "max" or "mse".
        least: [channels]; no s[c] is smaller.

    Returns:
        With the scales shaped as ONNX shapes them for blocks: `weight`'s shape, `ceil(size / group)` along `axis`.
    """
    moved = np.moveaxis(weight, (channels, axis), (0, -1)).astype(np.float64)
    size, count = moved.shape[-1], -(-moved.shape[-1] // group)
    padded = np.zeros((*moved.shape[:-1], count * group))
    padded[..., :size] = moved
    blocks = padded.reshape(moved.shape[0], -1, group)
    there = np.broadcast_to(
        np.arange(count * group).reshape(count, group) < size, (blocks.shape[1] // count, count, group)
    )
    there = there.reshape(1, -1, group)
    spec = weight_spec(bits, axis, group)
    least = np.broadcast_to(least, (len(blocks),))
    parts = slices(len(blocks), blocks[:1].size)
    found = [_multiples(blocks[p], there, spec, method, least[p]) for p in parts]
    s, m = (np.concatenate(part) for part in zip(*found, strict=True))
    scale = (s[:, None] * m).astype(np.float32).reshape(*moved.shape[:-1], count)
    scale = np.moveaxis(scale, (0, -1), (channels, axis))
    return QParams(np.ascontiguousarray(scale), np.zeros(scale.shape, np.int32), spec)


def _multiples(blocks: Array, there: Array, spec: QuantSpec, method: str, least: Array) -> tuple[Array, Array]:
    """(s [channels], m [channels, blocks]) for [channels, blocks, group] and a mask of what is no padding."""
    rows = blocks.reshape(-1, blocks.shape[2])
    mask = np.broadcast_to(there, blocks.shape).reshape(rows.shape)
    own = best_scales(rows, spec, method, mask).reshape(blocks.shape[:2])
    top = own.max(axis=1)
    top = np.where(top > 0, top, top.max(initial=0.0) or 1.0)
    best = np.full(len(blocks), np.inf)
    chosen_s, chosen_m = np.ones(len(blocks)), np.ones(own.shape)
    for multiple in range(LARGEST_MULTIPLE, _SMALLEST_TOP - 1, -1):
        s = _short(np.maximum(np.maximum(top / multiple, least), MIN_SCALE))
        ratio = own / s[:, None]
        above = np.clip(np.ceil(ratio * (1 - _TOLERANCE)), 1, LARGEST_MULTIPLE)
        m, error = above, _error(blocks, mask, s, above, spec)
        if method == "mse":
            below = np.clip(np.floor(ratio), 1, LARGEST_MULTIPLE)
            other = _error(blocks, mask, s, below, spec)
            m, error = np.where(other < error, below, above), np.minimum(other, error)
        total = error.sum(axis=1)
        better = total < best
        best = np.where(better, total, best)
        chosen_s, chosen_m = np.where(better, s, chosen_s), np.where(better[:, None], m, chosen_m)
    return chosen_s, chosen_m


def _error(blocks: Array, mask: Array, s: Array, m: Array, spec: QuantSpec) -> Array:
    """Squared error of each block, [channels, blocks]."""
    rows = blocks.reshape(mask.shape)
    return rounding_error(rows, (s[:, None] * m).reshape(-1), spec, mask).reshape(m.shape)


def _short(scale: Array) -> Array:
    """The nearest number of 20 bits."""
    fraction, exponent = np.frexp(scale)
    return np.asarray(np.ldexp(np.rint(np.ldexp(fraction, _MANTISSA)), exponent - _MANTISSA))


def as_multiples(scale: Array, channels: int) -> tuple[Array, Array] | int:
    """(s float64 [channels], m int64 shaped as `scale`) with `scale = s * m`; else the first channel that has none.

    Args:
        scale: float32, positive.
        channels: axis of the output channels.
    """
    rows = np.moveaxis(scale, channels, 0).reshape(scale.shape[channels], -1).astype(np.float64)
    least = rows.min(axis=1)
    ratio = rows / least[:, None]
    found = np.zeros(len(rows), np.int64)
    for divisor in range(1, 128):  # the multiple of the smallest scale
        k = ratio * divisor
        fits = (found == 0) & (np.abs(k - np.rint(k)) <= _TOLERANCE * k).all(axis=1)
        found = np.where(fits, divisor, found)
        if found.all():
            break
    if not found.all():
        return int(np.argmin(found))
    s = least / found
    shape = [1] * scale.ndim
    shape[channels] = -1
    return s, np.rint(scale.astype(np.float64) / s.reshape(shape)).astype(np.int64)
