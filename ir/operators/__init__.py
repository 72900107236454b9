"""The integer operators of the domain `mulshift`, a row each. A new one is one file beside this and one row."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

from mulshift.ir.operators.attention import ATTENTION, FLAT_ATTENTION, FLAT_MASKED_ATTENTION, MASKED_ATTENTION
from mulshift.ir.operators.conv import CONV, CONV_ACCUMULATE
from mulshift.ir.operators.elementwise import ADD, AFFINE, MUL
from mulshift.ir.operators.gemm import GEMM, GEMM_ACCUMULATE, MATMUL
from mulshift.ir.operators.hadamard import HADAMARD
from mulshift.ir.operators.lerp import LERP
from mulshift.ir.operators.max_pool import MAX_POOL_NHWC
from mulshift.ir.operators.norm import LAYER_NORM, LAYER_NORM_ROW_QUANTIZE, RMS_NORM, RMS_NORM_ROW_QUANTIZE
from mulshift.ir.operators.operator import DOMAIN, VERSION, Operator
from mulshift.ir.operators.packed import PACKED
from mulshift.ir.operators.reduce import REDUCE_MEAN
from mulshift.ir.operators.requantize import REQUANTIZE
from mulshift.ir.operators.rotary import ROTARY_EMBEDDING
from mulshift.ir.operators.row_quantize import ROW_QUANTIZE
from mulshift.ir.operators.slice_pad import SLICE_PAD
from mulshift.ir.operators.softmax import SOFTMAX
from mulshift.ir.operators.table import TABLE

OPERATORS: dict[str, Operator] = {
    op.name: op
    for op in (
        REQUANTIZE,
        CONV_ACCUMULATE,
        CONV,
        GEMM_ACCUMULATE,
        GEMM,
        MATMUL,
        ADD,
        MUL,
        AFFINE,
        TABLE,
        REDUCE_MEAN,
        LERP,
        LAYER_NORM,
        RMS_NORM,
        SOFTMAX,
        ATTENTION,
        MASKED_ATTENTION,
        FLAT_ATTENTION,
        FLAT_MASKED_ATTENTION,
        ROTARY_EMBEDDING,
        ROW_QUANTIZE,
        LAYER_NORM_ROW_QUANTIZE,
        RMS_NORM_ROW_QUANTIZE,
        HADAMARD,
        *PACKED,
        MAX_POOL_NHWC,
        SLICE_PAD,
    )
}


def with_callees(names: Iterable[str]) -> list[Operator]:
    """The rows of these operators and of all that their bodies use, in the order of the table."""
    used = set(names)
    pending = list(used)
    while pending:
        found = set(OPERATORS[pending.pop()].calls) - used
        used |= found
        pending += found
    return [op for name, op in OPERATORS.items() if name in used]


def attach(model: ir.Model) -> None:
    """Give the model the function bodies of the `mulshift` operators that it uses, and their opset import."""
    used = with_callees({n.op_type for n in model.graph.all_nodes() if n.domain == DOMAIN})
    opset = model.opset_imports[""]
    for name in OPERATORS:
        model.functions.pop((DOMAIN, name, ""), None)
    for op in used:
        model.functions[(DOMAIN, op.name, "")] = op.function(opset)
    if used:
        model.opset_imports[DOMAIN] = VERSION


__all__ = ["DOMAIN", "OPERATORS", "VERSION", "Operator", "attach", "with_callees"]
