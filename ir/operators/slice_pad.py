"""SlicePad: a box of a tensor at steps, with one value around it: ONNX Slice, then Pad.

x: u8 or s8 of any rank; starts, ends and steps of each axis (starts from 0, ends beyond the axis are its size, steps
from 1), before and after: how many `value`s are put there.
"""

from __future__ import annotations

import numpy as np

from mulshift.ir.operators.operator import Attributes, Operator
from mulshift.ir.types import Array

AXES = ("starts", "ends", "steps", "before", "after")
"""Attributes with a number for each axis."""

_CONSTANTS = "\n".join(f"  {name}_ = Constant <value_ints: ints = @{name}> ()" for name in AXES)

_BODY = f"""
{_CONSTANTS}
  box = Slice (x, starts_, ends_, , steps_)
  pads = Concat <axis = 0> (before_, after_)
  wide = Constant <value_int: int = @value> ()
  around = CastLike (wide, x)
  y = Pad (box, pads, around)
"""


def _reference(a: Attributes, x: Array) -> Array:
    box = x[tuple(slice(*axis) for axis in zip(a["starts"], a["ends"], a["steps"], strict=True))]
    pads = list(zip(a["before"], a["after"], strict=True))
    return np.asarray(np.pad(box, pads, constant_values=a["value"]))


SLICE_PAD = Operator(
    name="SlicePad",
    signature=f"<{', '.join(AXES)}, value> (x) => (y)",
    body=_BODY,
    reference=_reference,
)
