"""Add, Sub and Mul of two activations, with broadcasting and one rounding."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from mulshift.ir.dyadic import INT32_LIMIT, MAX_SHIFT, MIN_SHIFT
from mulshift.passes.integer.forms import NoFormError, Output, Quantized
from mulshift.passes.integer.scales import Width, requantization

if TYPE_CHECKING:
    from mulshift.passes.integer.lowering import Lowering


def add(low: Lowering, node: ir.Node, out: Output) -> ir.Value:
    """`x + y`."""
    return _sum(low, node, out, 1)


def sub(low: Lowering, node: ir.Node, out: Output) -> ir.Value:
    """`x - y`: y's multiplier is negative."""
    return _sum(low, node, out, -1)


def _sum(low: Lowering, node: ir.Node, out: Output, sign: int) -> ir.Value:
    x, y = _operands(low, node)
    bx, by, c, width = multipliers(x, y, out)
    attributes = {
        "x_zero_point": int(x.q.zero_point),
        "y_zero_point": int(y.q.zero_point),
        "x_multiplier": bx,
        "y_multiplier": sign * by,
        "shift": c,
    }
    bound = x.q.magnitude * bx + y.q.magnitude * by
    return low.mulshift("Add", [x.value, y.value], attributes, out, bound, width)


def multipliers(x: Quantized, y: Quantized, out: Output) -> tuple[int, int, int, Width]:
    """(bx, by, c, width) with `b / 2^c = s / s_out`: the largest c that 32 bits allow if it is free, else 31 bits."""
    rx, ry = float(x.q.scale) / float(out.q.scale), float(y.q.scale) / float(out.q.scale)
    magnitude = x.q.magnitude + y.q.magnitude
    for c in range(30, MIN_SHIFT - 1, -1):
        bx, by = round(rx * 2**c), round(ry * 2**c)
        if x.q.magnitude * bx + y.q.magnitude * by + 2 ** (c - 1) < INT32_LIMIT:
            if magnitude * 2.0 ** -(c + 1) <= out.free:
                return bx, by, c, "narrow"
            break
    c = min(30 - max(int(np.frexp(max(rx, ry))[1]), -32), MAX_SHIFT)
    bx, by = round(rx * 2.0**c), round(ry * 2.0**c)
    if c < MIN_SHIFT or max(bx, by) >= INT32_LIMIT:
        raise NoFormError("an operand's scale is too large beside the output's")
    return bx, by, c, "wide"


def mul(low: Lowering, node: ir.Node, out: Output) -> ir.Value:
    """`x * y`."""
    x, y = _operands(low, node)
    bound = x.q.magnitude * y.q.magnitude
    if bound >= INT32_LIMIT:
        raise NoFormError("the product of its operands leaves 32 bits")
    ratio = float(x.q.scale) * float(y.q.scale) / float(out.q.scale)
    b, c, width = requantization(np.asarray([ratio]), np.asarray([bound]), out.reach, out.free)
    attributes = {
        "x_zero_point": int(x.q.zero_point),
        "y_zero_point": int(y.q.zero_point),
        "multiplier": int(b[0]),
        "shift": int(c[0]),
    }
    return low.mulshift("Mul", [x.value, y.value], attributes, out, bound, width)


def _operands(low: Lowering, node: ir.Node) -> tuple[Quantized, Quantized]:
    if len(node.inputs) != 2:
        raise NoFormError(f"{node.op_type} of {len(node.inputs)} tensors")
    return low.require(node.inputs[0]), low.require(node.inputs[1])
