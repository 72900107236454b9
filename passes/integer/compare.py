"""Comparisons of integer tensors: with a constant by table, of two activations at one quantization, with NaN."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from mulshift.ir import ACTIVATION_U8, QParams
from mulshift.passes.integer.forms import NoFormError, Output
from mulshift.passes.integer.quantization import to_signed
from mulshift.passes.integer.tables import table

if TYPE_CHECKING:
    from mulshift.passes.integer.lowering import Lowering

COMPARISONS = ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")
NEVER = ("IsNaN", "IsInf")
"""What no integer is."""
_BOOLEAN = QParams(np.asarray(1.0), np.asarray(0), ACTIVATION_U8)


def compare(low: Lowering, node: ir.Node) -> None:
    """Write the integer form of a comparison whose inputs are integers; a failure leaves it and gives the reason."""
    try:
        made = _with_constant(low, node) or _of_two(low, node)
    except NoFormError as e:
        low.reasons.setdefault(node, str(e))
        return
    if made is not None:
        low.replaced[node.outputs[0]] = made


def never(low: Lowering, node: ir.Node) -> None:
    """False everywhere, in the shape of an input that is integers; torch's attention asks its softmax for NaN."""
    held = low.lookup(node.inputs[0])
    if held is None:
        return
    y = node.outputs[0]
    shape = low.standard("Shape", [held.value], {}, ir.DataType.INT64)
    false = low.const(f"{y.name}.false", np.asarray(False))
    low.replaced[y] = low.standard("Expand", [false, shape], {}, ir.DataType.BOOL, y.shape)


def _with_constant(low: Lowering, node: ir.Node) -> ir.Value | None:
    y = table(low, Output(node.outputs[0], _BOOLEAN, 0, 1))
    if y is None:
        return None
    return low.standard("Cast", [y], {"to": int(ir.DataType.BOOL)}, ir.DataType.BOOL, node.outputs[0].shape)


def _of_two(low: Lowering, node: ir.Node) -> ir.Value | None:
    x, y = low.lookup(node.inputs[0]), low.lookup(node.inputs[1])
    if x is None or y is None or not (x.q.per_tensor and y.q.per_tensor):
        return None
    if to_signed(x.q) != to_signed(y.q):
        assert node.inputs[1] is not None
        y = low.quantize(node.inputs[1], x.q)
    if x.q != y.q:
        x, y = low.as_unsigned(x), low.as_unsigned(y)
    return low.standard(node.op_type, [x.value, y.value], {}, ir.DataType.BOOL, node.outputs[0].shape)
