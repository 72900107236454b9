"""LayerNormalization and RMSNormalization over the last axis, their scale and bias inside."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from mulshift.ir import attribute, rank
from mulshift.ir.operators.norm_constants import norm_constants
from mulshift.passes.integer.constants import real_constant
from mulshift.passes.integer.forms import NoFormError, Output

if TYPE_CHECKING:
    from mulshift.passes.integer.lowering import Lowering

_OPERATORS = {"LayerNormalization": "LayerNorm", "RMSNormalization": "RmsNorm"}


def norm(low: Lowering, node: ir.Node, out: Output) -> ir.Value:
    """Exact integer sums; see `mulshift.ir.operators.norm`."""
    dims, axis = rank(node.inputs[0]), int(attribute(node, "axis", -1))
    if axis != -1 and (dims is None or axis != dims - 1):
        raise NoFormError("it normalizes over more than the last axis")
    gamma = real_constant(node.inputs[1])
    beta = real_constant(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] is not None else None
    if gamma is None or (len(node.inputs) > 2 and node.inputs[2] is not None and beta is None):
        raise NoFormError("its scale or bias is not constant")
    x = low.require(node.inputs[0])
    n = gamma.size
    beta = np.zeros(n) if beta is None else beta.reshape(-1)
    span = max(out.high - int(out.q.zero_point), int(out.q.zero_point) - out.low)
    scales = float(x.q.scale), float(out.q.scale)
    try:
        made = norm_constants(gamma.reshape(-1), beta, float(attribute(node, "epsilon", 1e-5)), *scales, span)
    except ValueError as e:
        raise NoFormError(str(e)) from e
    name = str(out.value.name)
    constants = [low.const(f"{name}.weight", made.w), low.const(f"{name}.bias", made.bias)]
    attributes = {
        "x_zero_point": int(x.q.zero_point),
        "epsilon": made.epsilon,
        "fraction": made.fraction,
        "shift": made.shift,
    }
    return low.mulshift(_OPERATORS[node.op_type], [x.value, *constants], attributes, out, made.bound, "narrow")
