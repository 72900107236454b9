"""Which pattern the weights of a product have, by their values, and whether TensorRT has a sparse kernel for it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from mulshift.ir import DOMAIN, Array, attribute, constant, is_float, sole_user
from mulshift.passes.integer.constants import quantized_constant
from mulshift.passes.quant_rules import channel_axis, constant_weight, product_of_bias
from mulshift.passes.sparsity.pattern import TILE, Sparsity

PATTERNS = (Sparsity(across=TILE), Sparsity())
"""That are looked for, the stricter first."""
ALIGNED = 16
"""Channels in and out of which TensorRT's INT8 formats take a multiple."""
_OPERATORS = ("Conv", "ConvAccumulate", "Gemm", "GemmAccumulate", "MatMul")
_BETWEEN = ("Relu", "Clip")


@dataclass(frozen=True)
class Zeros:
    """What the weights of one product are like.

    Attributes:
        name: of the node.
        op: its operator.
        density: share of weights that are not zero.
        pattern: "2:4:shared", "2:4", or None.
        reason: why TensorRT has no sparse kernel for it; None if it has. Of the INTEGER form: why it has no pattern.
    """

    name: str
    op: str
    density: float
    pattern: str | None
    reason: str | None


def fits(shape: tuple[int, ...], axis: int, sparsity: Sparsity) -> bool:
    """Whether weights of this shape can have a pattern along their input channels.

    Args:
        shape: of Conv [O, I, k...], or of a matrix; any other operator has none.
        axis: of the output channels.
    """
    return (len(shape) == 2 or axis == 0) and sparsity.fits(shape[1 - axis])


def runs(w: Array, axis: int, sparsity: Sparsity) -> Array:
    """[O, taps, I / of, of]: the weights in the groups that a pattern speaks of; they must fit."""
    turned = np.moveaxis(w, (axis, 1 - axis), (0, -1))
    return turned.reshape(turned.shape[0], -1, turned.shape[-1] // sparsity.of, sparsity.of)


def kept_in(there: Array, sparsity: Sparsity, groups: int = 1) -> Array:
    """How many stay in each run, of what any output channel of a tile needs: [tiles, taps, I / of].

    Args:
        there: bool, as `runs` gives them.
        groups: of a convolution; a tile does not reach from one to the next.
    """
    if sparsity.across == 1:
        return np.asarray(np.count_nonzero(there, axis=-1))
    outputs = len(there) // groups
    tiles = np.pad(there.reshape(groups, outputs, -1), ((0, 0), (0, -outputs % sparsity.across), (0, 0)))
    joined = tiles.reshape(-1, sparsity.across, *there.shape[1:]).any(axis=1)
    return np.asarray(joined.sum(axis=-1))


def pattern_of(w: Array, axis: int, groups: int = 1) -> Sparsity | None:
    """The first of PATTERNS that weights have."""
    there = np.count_nonzero(w)
    for sparsity in PATTERNS:
        if there * sparsity.of <= sparsity.kept * w.size and fits(w.shape, axis, sparsity):
            most = kept_in(runs(w != 0, axis, sparsity), sparsity, groups).max(initial=0)
            if most <= sparsity.kept:
                return sparsity
    return None


def zeros_of(node: ir.Node) -> Zeros | None:
    """Of a product by constant weights, at any level; None for other nodes."""
    if node.domain not in ("", "ai.onnx", DOMAIN) or node.op_type not in _OPERATORS or len(node.inputs) < 2:
        return None
    w = _weights(node)
    if w is None or w.ndim < 2 or not w.size:
        return None
    axis, groups = channel_axis(node, w.ndim), int(attribute(node, "group", 1))
    found = pattern_of(w, axis, groups)
    reason = _no_pattern(w, axis, groups) if found is None else _no_kernel(node, w, axis)
    density = round(float(np.count_nonzero(w) / w.size), 4)
    return Zeros(str(node.name), node.op_type, density, None if found is None else str(found), reason)


def zeros_in(graph: ir.Graph) -> tuple[Zeros, ...]:
    """Of all products by constant weights, in order."""
    return tuple(z for z in map(zeros_of, graph) if z is not None)


def _weights(node: ir.Node) -> Array | None:
    """Integers where there are some, else reals: their zeros are the same, but for what rounds to zero."""
    held = quantized_constant(node.inputs[1])
    if held is not None:
        return np.asarray(held[0] - held[1].shaped(held[0].shape)[1])
    w = constant(node.inputs[1]) if node.domain == DOMAIN else constant_weight(node)
    return None if w is None else w - attribute(node, "w_zero_point", 0)


def _no_pattern(w: Array, axis: int, groups: int) -> str:
    sparsity = PATTERNS[-1]
    if not fits(w.shape, axis, sparsity):
        channels = w.shape[1 - axis] if axis < 2 else w.shape[-2]
        of = f"{channels} input channel{'s' * (channels != 1)}{' a group' if groups > 1 else ''}"
        return f"{of}, {'no multiple of' if channels > sparsity.of else 'fewer than'} {sparsity.of}"
    kept = kept_in(runs(w != 0, axis, sparsity), sparsity, groups)
    return f"{(kept > sparsity.kept).mean():.1%} of the fours have more than {sparsity.kept} weights"


def _no_kernel(node: ir.Node, w: Array, axis: int) -> str | None:
    """Of weights that have the pattern."""
    if node.domain == DOMAIN:
        return None
    if quantized_constant(node.inputs[1]) is None:
        return "not quantized"
    for what, value in (("input", node.inputs[0]), ("output", _ending(node))):
        if _integers(value, made=what == "input") is not ir.DataType.INT8:
            return f"its {what} is not INT8"
    for what, channels in (("input", w.shape[1 - axis]), ("output", w.shape[axis])):
        if channels % ALIGNED:
            return f"{channels} {what} channels, no multiple of {ALIGNED}"
    return None


def _ending(node: ir.Node) -> ir.Value:
    """The output behind a bias and a clamp that are fused."""
    value = node.outputs[0]
    while (user := sole_user(value)) is not None and (user.op_type in _BETWEEN or product_of_bias(user) is node):
        value = user.outputs[0]
    return value


def _integers(value: ir.Value | None, made: bool) -> ir.DataType | None:
    """The type of the integers that a float value comes from (`made`), or becomes for all that read it."""
    if value is None or not is_float(value):
        return None
    if made:
        node = value.producer()
        source = node.inputs[0] if node is not None and node.op_type == "DequantizeLinear" else None
        return None if source is None else source.dtype
    quantized = {u.node.outputs[0].dtype for u in value.uses() if u.node.op_type == "QuantizeLinear"}
    others = any(u.node.op_type != "QuantizeLinear" for u in value.uses())
    return quantized.pop() if len(quantized) == 1 and not others else None
