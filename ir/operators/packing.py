"""Weights in the order in which the kernel library reads them, and back.

`k4n16`: B[k, n] of a group (k the reduced axis, n an output channel) lies at w[g, n // 16, k // 4, n % 16, k % 4], so
that one 64-byte row holds four k of sixteen channels: what vpdpbusd takes. Zero padded to P = ceil(N / 16) panels and
K4 = ceil(K / 4) steps. For a convolution k = (ky * kw + kx) * (C / G) + channel, the order of NHWC pixels.
`taps`: w[ky * kw + kx, c] of a depthwise convolution.
`k4n16s4`, `k4n16s2`, `k4n16s1`: k4n16 with the weights of 2, 4 or 8 steps of k4 in one byte, the first step lowest; a
field is w + 8, w + 2 or (w + 1) / 2. u8, zero padded to whole bytes (ARITHMETIC.md section 5).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mulshift.ir.types import Array

K4N16, TAPS = "k4n16", "taps"
LOW_BITS = {4: "k4n16s4", 2: "k4n16s2", 1: "k4n16s1"}
"""Layouts by bits of a weight."""
_LOWEST, _HIGHEST = {4: -8, 2: -2}, {4: 7, 2: 1}


def least_bits(w: Array, depth: int) -> int:
    """The fewest bits that hold integer weights: 8, 4, 2, or 1 for -1 and 1 alone.

    Args:
        w: of a convolution or matrix.
        depth: length of a sum; 1 bit has no zero to pad it with, so it must be a multiple of 4.
    """
    if not w.size:
        return 8
    low, high = int(w.min()), int(w.max())
    if low >= -1 and high <= 1 and depth % 4 == 0 and np.all(w):
        return 1
    return next((bits for bits in (2, 4) if _LOWEST[bits] <= low and high <= _HIGHEST[bits]), 8)


def pack_bits(packed: Array, bits: int) -> Array:
    """k4n16 s8 [G, P, K4, 16, 4] -> u8 [G, P, R, 16, 4] with R = ceil(K4 * bits / 8)."""
    fields = (packed.astype(np.int16) + 1) // 2 if bits == 1 else packed.astype(np.int16) + 2 ** (bits - 1)
    steps = 8 // bits
    padded = np.pad(fields.astype(np.uint8), ((0, 0), (0, 0), (0, -packed.shape[2] % steps), (0, 0), (0, 0)))
    rows = padded.reshape(*packed.shape[:2], -1, steps, *packed.shape[3:])
    shifts = np.arange(0, 8, bits, dtype=np.uint8)[:, None, None]
    return np.asarray(np.bitwise_or.reduce(rows << shifts, axis=3))


def unpack_bits(rows: Array, bits: int) -> Array:
    """The inverse, with as many steps as there are fields: s8 [G, P, R * 8 / bits, 16, 4]."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)[:, None, None]
    fields = (rows[:, :, :, None] >> shifts & (2**bits - 1)).astype(np.int8)
    w = 2 * fields - 1 if bits == 1 else fields - 2 ** (bits - 1)
    return np.asarray(w.astype(np.int8).reshape(*rows.shape[:2], -1, *rows.shape[3:]))


def pack_conv(w: Array, group: int) -> Array:
    """[O, C/G, kh, kw] -> k4n16 [G, P, K4, 16, 4]."""
    out, inner, height, width = w.shape
    taps = w.reshape(group, out // group, inner, height * width).swapaxes(2, 3)
    return _pack(taps.reshape(group, out // group, -1))


def unpack_conv(packed: Array, shape: Sequence[int], group: int) -> Array:
    """The inverse; shape: [O, C/G, kh, kw]."""
    out, inner, height, width = shape
    rows = _unpack(packed, out // group, inner * height * width)
    return rows.reshape(out, height, width, inner).transpose(0, 3, 1, 2)


def pack_gemm(w: Array) -> Array:
    """[K, N] -> k4n16 [1, P, K4, 16, 4]."""
    return _pack(w.T[None])


def unpack_gemm(packed: Array, shape: Sequence[int]) -> Array:
    """The inverse; shape: [K, N]."""
    return np.asarray(_unpack(packed, shape[1], shape[0])[0].T)


def pack_taps(w: Array) -> Array:
    """[C, 1, kh, kw] -> taps [kh * kw, C]."""
    return np.ascontiguousarray(w.reshape(w.shape[0], -1).T)


def unpack_taps(packed: Array, shape: Sequence[int]) -> Array:
    """The inverse; shape: [C, 1, kh, kw]."""
    return np.asarray(packed.T.reshape(tuple(shape)))


def _pack(rows: Array) -> Array:
    """[G, N, K] -> [G, P, K4, 16, 4]."""
    group, n, k = rows.shape
    padded = np.pad(rows, ((0, 0), (0, -n % 16), (0, -k % 4)))
    panels = padded.reshape(group, (n + 15) // 16, 16, (k + 3) // 4, 4)
    return np.ascontiguousarray(panels.transpose(0, 1, 3, 2, 4))


def _unpack(packed: Array, n: int, k: int) -> Array:
    """[G, P, K4, 16, 4] -> [G, n, k]."""
    group, panels, steps, _, _ = packed.shape
    return packed.transpose(0, 1, 3, 2, 4).reshape(group, panels * 16, steps * 4)[:, :n, :k]
