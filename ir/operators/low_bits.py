"""Weights of 4, 2 or 1 bits on the library's layouts (ARITHMETIC.md section 5): several steps of k4n16 in a byte.

`k4n16s4`, `k4n16s2`, `k4n16s1`, u8 [G, P, R, 16, 4] with R = ceil(K4 * bits / 8): byte j of a row holds weight j of
2, 4 or 8 steps, the first one lowest, as field w + 8, w + 2 or (w + 1) / 2.
`k4n16s4b`, u8 [G, P, B, 16 + 8 * block]: blocks of k, each a multiplier m of 16 columns and then rows as in k4n16s4 of
fields v + 8, where w = m * v. `block` is a multiple of 8, B = ceil(K / block).
`taps4`, `taps2`, `taps1`, u8 [kh * kw, ceil(C * bits / 8)]: taps with the same fields, several channels in a byte.
"""

from __future__ import annotations

import numpy as np

from mulshift.ir.types import Array

LOW_BITS = {4: "k4n16s4", 2: "k4n16s2", 1: "k4n16s1"}
"""Layouts by bits of a weight."""
LOW_TAPS = {4: "taps4", 2: "taps2", 1: "taps1"}
"""Those of depthwise convolutions."""
BLOCKS = "k4n16s4b"
BLOCK_SIZES = (8, 16, 32, 64, 128, 256)
"""That are looked for; weights that do not fit one fit none after it."""
_LOWEST, _HIGHEST = {4: -8, 2: -2}, {4: 7, 2: 1}


def _fields(bits: int, packed: str, axis: int = 3, rank: int = 6) -> str:
    """Statements from `packed` u8 [G, P, R, 16, 4] to `centred` s32 [G, P, R, 8 / bits, 16, 4]; or of another axis."""
    shifts = list(range(0, 8, bits))
    shape = ",".join(str(len(shifts)) if i == axis else "1" for i in range(rank))
    doubled = "Add (numbers, numbers)" if bits == 1 else "Identity (numbers)"
    return f"""
  step_axis = Constant <value_ints = [{axis}]> ()
  w_rows = Unsqueeze ({packed}, step_axis)
  shifts = Constant <value = uint8[{shape}] {{{", ".join(map(str, shifts))}}}> ()
  shifted = BitShift <direction = "RIGHT"> (w_rows, shifts)
  mask = Constant <value = uint8 {{{2**bits - 1}}}> ()
  fields = BitwiseAnd (shifted, mask)
  numbers = Cast <to = 6> (fields)
  scaled = {doubled}
  half = Constant <value = int32 {{{1 if bits == 1 else 2 ** (bits - 1)}}}> ()
  centred = Sub (scaled, half)
"""


_TO_STEPS = """
  weights = Cast <to = 3> (wide)
  to_steps = Constant <value_ints = [0, 0, -1, 16, 4]> ()
  w_steps = Reshape (weights, to_steps)
"""
_BLOCK_ROWS = """
  axis_3 = Constant <value_ints = [3]> ()
  axes_35 = Constant <value_ints = [3, 5]> ()
  from_0 = Constant <value_ints = [0]> ()
  at_16 = Constant <value_ints = [16]> ()
  far = Constant <value_ints = [9223372036854775807]> ()
  head = Slice (w, from_0, at_16, axis_3)
  tail = Slice (w, at_16, far, axis_3)
  to_packed = Constant <value_ints = [0, 0, -1, 16, 4]> ()
  w_packed = Reshape (tail, to_packed)
"""
_BLOCK_PRODUCTS = """
  counts = Shape <start = 0, end = 3> (w)
  a_step = Constant <value_ints = [-1, 16, 4]> ()
  to_blocks = Concat <axis = 0> (counts, a_step)
  blocks = Reshape (centred, to_blocks)
  head_5 = Unsqueeze (head, axes_35)
  multipliers = Cast <to = 6> (head_5)
  wide = Mul (blocks, multipliers)
"""


def steps_text(bits: int) -> str:
    """Statements of a function body: w of LOW_BITS[bits] -> w_steps, s8 k4n16, steps beyond K4 among them."""
    return _fields(bits, "w") + "  wide = Identity (centred)\n" + _TO_STEPS


def taps_text(bits: int) -> str:
    """The same of LOW_TAPS: w, and the plain shape in @w_shape -> w_taps, s8 [kh * kw, C]."""
    return f"""{_fields(bits, "w", 2, 3)}
  narrow = Cast <to = 3> (centred)
  to_taps = Constant <value_ints = [0, -1]> ()
  padded_taps = Reshape (narrow, to_taps)
  plain = Constant <value_ints: ints = @w_shape> ()
  at_0 = Constant <value_ints = [0]> ()
  at_1 = Constant <value_ints = [1]> ()
  channel_count = Slice (plain, at_0, at_1)
  w_taps = Slice (padded_taps, at_0, channel_count, at_1)
"""


BLOCKS_TEXT = _BLOCK_ROWS + _fields(4, "w_packed") + _BLOCK_PRODUCTS + _TO_STEPS
"""The same of BLOCKS."""


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
    """k4n16 s8 [G, P, K4, 16, 4] -> LOW_BITS[bits], u8 [G, P, R, 16, 4]."""
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


def pack_low_taps(taps: Array, bits: int) -> Array:
    """taps s8 [T, C] -> LOW_TAPS[bits], u8 [T, ceil(C * bits / 8)]."""
    return pack_bits(_as_steps(taps), bits).reshape(len(taps), -1)


def unpack_low_taps(rows: Array, bits: int, channels: int) -> Array:
    """The inverse: s8 [T, channels]."""
    return unpack_bits(_as_steps(rows), bits).reshape(len(rows), -1)[:, :channels]


def _as_steps(taps: Array) -> Array:
    """[T, C] -> [1, T, C, 1, 1]: a channel in the place of a step."""
    return taps[None, :, :, None, None]


def pack_blocks(packed: Array, block: int) -> Array | None:
    """k4n16 s8 [G, P, K4, 16, 4] -> BLOCKS; None where a column's weights in a block are no multiples of 4-bit numbers.

    The multiplier of a column in a block is the greatest common divisor of its weights there, so the product is exact.
    """
    group, panels, steps = packed.shape[:3]
    padded = np.pad(packed, ((0, 0), (0, 0), (0, -steps % (block // 4)), (0, 0), (0, 0)))
    blocks = padded.reshape(group, panels, -1, block // 4, 16, 4)
    m = np.gcd.reduce(np.abs(blocks.astype(np.int16)), axis=(3, 5))
    m = np.maximum(m, 1)
    v = blocks // m[:, :, :, None, :, None]
    if v.size and (v.min() < _LOWEST[4] or v.max() > _HIGHEST[4]):
        return None
    rows = pack_bits(v.astype(np.int8).reshape(group, panels, -1, 16, 4), 4)
    tail = rows.reshape(group, panels, blocks.shape[2], 8 * block)
    return np.concatenate([m.astype(np.uint8), tail], axis=3)


def least_blocks(packed: Array) -> Array | None:
    """pack_blocks with the block that takes the fewest bytes; None where none fits."""
    found: Array | None = None
    for block in BLOCK_SIZES:
        blocks = pack_blocks(packed, block)
        if blocks is None:
            break
        found = blocks if found is None or blocks.nbytes < found.nbytes else found
    return found


def unpack_blocks(w: Array) -> Array:
    """The inverse, with as many steps as the blocks have: s8 [G, P, B * block / 4, 16, 4]."""
    group, panels, count = w.shape[:3]
    v = unpack_bits(w[..., 16:].reshape(group, panels, -1, 16, 4), 4).reshape(group, panels, count, -1, 16, 4)
    wide = v.astype(np.int16) * w[:, :, :, None, :16, None]
    return np.asarray(wide.astype(np.int8).reshape(group, panels, -1, 16, 4))
