"""Learned rounding: closer outputs than nearest, on the grid, within limits."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
import torch
from float_graphs import graph, random
from rounding_graphs import PRODUCTS, build, error, numbers, samples

from mulshift.ir import DataError, UsageError, constant
from mulshift.passes import PASSES
from mulshift.passes.decoupleq import DecoupleQ, factor
from mulshift.passes.gptq import Gptq
from mulshift.passes.lattice import Grid, descend, output_error
from mulshift.passes.pairs import pair_qparams, pair_source
from mulshift.passes.round_nearest import RoundNearest
from mulshift.passes.rounding.problem import Problem, Solution
from mulshift.passes.rounding.regression import regress, shrunken
from mulshift.passes.to_integer import ToInteger
from mulshift.passes.tune_scales import TuneScales

METHODS = ("gptq", "adaround", "flexround", "decoupleq")
FIXED_SCALES = ("round-nearest", "gptq", "adaround")


def weights(model: ir.Model) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Node -> (float weights, scale) of each product."""
    found = {}
    for node in model.graph:
        if node.op_type not in PRODUCTS or node.inputs[1] is None:
            continue
        made = node.inputs[1].producer()
        assert made is not None
        array, q = constant(pair_source(made)), pair_qparams(made)
        assert array is not None and q is not None
        found[str(node.name)] = array, q.scale.reshape([-1] + [1] * (array.ndim - 1))
    return found


@pytest.mark.parametrize("granularity", ["layer", "block"])
@pytest.mark.parametrize("method", METHODS)
def test_outputs_are_closer_than_to_nearest_and_weights_are_on_their_grid(method: str, granularity: str) -> None:
    exact, model, data = build()
    unseen = samples(10, 1)
    before, old = error(exact, model, unseen), weights(model)
    PASSES[method](samples=data, granularity=granularity, iterations=60)(model)  # type: ignore[call-arg]
    assert error(exact, model, unseen) < 0.5 * before
    for name, (array, scale) in weights(model).items():
        steps = array / scale
        assert np.abs(steps - np.rint(steps)).max() < 1e-5  # one float32 product of an integer and a scale
        assert np.abs(np.rint(steps)).max() <= 7
        if method in FIXED_SCALES and granularity == "layer":
            np.testing.assert_array_equal(scale, old[name][1])


def test_to_nearest_only_moves_weights_onto_the_grid() -> None:
    exact, model, data = build()
    before = error(exact, model, data)
    RoundNearest(samples=data)(model)
    # the very integers that QuantizeLinear makes of them: nothing but weights has changed, by float32 rounding
    assert error(exact, model, data) == pytest.approx(before, rel=1e-4)


def test_aiming_at_the_float_outputs_and_biases_help_rounding_to_nearest() -> None:
    exact, model, data = build()
    before = error(exact, model, samples(10, 1))
    RoundNearest(samples=data, compensate=True)(model)
    assert error(exact, model, samples(10, 1)) < before
    assert all(len(n.inputs) == 3 for n in model.graph if n.op_type == "Conv")  # the depthwise one got a bias


def test_adaround_goes_up_or_down_and_no_further() -> None:
    _, model, data = build()
    old = weights(model)
    PASSES["adaround"](samples=data, iterations=60, compensate=False)(model)  # type: ignore[call-arg]
    for name, (array, _) in weights(model).items():
        ratio = old[name][0] / old[name][1]
        low = np.clip(np.floor(ratio), -7, 6)
        assert np.isin(np.rint(array / old[name][1]) - low, (0, 1)).all()


@pytest.mark.parametrize("method", [*METHODS, "round-nearest", "tune-scales"])
def test_the_same_samples_give_the_same_bytes(method: str) -> None:
    results = []
    for _ in range(2):
        _, model, data = build()
        PASSES[method](samples=data[:8], iterations=5)(model)  # type: ignore[call-arg]
        results.append(numbers(model))
    assert results[0] == results[1]


def test_integers_of_the_artifact_are_the_rounded_ones() -> None:
    _, model, data = build()
    DecoupleQ(samples=data)(model)
    expected = {str(n): np.rint(a / s) for n, (a, s) in weights(model).items()}
    ToInteger()(model)
    stored = [constant(v) for n in model.graph for v in n.inputs[1:2] if n.domain == "mulshift"]
    found = [a for a in stored if a is not None and a.dtype == np.int8]
    for integers in expected.values():
        assert any(
            a.size == integers.size and np.array_equal(np.sort(a, axis=None), np.sort(integers, axis=None))
            for a in found
        )


def test_tuned_scales_bring_the_outputs_closer_and_keep_the_integers() -> None:
    exact, model, data = build()
    RoundNearest(samples=data)(model)
    before, old = error(exact, model, data), weights(model)
    TuneScales(samples=data, iterations=100, rate=5e-3)(model)
    assert error(exact, model, data) < 0.7 * before
    for name, (array, scale) in weights(model).items():
        np.testing.assert_array_equal(np.rint(array / scale), np.rint(old[name][0] / old[name][1]))
        assert (scale != old[name][1]).any()


def test_8_bit_weights_may_be_rounded_too() -> None:
    exact, model, data = build(bits=8)
    before = error(exact, model, samples(10, 1))
    Gptq(samples=data)(model)
    assert error(exact, model, samples(10, 1)) < before


def test_matmul_with_a_bias_behind_it() -> None:
    text = "g (float[N,4,8] x) => (float[N,4,6] y) { h = MatMul (x, w) y = Add (h, b) }"
    rng = np.random.default_rng(0)
    data = [{"x": (rng.uniform(0, 1, (1, 4, 1)) + 0.1 * rng.uniform(0, 1, (1, 4, 8))).astype("f")} for _ in range(40)]
    from mulshift.passes.calibrate import Calibrate
    from mulshift.passes.insert_fake_quant import InsertFakeQuant

    exact = graph(text, {"w": random((8, 6)), "b": random((6,), 1)})
    Calibrate(samples=data)(exact)
    model = exact.clone()
    InsertFakeQuant(weight_bits=4)(model)
    before = error(exact, model, data)
    Gptq(samples=data)(model)
    assert error(exact, model, data) < 0.3 * before
    assert "b.rounded" in model.graph.initializers


def test_bad_samples_and_options_get_one_line() -> None:
    _, model, data = build()
    with pytest.raises(DataError, match="holds no sample"):
        Gptq()(model)
    for options in ({"max_samples": 0}, {"positions": 0}, {"granularity": "net"}, {"damping": 0.0}):
        with pytest.raises(UsageError, match="gptq"):
            Gptq(samples=data, **options)(model)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="decoupleq"):
        DecoupleQ(samples=data, turns=0)(model)
    with pytest.raises(UsageError, match="tune-scales"):
        TuneScales(samples=data, rate=0.0)(model)


def _problem(seed: int, outputs: int = 4, inputs: int = 6) -> Problem:
    rng = np.random.default_rng(seed)
    x = torch.from_numpy(rng.uniform(0, 1, (50, 1)) + 0.2 * rng.uniform(0, 1, (50, inputs)))
    target = torch.from_numpy(rng.uniform(-3, 3, (1, outputs, inputs)))
    return Problem(target, (x.T @ x)[None], torch.ones(1, outputs, inputs, dtype=torch.float64), Grid(-3, 3))


@pytest.mark.parametrize("seed", range(10))
def test_coordinate_descent_never_makes_it_worse_and_ends_where_no_single_step_helps(seed: int) -> None:
    p = _problem(seed)
    start = p.grid.round(p.target)
    q = descend(start, p.target, p.energy, p.scale, p.grid, 50)
    assert (p.error(q) <= p.error(start) + 1e-9).all()
    assert q.abs().max() <= 3
    for k in range(q.shape[2]):
        for step in (-1, 1):
            other = q.clone()
            other[:, :, k] = (other[:, :, k] + step).clamp(-3, 3)
            assert (p.error(other) >= p.error(q) - 1e-9).all()


def test_columns_in_parts_are_the_same_descent(monkeypatch: pytest.MonkeyPatch) -> None:
    p = _problem(0, inputs=7)
    whole = descend(p.grid.round(p.target), p.target, p.energy, p.scale, p.grid, 3)
    monkeypatch.setattr("mulshift.passes.lattice._LAZY", 3)
    assert torch.equal(whole, descend(p.grid.round(p.target), p.target, p.energy, p.scale, p.grid, 3))


def test_the_fitted_scale_is_the_best_one() -> None:
    p = _problem(3)
    found = Solution(p.grid.round(p.target), p.scale)
    a = factor(p, found)
    for other in (0.99 * a, 1.01 * a):
        assert (p.error(a * found.weights) <= p.error(other * found.weights)).all()


def test_of_one_bit_there_are_two_values() -> None:
    x = torch.tensor([-3.0, -0.1, 0.0, 0.2])
    assert Grid(-1, 1, binary=True).round(x).tolist() == [-1, -1, 1, 1]


def test_regression_recovers_weights_that_undo_a_change_of_the_inputs() -> None:
    rng = np.random.default_rng(0)
    u = torch.from_numpy(rng.normal(size=(2000, 5)))
    x = u * torch.tensor([1.0, 0.5, 2.0, 1.0, 1.0], dtype=torch.float64)
    w = torch.from_numpy(rng.normal(size=(1, 3, 5)))
    halves = [((x[i::2].T @ x[i::2])[None], (u[i::2].T @ x[i::2])[None]) for i in (0, 1)]
    expected = w / torch.tensor([1.0, 0.5, 2.0, 1.0, 1.0], dtype=torch.float64)
    # the smallest ridge that is tried, 1 % of the mean energy, leaves up to 8 % on the weakest input
    torch.testing.assert_close(regress(w, halves), expected, rtol=0.1, atol=0.0)


def test_regression_leaves_weights_alone_where_inputs_differ_by_noise() -> None:
    rng = np.random.default_rng(0)
    u = torch.from_numpy(rng.normal(size=(12, 40)))  # fewer rows than weights: anything could be fitted
    x = u + 0.1 * torch.from_numpy(rng.normal(size=u.shape))
    w = torch.from_numpy(rng.normal(size=(1, 3, 40)))
    halves = [((x[i::2].T @ x[i::2])[None], (u[i::2].T @ x[i::2])[None]) for i in (0, 1)]
    assert float((regress(w, halves) - w).abs().max()) < 0.05


def test_moments_of_few_rows_shrink_and_those_of_many_hardly() -> None:
    rng = np.random.default_rng(0)
    spread = np.linspace(0.2, 2.0, 30)

    def halves(rows: int) -> tuple[torch.Tensor, torch.Tensor]:
        x = torch.from_numpy(rng.normal(size=(2, rows, 30)) * spread)
        return (x[0].T @ x[0])[None] / rows, (x[1].T @ x[1])[None] / rows

    truth = torch.diag(torch.from_numpy(2 * spread**2))[None]
    for rows, least in ((10, 0.1), (10_000, 0.0)):
        a, b = halves(rows)
        h = shrunken(a, b)
        moved = float((h - a - b).norm() / (a + b).norm())
        assert (moved > least) if least else (moved < 0.01)
        assert float((h - truth).norm()) <= float((a + b - truth).norm())


def test_output_error_is_the_quadratic_form() -> None:
    p = _problem(1)
    d = p.target[0, 0]
    assert float(output_error(p.target, p.energy)[0, 0]) == pytest.approx(float(d @ p.energy[0] @ d))
