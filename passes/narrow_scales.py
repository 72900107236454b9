"""narrow-scales: weight scales for which a short `b / 2^c` is exact, so that 32-bit requantization costs no error.

With `M = s_x * s_w / s_y` and the bound A of the accumulator, the most precise b with `A*b + 2^(c-1) < 2^31` is chosen
for each channel; then `s_w' = (b / 2^c) * s_y / s_x` is the scale that its weights are rounded for (ARITHMETIC.md 2).
It works on the QDQ graph, before bias correction and `round-weights`, so that these see the weights that will run.
Behind passes that learn scales it moves the weights along with them: the integers stay.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from mulshift.ir import Array, QParams, constant, is_float, sole_user
from mulshift.ir.dyadic import INT32_LIMIT, accumulator_bound, is_narrow
from mulshift.passes.base import Contract, Pass
from mulshift.passes.groups import as_multiples
from mulshift.passes.integer.constants import real_constant
from mulshift.passes.integer.move import MOVERS
from mulshift.passes.integer.quantization import dequantize_qparams, quantize_qparams
from mulshift.passes.integer.scales import narrow_dyadics, requantization
from mulshift.passes.pairs import BITS
from mulshift.passes.twins import FLOAT_ORIGIN, replace_initializer

_PRODUCTS = ("Conv", "Gemm", "MatMul")
_ROUNDS = 64
_NOISE = 0.01
_ON_GRID = 1e-3
_STAYS_A_SIGN = 0.25
"""Weights of one bit are on the grid of the old scale: 1 step of it rounds to 1 step of one no further away."""


@dataclass(frozen=True)
class _Site:
    """A product with a pair on its input, its weights and its output.

    `weights` are float64 in units of their group's multiple, so that `weights / scale` are the integers of any;
    `multiple` is of the shape of the weights, or one number where there are no groups; `scale` is [channels].
    `learned`: a pass before this one has put the weights on their grid.
    """

    quantizer: ir.Node
    weights: Array
    multiple: Array
    scale: Array
    axis: int
    s_x: float
    magnitude: int
    s_y: float
    reach: int
    bias: Array
    learned: bool

    @property
    def shape(self) -> tuple[int, ...]:
        """That [channels] has to broadcast against the weights."""
        return tuple(-1 if i == self.axis else 1 for i in range(self.weights.ndim))

    def integers(self, scale: Array) -> Array:
        """Weights in steps of a scale a channel; learned ones are what they are, whatever the scale."""
        own = self.scale if self.learned else scale
        return np.asarray(np.clip(np.rint(self.weights / own.reshape(self.shape)), -128, 127) * self.multiple, np.int64)


@dataclass
class NarrowScales(Pass):
    """Re-choose weight scales for short dyadic mantissas.

    Attributes:
        min_bits: fewest mantissa bits; a scale moves by less than `2^-min_bits` of itself.
    """

    name: ClassVar[str] = "narrow-scales"
    contract: ClassVar[Contract] = Contract.LOSSY
    min_bits: int = 6

    def rewrite(self, model: ir.Model) -> None:
        """One product at a time: all its channels become narrow, or none is touched."""
        for node in model.graph:
            if node.domain or node.op_type not in _PRODUCTS:
                continue
            found = _site(node)
            if isinstance(found, str):
                self.skipped(node, found)
                continue
            if _is_free(found):
                continue
            chosen = self._narrow(found, found.scale)
            if chosen is None:
                self.skipped(node, f"a channel needs fewer than {self.min_bits} bits to be narrow")
                continue
            moved = float(np.abs(chosen / found.scale - 1).max())
            if found.learned and moved > 2.0**-self.min_bits:
                self.skipped(node, "its learned scales would move too far")
                continue
            if found.quantizer.metadata_props.get(BITS) == "1" and moved > _STAYS_A_SIGN:
                self.skipped(node, "its signs would not stay signs at the scale that it needs")
                continue
            value = found.quantizer.inputs[1]
            assert value is not None
            value.const_value = ir.tensor(_moved(value, chosen / found.scale, found.axis), name=value.name)
            if found.learned:
                _move_weights(model.graph, found, chosen / found.scale)
            self.changed(node, f"scales of {chosen.size} channels moved by at most {moved:.1e}")

    def _narrow(self, site: _Site, scale: Array) -> Array | None:
        """Scales whose dyadic numbers are narrow with the weights rounded for them, or None."""
        ratio = site.s_x * scale / site.s_y
        highest = _harmless_ratio(site)
        bound = _bound(site, scale)
        for _ in range(_ROUNDS):
            b, c, found = narrow_dyadics(ratio, np.minimum(bound, INT32_LIMIT), self.min_bits)
            if not found.all():
                if (ratio[~found] >= highest).any():
                    return None
                ratio = np.where(found, ratio, np.minimum(2 * ratio, highest))
                bound = _bound(site, ratio * site.s_y / site.s_x)
                continue
            value = np.where(b == 0, ratio, np.ldexp(b.astype(np.float64), -c))
            chosen = (value * site.s_y / site.s_x).astype(np.float32).astype(np.float64)
            after = _bound(site, chosen)
            if is_narrow(b, c, after).all():
                return chosen
            bound = np.maximum(bound, after) + np.maximum(bound // 256, 1)
        return None


def _harmless_ratio(site: _Site) -> float:
    """The largest `M = s_acc / s_y` at which rounding the weights adds noise of `_NOISE` steps to the output.

    K weights, off by `s_w / sqrt(12)` each, times inputs of a quarter of their range. A channel whose bias is far
    larger than its weights (its accumulator is nearly all bias) may take a scale up to this one.
    """
    depth = site.weights.size / site.weights.shape[site.axis]
    return float(_NOISE / (np.sqrt(depth / 12) * site.magnitude / 4))


def _moved(scale: ir.Value, factor: Array, axis: int) -> Array:
    """The scales, one a channel or one a group, each channel's times its factor."""
    before = constant(scale)
    assert before is not None
    shape = [1] * before.ndim
    shape[axis if before.ndim > 1 else 0] = -1
    return (before.astype(np.float64) * factor.reshape(shape)).astype(np.float32)


def _move_weights(graph: ir.Graph, site: _Site, factor: Array) -> None:
    """Weights on their grid stay on it."""
    value = site.quantizer.inputs[0]
    array = constant(value)
    assert value is not None and array is not None
    moved = (array.astype(np.float64) * factor.reshape(site.shape)).astype(np.float32)
    site.quantizer.replace_input_with(0, replace_initializer(graph, value, f"{value.name}.narrow", moved))


def _bound(site: _Site, scale: Array) -> Array:
    bias = np.rint(site.bias / np.maximum(site.s_x * scale, 1e-38))
    q = site.integers(scale)
    safe = np.clip(bias, -(2.0**62), 2.0**62).astype(np.int64)
    return accumulator_bound(q, np.broadcast_to(safe, (q.shape[site.axis],)), site.magnitude, site.axis)


def _is_free(site: _Site) -> bool:
    bound = _bound(site, site.scale)
    if (bound >= INT32_LIMIT).any():
        return False
    return requantization(site.s_x * site.scale / site.s_y, bound, site.reach)[2] == "narrow"


def _site(node: ir.Node) -> _Site | str:
    """The product's quantizations, or why there are none to work on."""
    quantizer = _weight_quantizer(node.inputs[1])
    if quantizer is None:
        return "its weights are not its own floats behind a pair"
    w_q, weights = quantize_qparams(quantizer), constant(quantizer.inputs[0])
    x_q, out = _input(node.inputs[0]), _output(node)
    if w_q is None or weights is None or w_q.spec.bits > 8 or np.any(w_q.zero_point):
        return "its weights are not symmetric"
    if x_q is None or out is None:
        return "its input or output has no pair"
    y_q, added = out
    axis = _channel_axis(node, weights.ndim)
    scaled = _scales(w_q, weights, axis)
    if isinstance(scaled, str):
        return scaled
    scale, multiple = scaled
    steps = weights / w_q.shaped(weights.shape)[0]
    on_grid = quantizer.metadata_props.get(BITS) != "1" and np.abs(steps - np.rint(steps)).max(initial=0) < _ON_GRID
    learned = on_grid and FLOAT_ORIGIN in quantizer.inputs[0].meta  # type: ignore[union-attr]
    if on_grid and not learned:
        return "its weights are on their grid already"
    own = real_constant(node.inputs[2]) if len(node.inputs) > 2 else np.zeros(1)
    if own is None:
        return "its bias is not constant"
    bias = own.reshape(-1) + added
    if bias.size not in (1, weights.shape[axis]):
        return "its bias is not one number a channel"
    return _Site(
        quantizer, weights / multiple, multiple, scale, axis, float(x_q.scale), x_q.magnitude, float(y_q.scale),
        y_q.spec.qmax - y_q.spec.qmin, bias, learned,
    )  # fmt: skip


def _scales(q: QParams, weights: Array, axis: int) -> tuple[Array, Array] | str:
    """(float64 scale a channel, multiples that broadcast against the weights), or why there are none."""
    if q.spec.group is None:
        scale = q.scale.astype(np.float64)
        return (scale, np.ones(())) if q.spec.axis == axis else "its weights have one scale for all channels"
    found = as_multiples(q.scale, axis)
    if isinstance(found, int):
        return "the scales of its groups are no multiples of one a channel"
    multiples = QParams(found[1].astype(np.float32), np.zeros(found[1].shape), q.spec)
    return found[0], multiples.shaped(weights.shape)[0].astype(np.float64)


def _channel_axis(node: ir.Node, rank: int) -> int:
    if node.op_type == "Conv":
        return 0
    transposed = node.op_type == "Gemm" and node.attributes.get("transB") is not None
    return 0 if transposed and node.attributes["transB"].value else rank - 1


def _weight_quantizer(value: ir.Value | None) -> ir.Node | None:
    """The QuantizeLinear of weights that nothing else reads, neither they nor their scale."""
    dequantizer = None if value is None else value.producer()
    if value is None or dequantizer is None or dequantizer.op_type != "DequantizeLinear" or sole_user(value) is None:
        return None
    q = dequantizer.inputs[0]
    quantizer = None if q is None else q.producer()
    if q is None or quantizer is None or quantizer.op_type != "QuantizeLinear" or sole_user(q) is None:
        return None
    scale = quantizer.inputs[1]
    shared = scale is None or {u.node for u in scale.uses()} != {quantizer, dequantizer}
    return None if shared or constant(quantizer.inputs[0]) is None else quantizer


def _input(value: ir.Value | None) -> QParams | None:
    node = None if value is None else value.producer()
    while node is not None and node.op_type in MOVERS and is_float(node.inputs[0]):
        value = node.inputs[0]
        node = None if value is None else value.producer()
    if node is None or node.op_type != "DequantizeLinear":
        return None
    q = dequantize_qparams(node)
    return q if q is not None and q.per_tensor and q.spec.bits <= 8 else None


def _output(node: ir.Node) -> tuple[QParams, Array] | None:
    """(quantization after the fused clamps, constant that an Add in between brings)."""
    added: Array = np.zeros(1)
    value = node.outputs[0]
    for _ in range(4):
        user = sole_user(value)
        if user is None:
            return None
        if user.op_type == "QuantizeLinear":
            q = quantize_qparams(user)
            return (q, added) if q is not None and q.per_tensor else None
        if user.op_type == "Add":
            other = user.inputs[1] if user.inputs[0] is value else user.inputs[0]
            array = real_constant(other)
            if array is None:
                return None
            added = added + array.reshape(-1)
        elif user.op_type not in ("Relu", "Clip"):
            return None
        value = user.outputs[0]
    return None
