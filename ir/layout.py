"""How a value tells which tensor it stands for: its channels in another order, or last.

A plain tensor [N, C, H, W] has the twin [N, H, W, C]; [N, C, L] has [N, 1, L, C], so that one kernel serves both.
"""

from __future__ import annotations

import json

import numpy as np
import onnx_ir as ir

from mulshift.ir.types import Array

AXES: dict[int, tuple[int, ...]] = {3: (0, 3, 2), 4: (0, 3, 1, 2)}
"""Rank of the plain tensor -> axis of the twin that holds each of its axes. Axis 1 of a 3-D one's twin has size 1."""
LAYOUTS = {3: "n1lc", 4: "nhwc"}
"""Rank of the plain tensor -> name of the twin's layout."""

_VALUE = "mulshift.value"
_LAYOUT = "mulshift.layout"
_CHANNELS = "mulshift.channels"


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


def set_channels(value: ir.Value, order: Array) -> None:
    """Write on a plain value that its channel i (axis 1) was channel order[i] so far."""
    before = value.metadata_props.get(_CHANNELS)
    found = order if before is None else np.asarray(json.loads(before))[order]
    value.metadata_props[_CHANNELS] = json.dumps(found.tolist(), separators=(",", ":"))


def stands_for(value: ir.Value) -> str:
    """Name of the tensor that a value holds in whatever layout: its own, or the one that it is the twin of."""
    return value.metadata_props.get(_VALUE, str(value.name))


def plain_array(value: ir.Value, array: Array) -> Array:
    """The numbers of a value in the places where the tensor that it stands for has them."""
    layout, channels = (value.metadata_props.get(key) for key in (_LAYOUT, _CHANNELS))
    plain = array if layout is None else to_plain(array, layout)
    return plain if channels is None else plain.take(np.argsort(json.loads(channels)), axis=1)
