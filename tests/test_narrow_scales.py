"""narrow-scales: weight scales that make short dyadic numbers exact."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import qdq_graphs as g

from mulshift.ir import Array, constant
from mulshift.passes.gptq import Gptq
from mulshift.passes.narrow_scales import NarrowScales

X = {"x": g.normal(1, 16, 6, 6)}
TEXT = "(float[1,16,6,6] x) => (float out) { h = Conv <pads = [1,1,1,1]> (x, w, b) out = Relu (h) }"


def conv(weight: Array | None = None, bias: float = 1.0) -> ir.Model:
    w = g.normal(8, 16, 3, 3) if weight is None else weight
    return g.qdq(g.graph(TEXT, {"w": w, "b": bias * g.normal(8)}), X)


def scale(model: ir.Model) -> Array:
    found = constant(model.graph.initializers["w.scale"])
    assert found is not None
    return found


def width(model: ir.Model) -> str:
    (node,) = [n for n in g.lower(model).graph if n.op_type == "Conv"]
    return node.metadata_props["mulshift.width"]


def test_it_makes_a_wide_convolution_narrow() -> None:
    model = conv()
    before = scale(model).copy()
    assert width(model) == "wide"
    assert NarrowScales()(model).modified
    assert width(model) == "narrow"
    # 6 bits of mantissa at least: no scale moves by more than 2^-6 of itself.
    assert 0 < np.abs(scale(model) / before - 1).max() < 2**-6
    g.check(model, X)  # and the integer graph is within one step of the QDQ graph with the new scales


def test_a_second_run_changes_nothing() -> None:
    model = conv()
    NarrowScales()(model)
    before = scale(model).copy()
    assert not NarrowScales()(model).modified
    np.testing.assert_array_equal(scale(model), before)


def test_a_channel_that_is_nearly_all_bias_takes_a_larger_scale() -> None:
    weight = g.normal(8, 16, 3, 3)
    weight[3] *= 1e-7
    model = conv(weight)
    NarrowScales()(model)
    assert width(model) == "narrow"
    g.check(model, X)


def test_weights_on_their_grid_keep_their_rounding() -> None:
    grid = np.random.default_rng(0).integers(-126, 127, (8, 16, 3, 3)).astype(np.float32)
    grid[:, 0, 0, 0] = 127
    model = conv(grid / 64)
    pass_ = NarrowScales()
    assert not pass_(model).modified
    assert pass_.log.skipped[0].what == "its weights are on their grid already"


def test_learned_weights_move_with_their_scales() -> None:
    """Integers that a rounding pass chose stay, and the output changes by no more than the scales."""
    model = conv()
    samples = [{"x": g.normal(1, 16, 6, 6, seed=i)} for i in range(8)]
    Gptq(samples=samples)(model)
    before, y = g.lower(model.clone()), g.python_values(model, X)["out"]
    assert width(model) == "wide"
    old = scale(model).copy()
    assert NarrowScales()(model).modified
    assert width(model) == "narrow"
    moved = np.abs(scale(model) / old - 1).max()
    assert 0 < moved <= 2**-6
    after = g.lower(model.clone())
    weights = [next(constant(n.inputs[1]) for n in m.graph if n.op_type == "Conv") for m in (before, after)]
    assert weights[0] is not None and weights[1] is not None and np.array_equal(*weights)
    # the gain of a channel, and a step of the output where that crosses a half
    error = np.abs(y - g.python_values(model, X)["out"]).max()
    assert error <= (moved + 1.01 / 255) * np.abs(y).max()
    g.check(model, X)


def test_shared_weights_are_left_alone() -> None:
    text = "(float[1,4,4,4] x) => (float out) { h = Conv (x, w) r = Relu (h) k = Conv (r, w) out = Relu (k) }"
    feeds = {"x": g.normal(1, 4, 4, 4)}
    model = g.graph(text, {"w": g.normal(4, 4, 1, 1)})
    first, second = [n for n in model.graph if n.op_type == "Conv"]
    model = g.qdq(model, feeds)
    second.replace_input_with(1, first.inputs[1])
    assert not NarrowScales()(model).modified


def test_too_few_bits_leave_the_layer_wide() -> None:
    model = conv()
    pass_ = NarrowScales(min_bits=24)
    assert not pass_(model).modified
    assert "fewer than 24 bits" in pass_.log.skipped[0].what
