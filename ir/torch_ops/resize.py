"""Resize: nearest and linear over any axes, one axis after the other, each output element a sum of two input elements.

Coordinates are computed in float32 as ONNX Runtime does. Cubic, antialiasing, crop and `exclude_outside` are left to
it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from mulshift.ir.graphs import attribute, ints
from mulshift.ir.torch_ops.common import TorchOp, integers
from mulshift.ir.types import Array

_COORDINATES = {"half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"}


def _resize(node: ir.Node, v: Sequence[Any]) -> Any:
    x, _, scales, sizes = (*v, None, None, None)[:4]
    mode, how = attribute(node, "mode", "nearest"), attribute(node, "coordinate_transformation_mode", "half_pixel")
    odd = attribute(node, "antialias", 0) or attribute(node, "exclude_outside", 0)
    policy = attribute(node, "keep_aspect_ratio_policy", "stretch")
    if len(v) < 3 or mode == "cubic" or odd or how not in _COORDINATES or policy != "stretch":
        return NotImplemented
    if not x.is_floating_point() and mode == "linear":
        return NotImplemented
    axes = ints(node, "axes") or list(range(x.ndim))
    for k, axis in enumerate(axes):
        length = x.shape[axis]
        if sizes is not None and sizes.numel():
            out = integers(sizes)[k]
            scale = np.float32(out) / np.float32(length)
        else:
            scale = np.float32(scales[k].item())
            out = int(np.floor(np.float32(length) * scale))
        if out != length or scale != 1:
            x = _axis(x, axis % x.ndim, _positions(how, out, length, scale), node)
    return x


def _positions(how: str, out: int, length: int, scale: Any) -> Array:
    """Where each output element lies on the input axis, float32."""
    i = np.arange(out, dtype=np.float32)
    if how == "asymmetric":
        return np.asarray(i / scale, np.float32)
    if how == "align_corners":
        return np.asarray(i * np.float32(length - 1) / np.float32(out - 1) if out > 1 else i * 0, np.float32)
    if how == "pytorch_half_pixel" and out == 1:
        return i * 0
    return np.asarray((i + np.float32(0.5)) / scale - np.float32(0.5), np.float32)


def _axis(x: Any, axis: int, positions: Array, node: ir.Node) -> Any:
    import torch

    last = x.shape[axis] - 1
    if attribute(node, "mode", "nearest") == "nearest":
        index = _NEAREST[attribute(node, "nearest_mode", "round_prefer_floor")](positions)
        return x.index_select(axis, torch.from_numpy(np.clip(index, 0, last).astype(np.int64)))
    inside = np.clip(positions, 0, last)
    low = np.minimum(np.floor(inside), max(last - 1, 0)).astype(np.int64)
    high = torch.from_numpy(np.minimum(low + 1, last))
    share = torch.from_numpy((inside - low).astype(np.float32)).to(x.dtype)
    share = share.reshape([-1 if i == axis else 1 for i in range(x.ndim)])
    return x.index_select(axis, torch.from_numpy(low)) * (1 - share) + x.index_select(axis, high) * share


_NEAREST: dict[str, Callable[[Array], Array]] = {
    "round_prefer_floor": lambda p: np.ceil(p - np.float32(0.5)),
    "round_prefer_ceil": lambda p: np.floor(p + np.float32(0.5)),
    "floor": np.floor,
    "ceil": np.ceil,
}

TABLE: dict[str, TorchOp] = {"Resize": _resize}
