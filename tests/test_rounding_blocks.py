"""Where a graph is cut into blocks, running a graph in steps, and small samples put together."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from float_graphs import graph, random
from rounding_graphs import build, samples

from mulshift.ir import Interpreter
from mulshift.ir.stepper import Stepper
from mulshift.passes.rounding import feeds as feeds_module
from mulshift.passes.rounding.blocks import Cut, block_sizes, choose_cuts, find_cuts
from mulshift.passes.rounding.feeds import merged
from mulshift.passes.rounding.layers import find_layers
from mulshift.passes.rounding.walk import Walk

CHAIN = "{ a = Conv (x, w) b = Relu (a) c = Conv (b, w) d = Add (c, b) e = Conv (d, w) y = Relu (e) }"
MASKED = "{ m = Mul (x, x) a = Conv (x, w) b = Mul (a, m) c = Conv (b, w) y = Mul (c, m) }"
TWO = "{ a = Conv (x, w) b = Relu (a) y = Conv (b, w) }"


def cuts(body: str, outputs: str = "float[N,2,k,l] y") -> list[tuple[str, int]]:
    m = graph(f"g (float[N,2,5,5] x) => ({outputs}) {body}", {"w": random((2, 2, 1, 1))})
    layers = {str(n.name) for n in m.graph if n.op_type == "Conv"}
    values = {str(v.name) for n in m.graph for v in n.outputs}
    return [(c.value, c.layers) for c in find_cuts(m.graph, layers, values)]


def test_a_residual_block_is_not_cut() -> None:
    assert cuts(CHAIN) == [("a", 1), ("b", 1), ("d", 2), ("e", 3)]


def test_what_no_layer_made_may_be_alive_beside_the_cut() -> None:
    assert cuts(MASKED) == [("a", 1), ("b", 1), ("c", 2)]


def test_a_graph_output_inside_forbids_cuts_behind_it() -> None:
    assert cuts(TWO) == [("a", 1), ("b", 1)]
    assert cuts(TWO, "float[N,2,5,5] b, float[N,2,5,5] y") == [("a", 1), ("b", 1)]
    assert cuts(CHAIN, "float[N,2,5,5] b, float[N,2,5,5] y") == [("a", 1), ("b", 1)]


def test_blocks_end_at_small_values_and_have_at_most_so_many_layers() -> None:
    found = [Cut("a", 1), Cut("b", 2), Cut("c", 3), Cut("c2", 3), Cut("d", 5), Cut("e", 6)]
    sizes = {"a": 9, "b": 9, "c": 4, "c2": 4, "d": 9, "e": 9}
    chosen = choose_cuts(found, 7, sizes, 3)
    assert [c.value for c in chosen] == ["c2", "d"]
    assert block_sizes(chosen, 7) == [3, 2, 2]
    assert choose_cuts(found, 7, sizes, 7) == []
    # five layers without a cut between them stay together
    assert block_sizes(choose_cuts([Cut("z", 5)], 7, {"z": 1}, 2), 7) == [5, 2]


def test_a_graph_in_steps_gives_what_it_gives_at_once() -> None:
    _, model, data = build()
    expected = Interpreter(model).run(data[0])
    stepper = Stepper(model)
    live = stepper.start(data[0])
    for stop in range(0, len(stepper) + 3, 3):
        live = stepper.advance(live, min(stop, len(stepper)))
    for value in model.graph.outputs:
        assert torch.equal(stepper.read(live, value), expected[str(value.name)])


def test_a_step_leaves_its_start_as_it_was_and_keeps_only_what_is_read_later() -> None:
    _, model, data = build()
    stepper = Stepper(model)
    first = stepper.start(data[0])
    before = dict(first.values)
    once, twice = stepper.advance(first, 12), stepper.advance(first, 12)
    assert dict(first.values) == before
    assert [str(v.name) for v in once.values] == [str(v.name) for v in twice.values]
    later = {v for n in stepper.nodes(12, len(stepper)) for v in n.inputs}
    assert set(once.values) <= later


def test_between_blocks_a_sample_holds_one_value_of_each_graph() -> None:
    _, model, data = build()
    layers = find_layers(model.graph, lambda node, why: None)
    walk = Walk(model, layers, data[:2], 2)
    assert [len(b.layers) for b in walk.blocks] == [1, 2, 1]
    for block in walk.blocks[:-1]:
        walk.finish(block)
        for exact, quantized in walk.live:
            assert len(exact.values) == len(quantized.values) == 1


def test_small_samples_are_put_together_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    _, model, _ = build()
    data = samples(7)
    size = int(data[0]["x"].size)
    monkeypatch.setattr(feeds_module, "MOST", 3 * size)
    found = merged(model.graph, data)
    assert [len(f["x"]) for f in found] == [3, 3, 1]
    np.testing.assert_array_equal(np.concatenate([f["x"] for f in found]), np.concatenate([f["x"] for f in data]))
    fixed = graph("g (float[1,8] x) => (float[1,6] y) { y = Gemm (x, w) }", {"w": random((8, 6))})
    rows = [{"x": random((1, 8), i)} for i in range(3)]
    assert len(merged(fixed.graph, rows)) == 3
