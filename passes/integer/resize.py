"""Resize by linear interpolation: one Lerp an axis in int32, one Requantize at the end, so one rounding."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from mulshift.ir import DOMAIN, Array, attribute, constant, ints
from mulshift.passes.integer.forms import NoFormError, Output
from mulshift.passes.integer.scales import requantization

if TYPE_CHECKING:
    from mulshift.passes.integer.lowering import Lowering

_WEIGHT_BITS = {1: 14, 2: 11, 3: 7}
"""Fraction bits of the weights, by the number of axes: 8-bit values times all weights stay below 2^31."""


def resize_linear(low: Lowering, node: ir.Node, out: Output) -> ir.Value:
    """`acc = sum over corners of (x - z) * w`, then `b / 2^c = s_x / (s_y * 2^(k * axes))`."""
    if attribute(node, "mode", "nearest") != "linear" or attribute(node, "antialias", 0):
        raise NoFormError(f"no integer form of Resize mode {attribute(node, 'mode', 'nearest')}")
    x = low.require(node.inputs[0])
    if x.q.spec.bits > 8:
        raise NoFormError("Resize linear of a 16-bit tensor")
    axes = [(axis, *lerp) for axis, lerp in _plan(node) if lerp is not None]
    bits = _WEIGHT_BITS.get(max(len(axes), 1))
    if bits is None:
        raise NoFormError(f"Resize linear along {len(axes)} axes")
    value, zero_point = x.value, int(x.q.zero_point)
    shape = list(x.value.shape or [])
    for axis, first, second, share in axes:
        shape[axis] = len(first)
        value = _lerp(low, value, zero_point, axis, (first, second, share), len(shape), bits, shape)
        zero_point = 0
    bound = x.q.magnitude * 2 ** (bits * len(axes))
    ratio = float(x.q.scale) / (float(out.q.scale) * 2.0 ** (bits * len(axes)))
    b, c, width = requantization(np.asarray([ratio]), np.asarray([bound]), out.reach, out.free)
    name = str(out.value.name)
    bc = [low.const(f"{name}.{k}", v.reshape(())) for k, v in (("b", b), ("c", c))]
    return low.mulshift("Requantize", [value, *bc], {"x_zero_point": zero_point}, out, bound, width)


def _lerp(
    low: Lowering,
    value: ir.Value,
    zero_point: int,
    axis: int,
    plan: tuple[Array, Array, Array],
    rank: int,
    bits: int,
    shape: list[int | ir.SymbolicDim],
) -> ir.Value:
    first, second, share = plan
    name = str(value.name)
    tail = (-1,) + (1,) * (rank - axis - 1)
    w1 = np.rint(share * 2**bits).astype(np.int32)
    parts = {"i0": first, "i1": second, "w0": (2**bits - w1).reshape(tail), "w1": w1.reshape(tail)}
    inputs = [value, *(low.const(f"{name}.{k}", v) for k, v in parts.items())]
    attributes = {"x_zero_point": zero_point, "axis": axis}
    made = low.write("Lerp", inputs, attributes, DOMAIN, [(ir.DataType.INT32, ir.Shape(shape))])[0]
    low.prove(made, 2**31 - 1)
    return made


def _plan(node: ir.Node) -> list[tuple[int, tuple[Array, Array, Array] | None]]:
    """A (first, second, share of the second) for each axis that changes; None for one that stays."""
    shape = node.inputs[0].shape if node.inputs[0] is not None else None
    if shape is None:
        raise NoFormError("Resize linear of a tensor whose rank is not known")
    scales, sizes = (*(constant(v) for v in node.inputs[2:4]), None, None)[:2]
    if attribute(node, "keep_aspect_ratio_policy", "stretch") != "stretch" or (scales is None and sizes is None):
        raise NoFormError("Resize linear whose scales are not constant")
    axes = ints(node, "axes") or list(range(len(shape)))
    mode = attribute(node, "coordinate_transformation_mode", "half_pixel")
    plan: list[tuple[int, tuple[Array, Array, Array] | None]] = []
    for k, axis in enumerate(axes):
        axis %= len(shape)
        size = shape[axis]
        if scales is not None and scales.size and float(scales[k]) == 1.0:
            continue
        if not isinstance(size, int):
            raise NoFormError("Resize linear of a tensor whose size is not known")
        if scales is not None and scales.size:
            scale, length = float(scales[k]), int(np.floor(size * float(scales[k])))
        else:
            assert sizes is not None
            length = int(sizes[k])
            scale = length / size
        plan.append((axis, None if length == size and scale == 1 else _axis(size, length, scale, mode)))
    return plan


def _axis(size: int, length: int, scale: float, mode: str) -> tuple[Array, Array, Array]:
    """Neighbours and the share of the second for each position of one axis."""
    i = np.arange(length, dtype=np.float64)
    if mode == "align_corners":
        at = i * ((size - 1) / (length - 1)) if length > 1 else np.zeros(length)
    elif mode == "asymmetric":
        at = i / scale
    elif mode == "half_pixel" or (mode == "pytorch_half_pixel" and length > 1):
        at = (i + 0.5) / scale - 0.5
    elif mode == "pytorch_half_pixel":
        at = np.zeros(length)
    elif mode == "half_pixel_symmetric":
        centre = size / 2 * (1 - length / (scale * size))
        at = centre + (i + 0.5) / scale - 0.5
    else:
        raise NoFormError(f"Resize linear with coordinates {mode}")
    at = np.clip(at, 0, size - 1)
    first = np.floor(at).astype(np.int64)
    return first, np.minimum(first + 1, size - 1), at - first
