"""Channels-last twins of tensors: which axis goes where, and how a value tells which tensor it stands for.

A plain tensor [N, C, H, W] has the twin [N, H, W, C]; [N, C, L] has [N, 1, L, C], so that one kernel serves both.
"""

from __future__ import annotations

import onnx_ir as ir

from mulshift.ir.types import Array

AXES: dict[int, tuple[int, ...]] = {3: (0, 3, 2), 4: (0, 3, 1, 2)}
"""Rank of the plain tensor -> axis of the twin that holds each of its axes. Axis 1 of a 3-D one's twin has size 1."""
LAYOUTS = {3: "n1lc", 4: "nhwc"}
"""Rank of the plain tensor -> name of the twin's layout."""

_VALUE = "mulshift.value"
_LAYOUT = "mulshift.layout"


def to_nhwc(array: Array) -> Array:
    """The twin of an array of rank 3 or 4."""
    lifted = array[:, :, None] if array.ndim == 3 else array
    return lifted.transpose(0, 2, 3, 1)


def to_plain(array: Array, layout: str) -> Array:
    """What a twin of that layout holds."""
    plain = array.transpose(0, 3, 1, 2)
    return plain[:, :, 0] if layout == LAYOUTS[3] else plain


def set_twin(value: ir.Value, plain: str, rank: int) -> None:
    """Write on a value that it is the twin of the tensor `plain` of that rank."""
    value.metadata_props[_VALUE] = plain
    value.metadata_props[_LAYOUT] = LAYOUTS[rank]


def stands_for(value: ir.Value) -> str:
    """Name of the tensor that a value holds in whatever layout: its own, or the one that it is the twin of."""
    return value.metadata_props.get(_VALUE, str(value.name))


def plain_array(value: ir.Value, array: Array) -> Array:
    """The numbers of a value in the layout of the tensor that it stands for."""
    layout = value.metadata_props.get(_LAYOUT)
    return array if layout is None else to_plain(array, layout)
