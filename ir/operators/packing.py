"""Weights in the order in which the kernel library reads them, and back.

`k4n16`: B[k, n] of a group (k the reduced axis, n an output channel) lies at w[g, n // 16, k // 4, n % 16, k % 4], so
that one 64-byte row holds four k of sixteen channels: what vpdpbusd takes. Zero padded to P = ceil(N / 16) panels and
K4 = ceil(K / 4) steps. For a convolution k = (ky * kw + kx) * (C / G) + channel, the order of NHWC pixels.
`taps`: w[ky * kw + kx, c] of a depthwise convolution. `low_bits` has those of less than 8 bits.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mulshift.ir.types import Array

K4N16, TAPS = "k4n16", "taps"


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
