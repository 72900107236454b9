"""2:4 weights as NVIDIA's sparse tensor cores read them: half of the values, and where they were.

The layout of CUTLASS and of PTX `mma.sp`: each group of 4 weights has 4 bits, the positions of its two kept values; 32
(s8) or 16 bits (float) of these are one word, and the words of a matrix are shuffled so that a warp loads its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mulshift.ir import Array, UsageError

ROWS_OF_WARP = 8
PAIRS = {0b0000: (2, 3), 0b0001: (0, 2), 0b0010: (1, 2), 0b0100: (2, 3), 0b1000: (2, 3)} | {
    1 << a | 1 << b: (a, b) for b in range(4) for a in range(b)
}
"""Bit i: value i is not zero -> the two positions that are stored.

The hardware needs two of every group. Which zero joins where fewer are left is free; this is what torch takes, so that
files are equal byte for byte.
"""
FIRST, SECOND = (np.array([PAIRS.get(p, (0, 0))[i] for p in range(16)]) for i in (0, 1))


@dataclass(frozen=True)
class Words:
    """A row: what one type of weights asks.

    Attributes:
        group: weights of which half are kept: 4, or 2 of float32 (1:2).
        word: type of a word of positions.
        rows: the output channels must be a multiple of it: words of so many rows are shuffled among each other.
    """

    group: int
    word: type[np.signedinteger]
    rows: int

    @property
    def columns(self) -> int:
        """The inputs must be a multiple of it: pairs of words."""
        return 2 * self.group * np.dtype(self.word).itemsize * 2


TYPES: dict[str, Words] = {
    "int8": Words(4, np.int32, 16),
    "float16": Words(4, np.int16, 32),
    "bfloat16": Words(4, np.int16, 32),
    "float32": Words(2, np.int16, 32),
}


def compress(w: Array) -> tuple[Array, Array]:
    """Values and metadata of a 2:4 matrix (float32: 1:2).

    Args:
        w: [N, K], one row an output channel; s8, float16, bfloat16 (ml_dtypes) or float32; in each 4 neighbours along K
            at most 2 that are not zero. N a multiple of 16 (s8) or 32, K of 64 (s8), 32, or 16 (float32).

    Returns:
        values [N, K / 2] of w's type, in order; metadata [N, K / (8 * group of 4)], s32 for s8, else s16.

    Raises:
        UsageError: another type or shape, or weights without the pattern.
    """
    row = _row(w)
    n, k = w.shape
    groups = w.reshape(n, k // row.group, row.group)
    first, second = _positions(groups)
    if row.group == 4:
        values = np.take_along_axis(groups, np.stack([first, second], axis=-1), axis=-1).reshape(n, k // 2)
    else:
        values = np.take_along_axis(groups, first[..., None] // 2, axis=-1).reshape(n, k // 2)
    return values, shuffled(words(first | second << 2, row.word), row.rows)


def _row(w: Array) -> Words:
    row = TYPES.get(str(w.dtype))
    if row is None or w.ndim != 2:
        raise UsageError(
            "2:4 metadata", f"there is none of {w.dtype}{list(w.shape)}", f"give [N, K], {', '.join(TYPES)}"
        )
    n, k = w.shape
    if n % row.rows or k % row.columns or not w.size:
        remedy = f"pad N to a multiple of {row.rows} and K of {row.columns}"
        raise UsageError("2:4 metadata", f"there is none of {w.dtype}[{n}, {k}]", remedy)
    return row


def _positions(groups: Array) -> tuple[Array, Array]:
    """Where the two values that are kept lie, of 4: [N, groups] each. Of float32 each value counts as two neighbours.

    Raises:
        UsageError: a group has more.
    """
    size = groups.shape[-1]
    nonzero = np.asarray(groups != 0)
    bad = nonzero.sum(axis=-1) > size // 2
    if bad.any():
        n, g = np.argwhere(bad)[0]
        cause = f"output channel {n} has more than {size // 2} weights in group {g} of {size}"
        raise UsageError("2:4 metadata", cause, "sparsify first")
    pattern = np.repeat(nonzero, 4 // size, axis=-1) @ np.array([1, 2, 4, 8])
    return FIRST[pattern], SECOND[pattern]


def words(positions: Array, word: type[np.signedinteger]) -> Array:
    """4 bits a group, [N, groups], packed into words, low bits first: [N, groups / (2 * bytes of a word)]."""
    packed = (positions[:, 0::2] | positions[:, 1::2] << 4).astype(np.uint8)
    return np.ascontiguousarray(packed).view(np.dtype(word).newbyteorder("<")).astype(word)


def shuffled(meta: Array, rows: int) -> Array:
    """The words of [N, C] in the order of memory, as [N, C].

    In blocks of `rows` rows, rows 8 apart become neighbours; in each 2 x 2 block the corners off the diagonal change
    places; then pairs of columns lie one after the other (CUTLASS: reorder_meta, ColumnMajorInterleaved<2>).
    """
    n, c = meta.shape
    near = meta.reshape(n // rows, rows // ROWS_OF_WARP, ROWS_OF_WARP, c).swapaxes(1, 2).reshape(n, c)
    turned = near.reshape(n // 2, 2, c // 2, 2).swapaxes(1, 3).reshape(n, c)
    return np.ascontiguousarray(turned.reshape(n, c // 2, 2).swapaxes(0, 1)).reshape(n, c)
