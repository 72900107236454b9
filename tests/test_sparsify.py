"""sparsify: the pattern is there, outputs stay close, and every pass behind it keeps the zeros."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
from float_graphs import graph, random
from rounding_graphs import error, numbers
from sparse_graphs import PATTERNS, SPARSE, build, integer_patterns, patterns, product, samples

from mulshift.ir import DataError, UsageError, constant
from mulshift.passes import PASSES
from mulshift.passes.adaround import UpOrDown
from mulshift.passes.calibrate import Calibrate
from mulshift.passes.insert_fake_quant import InsertFakeQuant
from mulshift.passes.lattice import Grid, descend, output_error
from mulshift.passes.pipeline import Pipeline
from mulshift.passes.rotate import Rotate
from mulshift.passes.rounding.aim import aim
from mulshift.passes.rounding.layers import Product
from mulshift.passes.rounding.problem import Problem
from mulshift.passes.sparsify import Sparsify
from mulshift.passes.sparsity.admm import admm
from mulshift.passes.sparsity.masks import holds, keep_best, tap_order
from mulshift.passes.sparsity.pattern import SPARSITY, Sparsity, set_sparsity, sparsity_of
from mulshift.passes.sparsity.scores import SCORES
from mulshift.passes.sparsity.sparsegpt import sparsegpt
from mulshift.passes.sparsity.survivors import refit

ROUNDINGS = ("round-weights", "round-nearest", "gptq", "adaround", "flexround", "decoupleq")


def _sparse(pattern: str = "2:4", **options: object) -> tuple[ir.Model, ir.Model, list[dict[str, np.ndarray]]]:
    """(dense model, sparse model, samples)."""
    model, data = build(), samples(24)
    sparse = model.clone()
    Sparsify(samples=data, pattern=pattern, **options)(sparse)  # type: ignore[arg-type]
    return model, sparse, data  # type: ignore[return-value]


@pytest.mark.parametrize("score", list(SCORES))
@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_layer_that_can_has_the_pattern(score: str, pattern: str) -> None:
    _, model, _ = _sparse(pattern, score=score)
    assert patterns(model) == dict.fromkeys(SPARSE, pattern)
    for node in model.graph:
        if node.name in SPARSE:
            share = float((product(node).weights != 0).mean())
            assert share == pytest.approx(Sparsity.parse(pattern).density, abs=1e-9)


def test_sparsegpt_is_better_than_wanda_and_that_than_magnitude() -> None:
    errors = []
    for score in ("magnitude", "wanda", "sparsegpt"):
        dense, model, _ = _sparse(score=score)
        errors.append(error(dense, model, samples(10, 1)))
    assert errors[2] < 0.1 * errors[1] < 0.1 * errors[0]


def test_magnitude_needs_no_samples_and_moves_nothing_that_stays() -> None:
    dense = build()
    model = dense.clone()
    Sparsify(score="magnitude")(model)
    for a, b in zip(dense.graph, model.graph, strict=True):
        if a.name in SPARSE:
            old, new = product(a).weights, product(b).weights
            np.testing.assert_array_equal(new[new != 0], old[new != 0])
            np.testing.assert_array_equal(constant(a.inputs[2]), constant(b.inputs[2]))


def test_what_cannot_be_sparse_is_reported_with_the_reason() -> None:
    model = build()
    step = Sparsify(score="magnitude")
    step(model)
    told = {note.where.split("'")[1]: note.what for note in step.log.skipped}
    assert "it has 3 input channels, fewer than 4" in told["a"]
    assert "each of its 8 groups has 1 input channel, fewer than 4" in told["d"]
    step = Sparsify(score="magnitude", pattern="2:5")
    step(build())
    assert "no multiple of 5" in next(note.what for note in step.log.skipped if "'f'" in note.where)


def test_a_second_run_changes_nothing() -> None:
    _, model, data = _sparse(score="wanda")
    before = numbers(model)
    step = Sparsify(samples=data, score="wanda")
    assert not step(model).modified
    assert numbers(model) == before


def test_only_the_layers_that_are_asked_for() -> None:
    assert set(patterns(_sparse(layers=("f", "u"), skip=("u",))[1])) == {"f"}
    with pytest.raises(UsageError, match="no product by constants is called 'z'"):
        Sparsify(layers=("z",), score="magnitude")(build())


def test_a_node_that_has_a_pattern_gets_its_own() -> None:
    model = build()
    nodes = {str(n.name): n for n in model.graph}
    set_sparsity(nodes["f"], Sparsity(1, 4))
    set_sparsity(nodes["a"], Sparsity(2, 4))
    mixed = model.clone()
    Sparsify(score="magnitude")(mixed)
    assert patterns(mixed) == {**dict.fromkeys(SPARSE, "2:4"), "f": "1:4"}
    Sparsify(score="magnitude", pattern="assigned")(model)
    assert patterns(model) == {"f": "1:4"}
    assert sparsity_of(nodes["a"]) is None  # it stayed dense, and the graph says so


def test_weights_that_others_read_stay() -> None:
    text = "g (float[N,8] x) => (float[N,8] y) { h = MatMul (x, w) y = MatMul (h, w) }"
    model = graph(text, {"w": random((8, 8))})
    step = Sparsify(score="magnitude")
    assert not step(model).modified
    assert all("read elsewhere too" in note.what for note in step.log.skipped)


def test_bad_options_and_graphs_get_one_line() -> None:
    model, data = build(), samples(2)
    with pytest.raises(DataError, match="holds no sample"):
        Sparsify()(model)
    for options in ({"score": "size"}, {"pattern": "2 of 4"}, {"pattern": "4:4"}, {"damping": 0.0}):
        with pytest.raises(UsageError):
            Sparsify(samples=data, **options)(model)  # type: ignore[arg-type]
    Calibrate(samples=data)(model)
    InsertFakeQuant()(model)
    with pytest.raises(UsageError, match="run it before insert-fake-quant"):
        Sparsify(samples=data)(model)


def test_a_killed_run_goes_on_with_the_same_bytes(tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    def stop(done: int, total: int | None) -> None:
        if done == 2:
            raise Killed

    data = samples(12)
    expected, model = build(), build()
    Sparsify(samples=data, block_layers=1)(expected)
    with pytest.raises(Killed):
        Sparsify(samples=data, block_layers=1, resume=str(tmp_path), progress=stop)(build())
    Sparsify(samples=data, block_layers=1, resume=str(tmp_path))(model)
    assert numbers(model) == numbers(expected)


# The passes behind it ---------------------------------------------------------------------------------------------


def _finished(model: ir.Model, data: object, rounding: str, **options: object) -> ir.Model:
    """The integer graph, all passes that touch weights or scales between."""
    steps: list[tuple[str, dict[str, object]]] = [
        ("calibrate", {}), ("insert-fake-quant", options), (rounding, {"samples": data}),
        ("tune-scales", {"samples": data, "iterations": 4}), ("narrow-scales", {}), ("correct-bias", {"samples": data}),
        ("to-integer", {}), ("order-channels", {}),
    ]  # fmt: skip
    for name, given in steps:
        given = {**given, "samples": data} if name == "calibrate" else given
        if name in ("adaround", "flexround"):
            given = {**given, "iterations": 30}
        PASSES[name](**given)(model)
    return model


def _magnitude(pattern: str = "2:4") -> ir.Model:
    model = build()
    Sparsify(score="magnitude", pattern=pattern)(model)
    return model


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("pattern", ["2:4", "2:4:shared", "1x4@2:4"])
@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_every_rounding_keeps_the_pattern(rounding: str, pattern: str, bits: int) -> None:
    found = integer_patterns(_finished(_magnitude(pattern), samples(3), rounding, weight_bits=bits))
    assert found == dict.fromkeys(SPARSE, pattern)


@pytest.mark.parametrize("bits", [2, 1])
@pytest.mark.parametrize("rounding", ["gptq", "flexround"])
def test_few_bits_keep_it_and_a_sign_becomes_two(rounding: str, bits: int) -> None:
    assert set(integer_patterns(_finished(_magnitude(), samples(3), rounding, weight_bits=bits))) == set(SPARSE)


@pytest.mark.parametrize("rounding", ROUNDINGS[1:])
def test_groups_and_blocks_keep_the_pattern(rounding: str) -> None:
    model = _magnitude()
    for name, options in (
        ("calibrate", {}),
        ("insert-fake-quant", {"weight_bits": 4, "group": 4}),
        (rounding, {"granularity": "block", "iterations": 8}),
        ("narrow-scales", {}),
        ("to-integer", {}),
    ):
        given = {"samples": samples(3)} if name in ("calibrate", rounding) else {}
        PASSES[name](**options, **given)(model)  # type: ignore[arg-type]
    assert set(integer_patterns(model)) == set(SPARSE)


@pytest.mark.parametrize("rounding", ["gptq", "adaround", "decoupleq"])
def test_rounding_what_stays_is_better_than_to_nearest(rounding: str) -> None:
    _, sparse, data = _sparse()
    errors = {}
    for name in ("round-nearest", rounding):
        model = sparse.clone()
        Calibrate(samples=data)(model)
        InsertFakeQuant(weight_bits=4)(model)
        PASSES[name](samples=data, iterations=60)(model)  # type: ignore[call-arg]
        errors[name] = error(sparse, model, samples(10, 1))
    assert errors[rounding] < errors["round-nearest"]


@pytest.mark.parametrize("name", ["canonicalize", "fold-bn", "fuse", "equalize", "smooth", "fold-input", "rotate"])
def test_float_passes_keep_the_pattern(name: str) -> None:
    model, data = _magnitude(), samples(3)
    Calibrate(samples=data)(model)
    PASSES[name](**({"samples": data} if name == "smooth" else {}))(model)
    assert set(patterns(model)) == set(SPARSE)


def test_a_rotation_of_sparse_weights_is_declined() -> None:
    text = "g (float[N,4,8] x) => (float[N,4,8] y) { h = MatMul (x, w) y = MatMul (h, v) }"
    model = graph(text, {"w": random((8, 8)), "v": random((8, 8), 1)})
    assert Rotate()(model.clone()).modified
    Sparsify(score="magnitude", layers=("*h*", "*"), skip=())(model)
    step = Rotate()
    assert not step(model).modified
    assert "rotate before sparsify" in step.log.skipped[0].what


@pytest.mark.parametrize("rounding", ROUNDINGS[1:])
def test_a_target_without_zeros_does_not_fill_them(rounding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where regression on inputs that differ much asks for it; without data the weights are the target."""
    model, data = _magnitude(), samples(8)
    Calibrate(samples=data)(model)
    InsertFakeQuant(weight_bits=4)(model)

    def dense(layer: Product, *given: object) -> tuple[torch.Tensor, torch.Tensor]:
        _, energy = aim(layer, *given)  # type: ignore[arg-type]
        shape = layer.matrix(layer.weights).shape
        return torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 0.5, energy

    monkeypatch.setattr("mulshift.passes.rounding.base.aim", dense)
    PASSES[rounding](samples=data, iterations=100)(model)  # type: ignore[call-arg]
    assert set(patterns(model)) == set(SPARSE)


def test_a_relaxed_choice_and_descent_leave_dropped_weights_at_zero() -> None:
    w, h = _system(0)
    kept = keep_best(w.abs(), Sparsity(2, 4))
    problem = Problem(3 * w * kept, h, torch.ones_like(w), Grid(-7, 7), kept)
    assert not descend(problem.round(problem.target), 3 * w, h, problem.scale, problem.grid, 5, kept)[~kept].any()
    choice = UpOrDown(problem, 0.03, 0.05)
    choice.start(torch.ones_like(w))  # as far up as it goes
    assert not choice.solution().q[~kept].any()
    assert not choice.weights(0.5)[~kept].any()


# The mathematics --------------------------------------------------------------------------------------------------


def test_of_equal_scores_the_first_stay() -> None:
    assert keep_best(torch.ones(1, 1, 8), Sparsity(2, 4))[0, 0].tolist() == [True, True, False, False] * 2


def test_a_row_of_blocks_keeps_its_share_wherever_it_is() -> None:
    scores = torch.zeros(1, 6, 8)
    scores[0, 0, :4] = 1.0
    scores[0, 5, 4:] = 1.0
    kept = keep_best(scores, Sparsity.parse("1x4@2:4"))[0]
    assert kept[:4].tolist() == [[True] * 4 + [False] * 4] * 4
    assert kept[4:].tolist() == [[False] * 4 + [True] * 4] * 2


def test_tiles_share_a_pattern() -> None:
    scores = torch.rand(1, 70, 8, generator=torch.Generator().manual_seed(0))
    kept = keep_best(scores, Sparsity.parse("2:4:shared"))[0]
    assert (kept[:64] == kept[0]).all()
    assert (kept[64:] == kept[64]).all()
    assert not holds(torch.ones(1, 70, 8), Sparsity.parse("2:4:shared"))


def test_groups_of_a_convolution_are_channels_at_one_tap() -> None:
    node = next(n for n in build().graph if n.name == "u")
    order = tap_order(product(node))  # [16, 8, 3, 3]: 9 taps lie between neighbouring channels
    assert order[:9].tolist() == [0, 9, 18, 27, 36, 45, 54, 63, 1]


def _system(seed: int, k: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    x = torch.from_numpy(rng.uniform(0, 1, (60, 1)) + 0.4 * rng.uniform(-1, 1, (60, k)))
    return torch.from_numpy(rng.uniform(-1, 1, (1, 5, k))), (x.T @ x)[None]


@pytest.mark.parametrize("seed", range(5))
def test_the_survivors_are_the_least_squares_of_their_columns(seed: int) -> None:
    w, h = _system(seed)
    kept = keep_best(w.abs(), Sparsity(2, 4))
    found = refit(w, w * kept, kept, h, 1e-9, 200)
    for row in range(w.shape[1]):
        on = kept[0, row]
        exact = torch.linalg.solve(h[0][on][:, on], h[0][on] @ w[0, row])
        torch.testing.assert_close(
            found[0, row, on], exact, rtol=1e-3, atol=1e-4
        )  # float32, and a matrix of condition 100
        assert not found[0, row, ~on].any()


@pytest.mark.parametrize("seed", range(5))
def test_zeros_that_all_weights_agree_on_cost_less_than_those_of_magnitude(seed: int) -> None:
    w, h = _system(seed, 32)
    kept = [keep_best(w.abs(), Sparsity(2, 4)), admm(w, h, Sparsity(2, 4), 0.01)]
    assert all(holds(k.double(), Sparsity(2, 4)) for k in kept)
    errors = [output_error(w - refit(w, w, k, h, 0.01, 100), h).sum() for k in kept]
    assert errors[1] < errors[0]


def test_of_uncorrelated_inputs_sparsegpt_chooses_by_energy_and_moves_nothing() -> None:
    w = torch.from_numpy(np.random.default_rng(0).normal(size=(1, 5, 8)))
    energies = torch.linspace(1, 9, 8, dtype=torch.float64)
    found = sparsegpt(w, torch.diag(energies)[None], Sparsity(2, 4), 1e-9)
    assert found is not None
    expected = w * keep_best(w.square() * energies, Sparsity(2, 4))
    torch.testing.assert_close(found[0], expected, rtol=1e-6, atol=0.0)  # the damping is 1e-9 of the diagonal


def test_metadata_that_is_no_pattern_is_refused() -> None:
    node = ir.node("Conv", [], metadata_props={SPARSITY: "some"})
    with pytest.raises(UsageError, match="'some' is none"):
        sparsity_of(node)


@pytest.mark.parametrize("recipe", ["int8-2x4", "int8-2x4-transformer"])
def test_the_recipes_end_in_integers_with_the_pattern(recipe: str) -> None:
    made = Pipeline(recipe).run(build(), samples(4)).model
    assert integer_patterns(made) == dict.fromkeys(SPARSE, "2:4")
