"""Relu, Clip, Min and Max with constants, taken into the clamp of whatever makes their input."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from mulshift.passes.integer.constants import real_constant
from mulshift.passes.integer.forms import Output, asked_to_stay
from mulshift.passes.integer.quantization import bounds

if TYPE_CHECKING:
    from mulshift.passes.integer.lowering import Lowering

_OPEN = (-np.inf, np.inf)
_OPS = ("Relu", "Clip", "Min", "Max")


def strip_clamps(low: Lowering, out: Output) -> tuple[Output, tuple[ir.Node, ...]]:
    """What the producer in front of a chain of clamps is asked for, and the clamps, last first.

    Stops at a value that has an integer tensor already.
    """
    fused: list[ir.Node] = []
    while low.lookup(out.value) is None:
        node = out.value.producer()
        found = None if node is None else clamp_of(node)
        if node is None or found is None:
            break
        value, least, most = found
        a, b = bounds(out.q, least, most)
        clipped = (min(max(out.low, a), out.high), max(min(out.high, b), out.low))
        out = Output(value, out.q, clipped[0], max(clipped), out.free)
        fused.append(node)
    return out, tuple(fused)


def clamp_of(node: ir.Node) -> tuple[ir.Value, float, float] | None:
    """(input, low, high) of a node that clamps with scalar constants, in reals; None if it does not."""
    if node.domain not in ("", "ai.onnx") or node.op_type not in _OPS or node.inputs[0] is None or asked_to_stay(node):
        return None
    x = node.inputs[0]
    if node.op_type == "Relu":
        return x, 0.0, np.inf
    if node.op_type == "Clip":
        least, most = (_end(v, default) for v, default in zip((*node.inputs, None, None)[1:3], _OPEN, strict=True))
        return None if least is None or most is None else (x, least, most)
    return _min_max(node)


def _min_max(node: ir.Node) -> tuple[ir.Value, float, float] | None:
    if len(node.inputs) != 2:
        return None
    for x, other in (node.inputs, node.inputs[::-1]):
        end = _scalar(other)
        if end is not None and x is not None:
            return (x, -np.inf, end) if node.op_type == "Min" else (x, end, np.inf)
    return None


def _end(value: ir.Value | None, default: float) -> float | None:
    return default if value is None else _scalar(value)


def _scalar(value: ir.Value | None) -> float | None:
    array = real_constant(value)
    return float(array.reshape(-1)[0]) if array is not None and array.size == 1 else None
