"""QDQ models of other tools, brought to the form of docs/architecture.md: standard domain, constant positive scales.

QuantizeLinear -> Clip -> DequantizeLinear says fewer bits or a narrow range in 8-bit storage (Brevitas). The Clip moves
before the QuantizeLinear, to the reals of its bounds: `Q(clip(x, s * (lo - z), s * (hi - z))) = clip(Q(x), lo, hi)`.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from mulshift.ir.errors import ModelError, UnsupportedError
from mulshift.ir.graphs import add_initializer, attribute, constant, fresh_name, sole_user, users
from mulshift.ir.metadata import describe, inherit_origin
from mulshift.ir.types import Array

PAIR = frozenset({"QuantizeLinear", "DequantizeLinear"})


def tidy_pairs(graph: ir.Graph) -> None:
    """Bring the pairs of a graph into one form, in place.

    Raises:
        ModelError: a scale that is zero, negative or not finite.
        UnsupportedError: scales computed at run time, or a float8 type.
    """
    for node in list(graph):
        if node.op_type in PAIR:
            node.domain = ""
            _check(node)
        elif node.op_type == "Clip":
            _move_clip(graph, node)


def _check(node: ir.Node) -> None:
    scale = constant(node.inputs[1])
    zero_point = node.inputs[2] if len(node.inputs) > 2 else None
    if scale is None or (zero_point is not None and constant(zero_point) is None):
        raise UnsupportedError(describe(node), "its scale is computed at run time", "quantize it statically")
    if not (np.isfinite(scale).all() and (scale > 0).all()):
        raise ModelError(describe(node), "has a scale that is not a positive number", "quantize the model again")
    integer = node.outputs[0] if node.op_type == "QuantizeLinear" else node.inputs[0]
    if integer is not None and integer.dtype is not None and integer.dtype.is_floating_point():
        raise UnsupportedError(describe(node), f"is of type {integer.dtype.name}", "quantize to integers")


def _move_clip(graph: ir.Graph, clip: ir.Node) -> None:
    quantize = clip.inputs[0].producer() if clip.inputs[0] is not None else None
    if quantize is None or quantize.op_type != "QuantizeLinear":
        return
    reader = sole_user(clip.outputs[0])
    bounds = [_real_bound(clip, i, quantize) for i in (1, 2)]
    if reader is None or reader.op_type != "DequantizeLinear" or len(users(quantize.outputs[0])) != 1:
        raise UnsupportedError(describe(clip), "clips integers that are not dequantized next", "quantize it again")
    x = quantize.inputs[0]
    assert x is not None
    weight = constant(x)
    if weight is not None:
        low, high = (_along(b, quantize, weight.ndim) for b in bounds)
        clipped = np.asarray(np.clip(weight, low, high), weight.dtype)
        quantize.replace_input_with(0, add_initializer(graph, f"{x.name}.clipped", clipped))
    elif any(b is not None and b.size > 1 for b in bounds):
        raise UnsupportedError(
            describe(clip), "clips an activation that has a scale per channel", "quantize per tensor"
        )
    else:
        quantize.replace_input_with(0, _clipped(graph, clip, quantize, x, bounds))
    clip.outputs[0].replace_all_uses_with(quantize.outputs[0])
    graph.remove(clip, safe=True)


def _clipped(graph: ir.Graph, clip: ir.Node, quantize: ir.Node, x: ir.Value, bounds: list[Array | None]) -> ir.Value:
    """A Clip of the real x in front of its QuantizeLinear."""
    limits = [
        None if b is None else add_initializer(graph, f"{clip.name}.{kind}", b.reshape(()))
        for kind, b in zip(("low", "high"), bounds, strict=True)
    ]
    moved = ir.node("Clip", [x, *limits], name=f"{clip.name}.real")
    y = moved.outputs[0]
    y.name, y.type, y.shape = fresh_name(graph, f"{x.name}.clipped"), x.type, x.shape
    graph.insert_before(quantize, moved)
    inherit_origin([moved], [clip])
    return y


def _real_bound(clip: ir.Node, index: int, quantize: ir.Node) -> Array | None:
    """`s * (q - z)` of one integer bound, float32 [channels] or [1]; None if there is no bound."""
    if len(clip.inputs) <= index or clip.inputs[index] is None:
        return None
    bound, scale = constant(clip.inputs[index]), constant(quantize.inputs[1])
    zero_point = constant(quantize.inputs[2]) if len(quantize.inputs) > 2 else np.zeros((), np.int32)
    if bound is None or scale is None or zero_point is None:
        raise UnsupportedError(describe(clip), "its bounds are computed at run time", "quantize it statically")
    steps = bound.reshape(-1).astype(np.int64) - zero_point.reshape(-1).astype(np.int64)
    return np.asarray(scale.reshape(-1).astype(np.float32) * steps.astype(np.float32))


def _along(bound: Array | None, quantize: ir.Node, rank: int) -> Array | None:
    """A bound a channel, shaped to broadcast along the QuantizeLinear's axis."""
    if bound is None or bound.size == 1:
        return bound
    shape = [1] * rank
    shape[attribute(quantize, "axis", 1)] = -1
    return bound.reshape(shape)
