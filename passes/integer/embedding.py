"""Gather from a table with one scale a row: rows of s8, then `row * b[row] / 2^c` to the scale of the output."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from mulshift.ir import Array, attribute
from mulshift.ir.dyadic import INT32_LIMIT, MAX_SHIFT, MIN_SHIFT
from mulshift.passes.integer.constants import quantized_constant
from mulshift.passes.integer.forms import NoFormError, Output
from mulshift.passes.integer.quantization import dequantize_qparams
from mulshift.passes.integer.scales import Width

if TYPE_CHECKING:
    from mulshift.passes.integer.lowering import Lowering


def has_row_scales(node: ir.Node) -> bool:
    """Whether a Gather along axis 0 reads a table with one scale a row."""
    made = None if node.inputs[0] is None else node.inputs[0].producer()
    if made is None or made.op_type != "DequantizeLinear" or attribute(node, "axis", 0) != 0:
        return False
    q = dequantize_qparams(made)
    return q is not None and not q.per_tensor and q.spec.axis == 0 and q.spec.group is None


def embedding(low: Lowering, node: ir.Node, out: Output) -> ir.Value:
    """Requantize of the rows by gathered b [..., 1] and one c."""
    table, rows = node.inputs[0], node.inputs[1]
    held = quantized_constant(table)
    if held is None or not has_row_scales(node) or held[0].ndim != 2:
        raise NoFormError("its table is no constant matrix with one scale, or one a row")
    q = held[1]
    integers = held[0] - np.asarray(q.zero_point, np.int64)[:, None]
    if integers.min(initial=0) < -128 or integers.max(initial=0) > 127:
        raise NoFormError("the rows of its table less their zero points are no signed 8-bit integers")
    bound = int(np.abs(integers).max(initial=1))
    b, c, width = row_dyadics(np.asarray(q.scale, np.float64) / float(out.q.scale), bound, out.free)
    name, shape = str(out.value.name), out.value.shape
    axis = {"axis": 0}
    known = low.table(table, integers.astype(np.int8), q)
    taken = low.standard("Gather", [known.value, rows], axis, ir.DataType.INT8, shape)
    ratios = low.standard(
        "Gather",
        [low.const(f"{name}.b", b[:, None]), rows],
        axis,
        ir.DataType.INT32,
        None if shape is None else ir.Shape([*shape[:-1], 1]),
    )
    return low.mulshift(
        "Requantize", [taken, ratios, low.const(f"{name}.c", c)], {"x_zero_point": 0}, out, bound, width
    )


def row_dyadics(ratio: Array, bound: int, free: float) -> tuple[Array, Array, Width]:
    """b [rows], c [] and the width of `b / 2^c` near the ratios; narrow where rounding b costs at most `free` steps.

    b is off by 1/2 at most, a result by `bound / 2^(c+1)`: rows with small ratios have fewer bits and need no more.
    """
    largest = float(ratio.max(initial=0.0))
    if largest * 4 >= INT32_LIMIT:
        raise NoFormError(f"ratio {largest:g} of its scales is too large for a dyadic number")

    def fits(c: int, narrow: bool) -> bool:
        b = int(np.floor(np.ldexp(largest, c) + 0.5))
        return b * bound + 2 ** (c - 1) < INT32_LIMIT if narrow else b < INT32_LIMIT

    shifts = range(MAX_SHIFT, MIN_SHIFT - 1, -1)
    narrow = next((c for c in shifts if fits(c, True)), 0)
    cheap = narrow > 0 and free >= 0 and bound * 2.0 ** -(narrow + 1) <= free
    c = narrow if cheap else next(c for c in shifts if fits(c, False))
    b = np.floor(np.ldexp(ratio, c) + 0.5).astype(np.int32)
    return b, np.asarray(c, np.int32), "narrow" if cheap else "wide"
