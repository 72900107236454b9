"""correct-bias: the mean error of every layer goes into its bias, measured behind corrected layers."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from float_graphs import graph, random

from mulshift.ir import Array, DataError, Feeds, Interpreter, UsageError, constant
from mulshift.passes.calibrate import Calibrate
from mulshift.passes.correct_bias import CorrectBias, MeanError
from mulshift.passes.insert_fake_quant import InsertFakeQuant
from mulshift.passes.round_weights import RoundWeights
from mulshift.passes.twins import float_twin, frozen_twin

TEXT = """
g (float[N, 4, 6, 6] x) => (float[N, 3] y)
{
  a = Conv <pads = [1, 1, 1, 1], group = 4> (x, w1)
  r = Relu (a)
  c = Conv (r, w2, b2)
  p = GlobalAveragePool (c)
  f = Flatten (p)
  y = Gemm (f, w3, b3)
}
"""
WEIGHTS = {
    "w1": random((4, 1, 3, 3), 1),
    "w2": random((6, 4, 1, 1), 2),
    "b2": random((6,), 3),
    "w3": random((6, 3), 4),
    "b3": random((3,), 5),
}


def samples(count: int = 8, seed: int = 10) -> list[Feeds]:
    return [{"x": random((4, 4, 6, 6), seed + k, low=0.0, high=1.0)} for k in range(count)]


def qdq(text: str = TEXT, bits: int = 4) -> ir.Model:
    m = graph(text, {k: v for k, v in WEIGHTS.items() if k in text})
    Calibrate(samples=samples())(m)
    InsertFakeQuant(weight_bits=bits)(m)
    return m


def mean_error(m: ir.Model, name: str, data: list[Feeds]) -> Array:
    exact, quantized = Interpreter(graph(TEXT, WEIGHTS)), Interpreter(m)
    errors = [(quantized.run(f, outputs=[name])[name] - exact.run(f, outputs=[name])[name]).numpy() for f in data]
    e = np.concatenate(errors)
    return np.asarray(e.mean(axis=tuple(i for i in range(e.ndim) if i != 1)))


def bias(m: ir.Model, output: str) -> Array:
    found = constant(next(n for n in m.graph if n.outputs[0].name == output).inputs[2])
    assert found is not None
    return found


@pytest.mark.parametrize("name", ["a", "c", "y"])
def test_mean_errors_nearly_vanish(name: str) -> None:
    m = qdq()
    before = np.abs(mean_error(m, name, samples())).max()
    CorrectBias(samples=samples())(m)
    # what is left: noise kept out by shrinking, and layers that were measured behind unfinished means
    assert np.abs(mean_error(m, name, samples())).max() < 0.2 * before


def test_a_single_layer_is_corrected_by_its_mean_error() -> None:
    text = "g (float[N, 4, 6, 6] x) => (float[N, 6, 6, 6] y) { y = Conv (x, w2, b2) }"
    m = qdq(text)
    exact, quantized = Interpreter(float_twin(m)), Interpreter(m)
    (data,) = samples(1)
    error = (quantized.run(data)["y"] - exact.run(data)["y"]).mean(dim=(0, 2, 3)).numpy()
    CorrectBias(samples=[data])(m)
    # one float32 mean and one subtraction
    np.testing.assert_allclose(bias(m, "y"), WEIGHTS["b2"] - error, rtol=0, atol=1e-6)


def test_a_missing_bias_is_made_and_a_shared_one_not_touched() -> None:
    text = """g (float[N, 4, 6, 6] x) => (float[N, 6, 6, 6] y, float[N, 6, 6, 6] z, float[6] b) {
      y = Conv (x, w2, b2) z = Conv (x, w2) b = Identity (b2) }"""
    m = qdq(text)
    CorrectBias(samples=samples())(m)
    assert np.abs(bias(m, "z")).max() > 0
    assert (bias(m, "y") != WEIGHTS["b2"]).any()
    np.testing.assert_array_equal(m.graph.initializers["b2"].const_value.numpy(), WEIGHTS["b2"])  # type: ignore[union-attr]


def test_float_layers_and_computed_biases_are_left_alone() -> None:
    text = "g (float[N, 6] x, float[6] t) => (float[N, 3] y, float[6, 3] z) { y = Gemm (x, w3) z = Gemm (u, w3, t) }"
    m = graph(
        text.replace("u,", "x,").replace("float[6] t", "float[3] t").replace("z = ", "z = "), {"w3": WEIGHTS["w3"]}
    )
    feeds = [{"x": random((2, 6)), "t": random((3,))}]
    next(iter(m.graph)).name = "kept"
    Calibrate(samples=feeds)(m)
    InsertFakeQuant(skip=["kept"])(m)
    step = CorrectBias(samples=feeds)
    assert not step(m).modified
    told = " ".join(n.what for n in step.log.skipped)
    assert "its weights are not quantized" in told
    assert "its bias is not a constant vector" in told


def test_a_graph_without_layers_needs_no_samples() -> None:
    m = graph("g (float[2] x) => (float[2] y) { y = Neg (x) }")
    assert not CorrectBias()(m).modified


def test_it_is_deterministic() -> None:
    made = []
    for _ in range(2):
        m = qdq()
        CorrectBias(samples=samples())(m)
        made.append(ir.to_proto(m).SerializeToString(deterministic=True))
    assert made[0] == made[1]


def test_a_second_run_changes_nothing() -> None:
    m = qdq()
    CorrectBias(samples=samples())(m)
    before = bias(m, "c").copy()
    assert not CorrectBias(samples=samples())(m).modified
    np.testing.assert_array_equal(bias(m, "c"), before)


def test_the_float_model_is_the_reference_after_learned_rounding_too() -> None:
    m = qdq()
    RoundWeights(samples=samples())(m)
    CorrectBias(samples=samples())(m)
    data = samples(1)[0]
    plain = Interpreter(graph(TEXT, WEIGHTS)).run(data)["y"]
    assert bool((Interpreter(float_twin(m)).run(data)["y"] == plain).all())
    assert bool((Interpreter(float_twin(m.clone())).run(data)["y"] == plain).all())


def test_bad_samples_get_one_line() -> None:
    with pytest.raises(DataError, match="holds no sample"):
        CorrectBias()(qdq())
    with pytest.raises(DataError, match="'x' has shape"):
        CorrectBias(samples=[{"x": random((4, 5, 6, 6))}])(qdq())


def test_it_stops_when_it_has_seen_enough() -> None:
    seen: list[int] = []
    CorrectBias(samples=samples(), max_samples=9, progress=lambda done, total: seen.append(done))(qdq())
    assert seen == [1, 2, 3]  # four rows of the batch axis each
    with pytest.raises(UsageError):
        CorrectBias(samples=samples(), max_samples=0)(qdq())


def test_noise_is_not_corrected() -> None:
    rng = np.random.default_rng(0)
    errors = MeanError()
    for _ in range(50):
        positions = rng.integers(1, 5, 2).astype(np.float64)
        errors.add((np.asarray([0.0, 10.0]) + rng.standard_normal(2)) * positions, positions)
    assert abs(errors.shrunken()[0]) < abs(errors.mean[0])
    assert 0.99 * errors.mean[1] < errors.shrunken()[1] < errors.mean[1]
    assert errors.mean[1] == pytest.approx(10.0, abs=0.5)  # standard error 1 / sqrt(50) = 0.14


def test_a_channel_never_seen_is_not_corrected() -> None:
    errors = MeanError()
    for _ in range(3):
        errors.add(np.asarray([0.0, 2.0]), np.asarray([0.0, 4.0]))
    np.testing.assert_array_equal(errors.shrunken(), [0.0, 0.5])


@pytest.mark.parametrize("clamp", ["Relu (a)", "Clip (a, low, high)", "Clip (a, , high)"])
def test_behind_a_clamp_only_what_passes_it_counts(clamp: str) -> None:
    text = f"g (float[N, 4, 6, 6] x) => (float[N, 6, 6, 6] y) {{ a = Conv (x, w2, b2) y = {clamp} }}"
    bounds = {"low": np.asarray(-0.2, np.float32), "high": np.asarray(0.1, np.float32)}
    weights = WEIGHTS | {k: v for k, v in bounds.items() if k in clamp}
    (data,) = samples(1)
    m = graph(text, {k: v for k, v in weights.items() if k in text})
    plain = Interpreter(m).run(data, outputs=["a"])["a"].numpy()
    Calibrate(samples=[data])(m)
    InsertFakeQuant(weight_bits=4)(m)
    error = Interpreter(m).run(data, outputs=["a"])["a"].numpy() - plain
    CorrectBias(samples=[data])(m)
    low = 0.0 if "Relu" in clamp else -0.2 if "low" in clamp else -np.inf
    passes = (plain > low) & (plain < (np.inf if "Relu" in clamp else 0.1))
    expected = (error * passes).sum(axis=(0, 2, 3)) / np.maximum(passes.sum(axis=(0, 2, 3)), 1)
    assert 0 < passes.mean() < 1
    # float32 sums of 144 terms
    np.testing.assert_allclose(WEIGHTS["b2"] - bias(m, "a"), expected, rtol=0, atol=1e-5)


def test_the_twins_are_the_float_graph_and_the_quantized_one() -> None:
    m = qdq()
    feeds = samples(1)[0]
    plain = Interpreter(graph(TEXT, WEIGHTS)).run(feeds)["y"]
    assert bool((Interpreter(float_twin(m)).run(feeds)["y"] == plain).all())
    quantized = Interpreter(m).run(feeds)["y"]
    assert bool((Interpreter(frozen_twin(m)).run(feeds)["y"] == quantized).all())
    assert not [n for n in frozen_twin(m).graph if n.inputs[0] is not None and n.inputs[0].is_initializer()]
