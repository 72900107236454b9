"""permute-channels: the same function, more of the scores kept, and reasons where channels must stay."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import onnx_ir as ir
import pytest
from float_graphs import graph, random
from rounding_graphs import error, numbers
from sparse_graphs import build, samples

from mulshift.ir import Array, UsageError
from mulshift.passes.calibrate import Calibrate
from mulshift.passes.insert_fake_quant import InsertFakeQuant
from mulshift.passes.permute_channels import PermuteChannels
from mulshift.passes.sparsify import Sparsify
from mulshift.passes.sparsity.channel_order import Search, kept_score, search

ROUNDING = 1e-10
"""Of the squared outputs: float32 sums in another order."""


def _tokens(count: int = 4) -> list[dict[str, Array]]:
    rng = np.random.default_rng(0)
    return [{"ids": rng.integers(0, 20, (1, 6))} for _ in range(count)]


TRANSFORMER = """g (int64[1,6] ids) => (float[1,6,20] y) {
 e = Gather (table, ids)
 n = LayerNormalization (e, g1, c1)
 h = MatMul (n, w1) hb = Add (h, b1) a = Gelu (hb) m = MatMul (a, w2) mb = Add (m, b2)
 r = Add (e, mb)
 z = LayerNormalization (r, g2, c2)
 gate = MatMul (z, w3) s = Sigmoid (gate) up = MatMul (z, w4) p = Mul (s, up) d = MatMul (p, w5)
 r2 = Add (r, d)
 turned = Transpose <perm = [1, 0]> (table)
 y = MatMul (r2, turned) }"""
SIZES = {
    "table": (20, 8), "g1": (8,), "c1": (8,), "w1": (8, 16), "b1": (16,), "w2": (16, 8), "b2": (8,), "g2": (8,),
    "c2": (8,), "w3": (8, 12), "w4": (8, 12), "w5": (12, 8),
}  # fmt: skip


def _transformer() -> ir.Model:
    return graph(TRANSFORMER, {name: random(shape, i) for i, (name, shape) in enumerate(SIZES.items())})


@pytest.mark.parametrize("options", [{}, {"escapes": 2, "seed": 3}, {"pattern": "1:4"}, {"pattern": "2:4:shared"}])
@pytest.mark.parametrize(("make", "data"), [(build, samples(4)), (_transformer, _tokens())])
def test_the_function_stays_and_more_is_kept(make, data, options) -> None:  # type: ignore[no-untyped-def]
    dense, model = make(), make()
    step = PermuteChannels(**options)
    assert step(model).modified
    assert error(dense, model, data) < ROUNDING
    told = [note.what.split("order: ")[1].split(" % ")[0].split(" to ") for note in step.log.changed]
    assert all(float(after) >= float(before) for before, after in told)


def test_streams_gates_and_tied_tables_are_permuted_in_place() -> None:
    model = _transformer()
    step = PermuteChannels()
    step(model)
    assert len(step.log.changed) == 3  # the stream, the hidden channels, and both sides of the gate
    assert set(model.graph.initializers) == set(SIZES)  # the table, which the head reads turned, has no copy


def test_zeros_cost_less_afterwards() -> None:
    errors = []
    for permuted in (False, True):
        dense, model = build(), build()
        if permuted:
            PermuteChannels(score="wanda", samples=samples(24))(model)
        Sparsify(score="wanda", samples=samples(24))(model)
        errors.append(error(dense, model, samples(10, 1)))
    assert errors[1] < errors[0]


def test_channels_that_must_stay_are_reported() -> None:
    step = PermuteChannels()
    step(build())
    assert any("groups of more than a channel" in note.what for note in step.log.skipped)
    text = "g (float[N,8] x) => (float[N,8] h, float[N,8] y) { h = MatMul (x, w) y = MatMul (h, v) }"
    step = PermuteChannels()
    assert not step(graph(text, {"w": random((8, 8)), "v": random((8, 8), 1)})).modified
    assert "'x' is a graph input" in step.log.skipped[0].what
    assert "'h' is a graph output" in step.log.skipped[1].what


def test_it_is_deterministic_and_a_second_run_gains_nothing() -> None:
    models = [build(), build()]
    for model in models:
        PermuteChannels(sweeps=50)(model)
    assert numbers(models[0]) == numbers(models[1])
    assert not PermuteChannels(sweeps=50)(models[0]).modified


def test_bad_options_and_graphs_get_one_line() -> None:
    for options in ({"score": "size"}, {"sweeps": 0}, {"pattern": "2"}, {"score": "wanda"}):
        with pytest.raises(UsageError):
            PermuteChannels(**options)(build())  # type: ignore[arg-type]
    model = build()
    Calibrate(samples=samples(2))(model)
    InsertFakeQuant()(model)
    with pytest.raises(UsageError, match="run it before insert-fake-quant"):
        PermuteChannels()(model)


@pytest.mark.parametrize(("kept", "of"), [(1, 2), (2, 4), (1, 4), (3, 4)])
def test_of_few_channels_the_search_finds_what_all_orders_offer(kept: int, of: int) -> None:
    scores = np.random.default_rng(of + kept).exponential(size=(6, 2 * of if of == 4 else 6)).astype(np.float32)
    found = kept_score(scores[:, search(scores, kept, of, Search(escapes=8))], kept, of)
    best = max(kept_score(scores[:, list(order)], kept, of) for order in _orders(scores.shape[1], of))
    assert found == pytest.approx(best, rel=1e-6)


def _orders(channels: int, of: int) -> list[tuple[int, ...]]:
    """Orders with rising channels in each group: the others keep the same."""
    return [
        o for o in permutations(range(channels)) if all(o[i] < o[i + 1] for i in range(channels - 1) if (i + 1) % of)
    ]
