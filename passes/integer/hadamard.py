"""Hadamard: `x H` by additions and subtractions in int32, one rounding."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from mulshift.ir import Array, constant
from mulshift.ir.dyadic import INT32_LIMIT
from mulshift.passes.integer.forms import NoFormError, Output
from mulshift.passes.integer.scales import requantization

if TYPE_CHECKING:
    from mulshift.passes.integer.lowering import Lowering

_LARGEST_BASE = 4096
_SAME = 1e-6
"""Relative: float32 rounds to 6e-8."""


def hadamard(low: Lowering, node: ir.Node, out: Output) -> ir.Value:
    """`H = f * S (x) base` with `|H[i, j]| = f`; see `mulshift.ir.operators.hadamard`."""
    h = constant(node.inputs[1])
    if h is None or h.ndim != 2 or h.shape[0] != h.shape[1]:
        raise NoFormError("its matrix is no square constant")
    factor = float(np.abs(h).max(initial=0.0))
    if not np.allclose(np.abs(h), factor, rtol=_SAME, atol=0) or factor == 0:
        raise NoFormError("its matrix is not one number times 1 and -1, so it takes products of 16-bit operands")
    base = _base(np.sign(h).astype(np.int8))
    if base.shape[0] > _LARGEST_BASE:
        raise NoFormError(f"{base.shape[0]} rows of its matrix are no Sylvester matrix times a smaller one")
    x, block = low.require(node.inputs[0]), h.shape[0]
    bound = block * x.q.magnitude
    if bound >= INT32_LIMIT:
        raise NoFormError(f"its int32 accumulator may reach {bound}")
    ratio = factor * float(x.q.scale) / float(out.q.scale)
    b, c, width = requantization(np.asarray([ratio]), np.asarray([bound]), out.reach, out.free)
    attributes = {"x_zero_point": int(x.q.zero_point), "block": block, "multiplier": int(b[0]), "shift": int(c[0])}
    inputs = [x.value, low.const(f"{out.value.name}.base", base)]
    return low.mulshift("Hadamard", inputs, attributes, out, bound, width)


def _base(signs: Array) -> Array:
    """B of the smallest order with `signs = S (x) B`."""
    half = signs.shape[0] // 2
    while half:
        quarter = signs[:half, :half]
        if not np.array_equal(signs, np.block([[quarter, quarter], [quarter, -quarter]])):
            break
        signs, half = quarter, half // 2
    return np.ascontiguousarray(signs)
