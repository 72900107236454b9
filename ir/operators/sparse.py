"""Weights of which at most two of four along k are not zero: two of four are kept, with their 2-bit positions.

A four is one of the K4 of k4n16 (`packing`), a step is two of them, S = ceil(K4 / 2). A step keeps four weights of each
of sixteen columns, [16, 4]: two of its first four, then two of its second. Of two, the position of the second is above
that of the first; where fewer are not zero, zeros are kept.

`k8n16z`, u8 [G, P, C, 320], C = ceil(S / 4), has positions of each column. Of four steps: 64 bytes of positions, byte i
those of kept weight i, of the first step lowest; then 64 kept weights a step, s8. `k8n16zs4`, u8 [G, P, C, 192], has
the kept weights as rows of k4n16s4 (`low_bits`).
`k8n16p`, u8 [G, P, H + S, 64], H = ceil(S / 64), has positions that the sixteen columns of a panel share: first H rows
of them, a byte a step, of the first kept weight lowest; then S rows of kept weights, s8. `k8n16ps4`, u8
[G, P, H + ceil(S / 2), 64], has those as rows of k4n16s4.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mulshift.ir.operators.low_bits import pack_bits, unpack_bits
from mulshift.ir.types import Array

_STEP = 64
"""Kept weights of a step of sixteen columns."""
_SHIFTS = np.arange(0, 8, 2, dtype=np.uint8)


@dataclass(frozen=True)
class SparseForm:
    """A layout.

    Attributes:
        suffix: of the operators that read it.
        layout: its name.
        bits: of a kept weight.
        shared: whether the columns of a panel share positions.
    """

    suffix: str
    layout: str
    bits: int
    shared: bool

    @property
    def rows(self) -> int:
        """Rows of kept weights, 64 bytes each, that one row of positions is for."""
        return (_STEP if self.shared else 4) * self.bits // 8


SPARSE = (
    SparseForm("SharedInt4", "k8n16ps4", 4, True),
    SparseForm("SparseInt4", "k8n16zs4", 4, False),
    SparseForm("Shared", "k8n16p", 8, True),
    SparseForm("Sparse", "k8n16z", 8, False),
)
"""The smallest first."""


def _chosen() -> Array:
    """[16, 2]: which two of four are kept, by the bits of those that are not zero."""
    found = np.zeros((16, 2), np.uint8)
    for bits in range(16):
        ones = [i for i in range(4) if bits >> i & 1]
        found[bits] = sorted([*ones, *(i for i in range(4) if i not in ones)][:2])
    return found


_CHOSEN = _chosen()
_COUNTS = np.array([bin(bits).count("1") for bits in range(16)], np.uint8)


def least_zeros(packed: Array, bits: int) -> SparseForm | None:
    """The smallest form that holds weights k4n16 s8 [G, P, K4, 16, 4] of so many bits; None where none does."""
    if not packed.size:
        return None
    present = _present(packed)
    if _COUNTS[present].max() > 2:
        return None
    shared = bool(_COUNTS[np.bitwise_or.reduce(present, axis=3)].max() <= 2)
    return next(form for form in SPARSE if form.bits >= bits and (shared or not form.shared))


def _present(packed: Array) -> Array:
    """Bits of the weights of a four that are not zero: u8 [G, P, K4, 16]."""
    return np.packbits(packed != 0, axis=-1, bitorder="little")[..., 0]


def pack_zeros(packed: Array, form: SparseForm) -> Array:
    """k4n16 s8 [G, P, K4, 16, 4] -> the layout of the form, which must hold them."""
    padded = np.pad(packed, ((0, 0), (0, 0), (0, packed.shape[2] % 2), (0, 0), (0, 0)))
    present = _present(padded)
    if form.shared:
        present = np.repeat(np.bitwise_or.reduce(present, axis=3)[..., None], 16, axis=3)
    at = _CHOSEN[present]
    kept = _steps(np.take_along_axis(padded, at.astype(np.int64), axis=-1))
    values = pack_bits(kept, 4) if form.bits == 4 else kept.view(np.uint8)
    group, panels, steps = kept.shape[:3]
    if form.shared:
        positions = np.bitwise_or.reduce(_steps(at)[:, :, :, 0] << _SHIFTS, axis=-1)
        head = np.pad(positions, ((0, 0), (0, 0), (0, -steps % _STEP))).reshape(group, panels, -1, _STEP)
        return np.concatenate([head, values.reshape(group, panels, -1, _STEP)], axis=2)
    head = pack_bits(_steps(at).astype(np.int8) - 2, 2).reshape(group, panels, -1, _STEP)
    padded = np.pad(values, ((0, 0), (0, 0), (0, -values.shape[2] % form.rows), (0, 0), (0, 0)))
    return np.concatenate([head, padded.reshape(group, panels, -1, form.rows * _STEP)], axis=3)


def _steps(kept: Array) -> Array:
    """[G, P, 2 * S, 16, 2] -> [G, P, S, 16, 4]."""
    group, panels, fours = kept.shape[:3]
    moved = kept.reshape(group, panels, fours // 2, 2, 16, 2).swapaxes(3, 4)
    return np.ascontiguousarray(moved).reshape(group, panels, fours // 2, 16, 4)


def unpack_zeros(w: Array, form: SparseForm) -> Array:
    """The inverse, with as many fours as there is room for: s8 [G, P, fours, 16, 4]."""
    group, panels = w.shape[:2]
    if form.shared:
        head = -(-w.shape[2] // (form.rows + 1))
        positions = w[:, :, :head].reshape(group, panels, -1, 1, 1) >> _SHIFTS & 3
        values = w[:, :, head:]
    else:
        positions = unpack_bits(w[..., :_STEP].reshape(group, panels, -1, 16, 4), 2) + 2
        values = w[..., _STEP:]
    rows = values.reshape(group, panels, -1, 16, 4)
    kept = unpack_bits(rows, 4) if form.bits == 4 else np.ascontiguousarray(rows).view(np.int8)
    here = positions[:, :, : kept.shape[2], :, :, None] == np.arange(4)
    fours = (here * kept[..., None]).reshape(*kept.shape[:4], 2, 2, 4).sum(axis=5, dtype=np.int8)
    return np.ascontiguousarray(fours.swapaxes(3, 4)).reshape(group, panels, -1, 16, 4)


_OF_COLUMNS = """
  positions_axis = Constant <value_ints = [3]> ()
  from_0 = Constant <value_ints = [0]> ()
  at_64 = Constant <value_ints = [64]> ()
  far = Constant <value_ints = [9223372036854775807]> ()
  head = Slice (w, from_0, at_64, positions_axis)
  tail = Slice (w, at_64, far, positions_axis)
  head_rows = Unsqueeze (head, positions_axis)
  position_shifts = Constant <value = uint8[1,1,1,4,1] {0, 2, 4, 6}> ()
  to_positions = Constant <value_ints = [0, 0, -1, 16, 2, 2]> ()
"""
"""Positions of each column: head_rows u8 [G, P, C, 1, 64], tail."""


def _of_panels(rows: int) -> str:
    """Positions of a panel: head_rows u8 [G, P, 64 * H, 1], tail."""
    return f"""
  row_axis = Constant <value_ints = [2]> ()
  from_0 = Constant <value_ints = [0]> ()
  far = Constant <value_ints = [9223372036854775807]> ()
  count = Shape <start = 2, end = 3> (w)
  up = Constant <value_ints = [{rows}]> ()
  whole = Constant <value_ints = [{rows + 1}]> ()
  raised = Add (count, up)
  head_count = Div (raised, whole)
  head = Slice (w, from_0, head_count, row_axis)
  tail = Slice (w, head_count, far, row_axis)
  to_column = Constant <value_ints = [0, 0, -1, 1]> ()
  head_rows = Reshape (head, to_column)
  position_shifts = Constant <value = uint8[1,1,1,4] {{0, 2, 4, 6}}> ()
  to_positions = Constant <value_ints = [0, 0, -1, 1, 2, 2]> ()
"""


_POSITIONS = """
  shifted_positions = BitShift <direction = "RIGHT"> (head_rows, position_shifts)
  three = Constant <value = uint8 {3}> ()
  position_fields = BitwiseAnd (shifted_positions, three)
  narrow_positions = Reshape (position_fields, to_positions)
  positions = Cast <to = 6> (narrow_positions)
  to_value_rows = Constant <value_ints = [0, 0, -1, 1, 64]> ()
  value_rows = Reshape (tail, to_value_rows)
"""
_VALUES = {
    8: """
  bytes = Cast <to = 6> (value_rows)
  half = Constant <value = int32 {128}> ()
  all = Constant <value = int32 {256}> ()
  lifted = Add (bytes, half)
  modulo = Mod (lifted, all)
  centred = Sub (modulo, half)
""",
    4: """
  value_shifts = Constant <value = uint8[1,1,1,2,1] {0, 4}> ()
  shifted_values = BitShift <direction = "RIGHT"> (value_rows, value_shifts)
  fifteen = Constant <value = uint8 {15}> ()
  value_fields = BitwiseAnd (shifted_values, fifteen)
  numbers = Cast <to = 6> (value_fields)
  half = Constant <value = int32 {8}> ()
  centred = Sub (numbers, half)
""",
}
"""centred s32: of bytes, the s8 of the same bits; of fields, less 8."""
_PLACED = """
  to_kept = Constant <value_ints = [0, 0, -1, 16, 2, 2]> ()
  kept = Reshape (centred, to_kept)
  steps = Shape <start = 2, end = 3> (kept)
  step_axis = Constant <value_ints = [2]> ()
  own_positions = Slice (positions, from_0, steps, step_axis)
  axis_6 = Constant <value_ints = [6]> ()
  every = Constant <value = int32[1,1,1,1,1,1,4] {0, 1, 2, 3}> ()
  positions_7 = Unsqueeze (own_positions, axis_6)
  is_here = Equal (positions_7, every)
  here = Cast <to = 6> (is_here)
  kept_7 = Unsqueeze (kept, axis_6)
  placed = Mul (here, kept_7)
  axis_5 = Constant <value_ints = [5]> ()
  fours = ReduceSum <keepdims = 0> (placed, axis_5)
  in_order = Transpose <perm = [0, 1, 2, 4, 3, 5]> (fours)
  to_steps = Constant <value_ints = [0, 0, -1, 16, 4]> ()
  wide_steps = Reshape (in_order, to_steps)
  w_steps = Cast <to = 3> (wide_steps)
"""


def zeros_text(form: SparseForm) -> str:
    """Statements of a function body: w of the form's layout -> w_steps, s8 k4n16, fours beyond K4 among them."""
    head = _of_panels(form.rows) if form.shared else _OF_COLUMNS
    return head + _POSITIONS + _VALUES[form.bits] + _PLACED
