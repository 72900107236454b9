"""MatMul by constant weights of rows with a power of two each: `y = x W`, x about `(q - 128) * 2^k * s_x`.

    acc = sum (q - 128) * q_w,    y = (acc * b_n + 2^(c-k-1)) >> (c - k),    b_n / 2^c = s_x * s_w[n] / s_y

One c for all columns, so that `c - k` is a number a row; b has 31 bits at the largest column.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from mulshift.ir import ACTIVATION_U8, DOMAIN, AccumulatorOverflowError, QParams, describe
from mulshift.ir.dyadic import INT32_LIMIT, MAX_MANTISSA_BITS, MIN_SHIFT, accumulator_bound, to_dyadic
from mulshift.ir.float_functions import DOMAIN as FLOAT_DOMAIN
from mulshift.ir.operators.row_quantize import MOST_SHIFT, ZERO_POINT
from mulshift.passes.integer.forms import NoFormError, Output, Quantized
from mulshift.passes.integer.linear import channel_scale, weights_of
from mulshift.passes.sparsity.pattern import pass_on

if TYPE_CHECKING:
    from mulshift.passes.integer.lowering import Lowering


def reads_rows(node: ir.Node) -> bool:
    """Whether the first operand comes from RowQuantize."""
    made = None if node.inputs[0] is None else node.inputs[0].producer()
    return made is not None and (made.domain, made.op_type) == (FLOAT_DOMAIN, "RowQuantize")


def row_product(low: Lowering, node: ir.Node, out: Output) -> ir.Value:
    """The product at `out`."""
    x, k = _rows(low, node)
    w = weights_of(node.inputs[1], 1)
    if w.q.ndim != 2:
        raise NoFormError("a batch of constant matrices")
    columns = w.q.shape[1]
    ratio = float(x.q.scale) * channel_scale(w, 1, columns) / float(out.q.scale)
    c = to_dyadic(float(ratio.max()), MAX_MANTISSA_BITS).c
    if c - MOST_SHIFT < MIN_SHIFT:
        raise NoFormError("its scales are too large beside the output's")
    b = np.floor(np.ldexp(ratio, c) + 0.5).astype(np.int32)
    bound = int(accumulator_bound(w.q - w.zero_point, None, ZERO_POINT, 1).max())
    if bound >= INT32_LIMIT:
        raise AccumulatorOverflowError(
            describe(node), f"its int32 accumulator may reach {bound}, beyond 2^31", "leave it in float"
        )
    name, s32, shape = str(out.value.name), ir.DataType.INT32, out.value.shape
    zero_points = {"x_zero_point": ZERO_POINT, "w_zero_point": w.zero_point}
    weights = low.const(f"{name}.weight", w.q.astype(np.int8))
    bias = low.const(f"{name}.bias", np.zeros(columns, np.int32))
    acc = low.write("GemmAccumulate", [x.value, weights, bias], zero_points, DOMAIN, [(s32, shape)])[0]
    low.prove(acc, bound)
    pass_on(node, weights)
    rows = low.standard("Sub", [low.const(f"{name}.c", np.asarray(c, np.int32)), k], {}, s32, k.shape)
    inputs = [acc, low.const(f"{name}.b", b), rows]
    return low.mulshift("Requantize", inputs, {"x_zero_point": 0}, out, bound, "wide")


def _rows(low: Lowering, node: ir.Node) -> tuple[Quantized, ir.Value]:
    """(q as u8 of zero point 128 at the scale of x, k), written once for all products that read them."""
    value = node.inputs[0]
    made = None if value is None else value.producer()
    assert value is not None and made is not None
    if value not in low.rows:
        x = low.require(made.inputs[0])
        if x.q.spec.bits != 16:
            raise NoFormError("its rows are not made of 16-bit integers")
        shape = None if value.shape is None else ir.Shape([*value.shape[:-1], 1])
        outputs = [(ir.DataType.UINT8, value.shape), (ir.DataType.INT32, shape)]
        with low.writing(made):
            q, k = low.write("RowQuantize", [x.value], {"x_zero_point": int(x.q.zero_point)}, DOMAIN, outputs)
        low.wanted.setdefault(q, str(value.name))
        low.rows[value] = (Quantized(q, QParams(x.q.scale, np.asarray(ZERO_POINT), ACTIVATION_U8)), k)
    return low.rows[value]
