"""PRelu with a slope a channel: the positive and the negative part, each rounded once; one of them is always zero."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from mulshift.passes.integer.affine import write_affine
from mulshift.passes.integer.constants import real_constant
from mulshift.passes.integer.forms import NoFormError, Output

if TYPE_CHECKING:
    from mulshift.passes.integer.lowering import Lowering

_SHIFT = 8


def prelu(low: Lowering, node: ir.Node, out: Output) -> ir.Value:
    """`max(x, 0) + slope * min(x, 0)`; a scalar slope is a table and never comes here."""
    slope = real_constant(node.inputs[1])
    if slope is None:
        raise NoFormError("its slope is not constant")
    x = low.require(node.inputs[0])
    z_x, z = int(x.q.zero_point), int(out.q.zero_point)
    spec = out.q.spec
    positive = low.requantize(x, Output(out.value, out.q, z, spec.qmax, out.free))
    below = low.requantize(x, Output(out.value, x.q, x.q.spec.qmin, z_x, out.free))
    negative = write_affine(low, below, slope, np.zeros(()), Output(out.value, out.q, spec.qmin, spec.qmax, out.free))
    one = 2**_SHIFT
    attributes = {"x_zero_point": z, "y_zero_point": z, "x_multiplier": one, "y_multiplier": one, "shift": _SHIFT}
    return low.mulshift("Add", [positive.value, negative], attributes, out, 2 * out.q.magnitude * one, "narrow")
