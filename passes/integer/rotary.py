"""RotaryEmbedding: `x * cos + turned x * sin` in int32, one rounding."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from mulshift.ir import QParams
from mulshift.ir.dyadic import INT32_LIMIT
from mulshift.passes.integer.forms import NoFormError, Output, Quantized
from mulshift.passes.integer.scales import requantization

if TYPE_CHECKING:
    from mulshift.passes.integer.lowering import Lowering

_LARGEST = 2**14
"""Of a cosine or sine in steps: 16-bit activations have as much headroom."""


def rotary(low: Lowering, node: ir.Node, out: Output) -> ir.Value:
    """x in 8 or 16 bits; cosines and sines in 16, of one scale."""
    x, cos = low.require(node.inputs[0]), low.require(node.inputs[1])
    sin = _like(low, node.inputs[2], cos)
    if cos.q.spec.bits != 16 or not cos.q.spec.signed or int(cos.q.zero_point):
        raise NoFormError("its cosines are not signed 16-bit integers with zero point 0")
    if float(cos.q.scale) * _LARGEST < 1:
        raise NoFormError("its cosines have more than 14 bits")
    bound = x.q.magnitude * min(2 * _LARGEST, int(np.ceil(np.sqrt(2) / float(cos.q.scale))) + 2)
    if bound >= INT32_LIMIT:
        raise NoFormError(f"its int32 accumulator may reach {bound}")
    ratio = float(x.q.scale) * float(cos.q.scale) / float(out.q.scale)
    b, c, width = requantization(np.asarray([ratio]), np.asarray([bound]), out.reach, out.free)
    attributes = {"x_zero_point": int(x.q.zero_point), "multiplier": int(b[0]), "shift": int(c[0])}
    return low.mulshift("RotaryEmbedding", [x.value, cos.value, sin.value], attributes, out, bound, width)


def _like(low: Lowering, value: ir.Value | None, other: Quantized) -> Quantized:
    """The value at another's quantization."""
    held = low.require(value)
    assert value is not None
    return held if held.q == other.q else low.quantize(value, QParams(other.q.scale, other.q.zero_point, other.q.spec))
