"""Cast of computed integers or booleans to float: masks and counts, requantized from int32."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from mulshift.ir.dyadic import INT32_LIMIT
from mulshift.passes.integer.forms import NoFormError, Output
from mulshift.passes.integer.scales import requantization

if TYPE_CHECKING:
    from mulshift.passes.integer.lowering import Lowering

_INTEGERS = frozenset({ir.DataType.INT64, ir.DataType.INT32, ir.DataType.BOOL, ir.DataType.UINT8, ir.DataType.INT8})


def cast(low: Lowering, node: ir.Node, out: Output) -> ir.Value:
    """`x / s_y` of integers x of scale 1, |x| < 2^31."""
    x = node.inputs[0]
    if x is None or x.dtype not in _INTEGERS:
        raise NoFormError("it does not cast integers")
    s32 = ir.DataType.INT32
    wide = x if x.dtype == s32 else low.standard("Cast", [x], {"to": int(s32)}, s32, x.shape)
    ratio, bound = np.asarray([1 / float(out.q.scale)]), np.asarray([INT32_LIMIT - 1])
    b, c, width = requantization(ratio, bound, out.reach, out.free)
    name = str(out.value.name)
    inputs = [wide, low.const(f"{name}.b", b.reshape(())), low.const(f"{name}.c", c.reshape(()))]
    made = low.mulshift("Requantize", inputs, {"x_zero_point": 0}, out, INT32_LIMIT - 1, width)
    if x.dtype == ir.DataType.INT64:
        low.assume(made, "integers of less than 32 bits")
    return made
