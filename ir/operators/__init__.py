"""The integer operators of the domain `mulshift`, a row each. A new one is one file beside this and one row."""

from __future__ import annotations

import onnx_ir as ir

from mulshift.ir.operators.conv import CONV, CONV_ACCUMULATE
from mulshift.ir.operators.elementwise import ADD, AFFINE, MUL
from mulshift.ir.operators.gemm import GEMM, GEMM_ACCUMULATE, MATMUL
from mulshift.ir.operators.lerp import LERP
from mulshift.ir.operators.operator import DOMAIN, VERSION, Operator
from mulshift.ir.operators.reduce import REDUCE_MEAN
from mulshift.ir.operators.requantize import REQUANTIZE
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
    )
}


def attach(model: ir.Model) -> None:
    """Give the model the function bodies of the `mulshift` operators that it uses, and their opset import."""
    used = {n.op_type for n in model.graph.all_nodes() if n.domain == DOMAIN}
    pending = list(used)
    while pending:
        for callee in OPERATORS[pending.pop()].calls:
            if callee not in used:
                used.add(callee)
                pending.append(callee)
    opset = model.opset_imports[""]
    for name, op in OPERATORS.items():
        key = (DOMAIN, name, "")
        if name in used:
            model.functions[key] = op.function(opset)
        else:
            model.functions.pop(key, None)
    if used:
        model.opset_imports[DOMAIN] = VERSION


__all__ = ["DOMAIN", "OPERATORS", "VERSION", "Operator", "attach"]
