"""Channels two by two, so that the two products of neighbours always add up within 16 bits.

AVX2's vpmaddubsw adds x[2i] w[2i] + x[2i+1] w[2i+1] in 16 bits and saturates. For x in 0..255 it is exact if the
positive ones of the two weights add up to at most 128 and the negative ones to at least -128, for 255 * 128 < 2^15. The
kernel library takes it where all weights of a product are so: a quarter fewer instructions.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mulshift.ir import Array
from mulshift.passes.kernels.relayout import StaysError

LIMIT = 128


def is_safe(rows: Array) -> bool:
    """Whether all neighbours fit.

    Args:
        rows: s8 [outputs, K], k in the order of packed weights; an odd last one stands beside padding.
    """
    even = np.pad(rows, ((0, 0), (0, rows.shape[1] % 2)))
    return not any((side[:, ::2] + side[:, 1::2] > LIMIT).any() for side in _sides(even))


def pair_up(matrices: Sequence[Array]) -> Array:
    """An order of the channels in which neighbours fit in each of some matrices.

    Args:
        matrices: s8 [rows, C]; a row holds the weights of one output and one tap.

    Returns:
        The channels, pairs by the smaller of the two; a lone one of an odd number comes last.

    Raises:
        StaysError: there is none, or none was found.
    """
    fits = ~np.eye(matrices[0].shape[1], dtype=bool)
    for rows in matrices:
        _keep_fitting(fits, rows)
    mate = match(fits & fits.T)
    alone, count = np.flatnonzero(mate < 0), len(mate)
    if len(alone) > 1:
        raise StaysError(f"{(count - len(alone)) // 2} of {count // 2} pairs of channels can be made to fit")
    pairs = [pair for channel in range(count) if channel < mate[channel] for pair in (channel, mate[channel])]
    return np.asarray([*pairs, *alone])


def _keep_fitting(fits: Array, rows: Array) -> None:
    """Clear fits[a, b] where a's weight is the larger one of two that do not fit. Raises StaysError."""
    spare = len(fits) % 2
    for wide in _sides(rows):
        side = wide[(wide > LIMIT // 2).any(1)].astype(np.uint8)
        for channel, large in enumerate((side > LIMIT // 2).T):
            if not large.any():
                continue
            fits[channel] &= (side[large] <= LIMIT - side[large, channel, None]).all(0)
            if not fits[channel].any():
                spare -= 1
            if spare < 0:
                raise StaysError(f"its channel {channel} fits beside no other of {len(fits)}")


def _sides(rows: Array) -> tuple[Array, Array]:
    """Magnitudes of the positive and of the negative weights; zero elsewhere."""
    wide = rows.astype(np.int16)
    return np.maximum(wide, 0), np.maximum(-wide, 0)


def match(fits: Array) -> Array:
    """Partner of each channel, or -1: a matching that no alternating path without blossoms makes larger.

    Channels that fit few others choose first; then each that is left looks for an alternating path to another one
    (Berge 1957), along which partners change.

    Args:
        fits: [C, C] booleans, symmetric.
    """
    mate, degree = np.full(len(fits), -1), fits.sum(0)
    for channel in np.argsort(degree, kind="stable"):
        free = np.flatnonzero(fits[channel] & (mate < 0))
        if mate[channel] < 0 and len(free):
            other = free[np.argmin(degree[free])]
            mate[channel], mate[other] = other, channel
    for channel in np.flatnonzero(mate < 0).tolist():
        if mate[channel] < 0:
            _augment(fits, mate, channel)
    return mate


def _augment(fits: Array, mate: Array, root: int) -> None:
    """Give `root` a partner if there is a path."""
    parent, seen = np.full(len(mate), -1), np.zeros(len(mate), bool)
    seen[root] = True
    queue = [root]
    for channel in queue:
        reached = np.flatnonzero(fits[channel] & ~seen)
        free = reached[mate[reached] < 0]
        if len(free):
            _flip(mate, parent, channel, free[0])
            return
        for other in reached:
            partner = mate[other]
            if not seen[other]:
                seen[other] = seen[partner] = True
                parent[partner] = channel
                queue.append(partner)


def _flip(mate: Array, parent: Array, channel: int, other: int) -> None:
    """Partners along the path that ends in channel - other."""
    while channel >= 0:
        left = mate[channel]
        mate[channel], mate[other] = other, channel
        channel, other = parent[channel], left
