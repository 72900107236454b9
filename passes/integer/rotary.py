"""RotaryEmbedding: `x * cos + turned x * sin` in int32, one rounding."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from mulshift.ir import ACTIVATION_S16, QParams, constant
from mulshift.ir.operators.rotary import MAX_ANGLE
from mulshift.passes.integer.forms import Output, Quantized
from mulshift.passes.integer.scales import requantization

if TYPE_CHECKING:
    from mulshift.passes.integer.lowering import Lowering

_MOVES = frozenset("Gather Unsqueeze Squeeze Reshape Transpose Slice Split Expand Identity".split())


def rotary(low: Lowering, node: ir.Node, out: Output) -> ir.Value:
    """x in 8 or 16 bits; cosines and sines in 16, of one scale and within `MAX_ANGLE`: 16-bit activations are."""
    x, cos = low.require(node.inputs[0]), node.inputs[1]
    scale = 1 / MAX_ANGLE if constant(cos) is not None else low.require(cos).q.scale
    q = QParams(np.asarray(scale), np.asarray(0, np.int32), ACTIVATION_S16)
    angles = [_within(low, value, q) for value in node.inputs[1:3]]
    bound = 2 * MAX_ANGLE * x.q.magnitude
    ratio = float(x.q.scale) * float(q.scale) / float(out.q.scale)
    b, c, width = requantization(np.asarray([ratio]), np.asarray([bound]), out.reach, out.free)
    attributes = {"x_zero_point": int(x.q.zero_point), "multiplier": int(b[0]), "shift": int(c[0])}
    return low.mulshift("RotaryEmbedding", [x.value, *(a.value for a in angles)], attributes, out, bound, width)


def _within(low: Lowering, value: ir.Value | None, q: QParams) -> Quantized:
    """The value at that quantization, its integers within +-MAX_ANGLE: by a clamp where no table proves it."""
    if value is not None and constant(value) is not None:
        return low.quantize(value, q, -MAX_ANGLE, MAX_ANGLE)
    held = low.require(value)
    assert value is not None
    same = held.q.scale == q.scale and held.value.dtype == ir.DataType.INT16 and not held.q.zero_point
    if same and _proven(held.value):
        return held
    return low.quantize(value, q, -MAX_ANGLE, MAX_ANGLE)


def _proven(value: ir.Value) -> bool:
    """Whether the integers are rows of a constant within +-MAX_ANGLE."""
    array, source = constant(value), value.producer()
    if array is not None:
        return int(np.abs(array.astype(np.int64)).max(initial=0)) <= MAX_ANGLE
    moved = source is not None and source.op_type in _MOVES
    return source is not None and moved and source.inputs[0] is not None and _proven(source.inputs[0])
