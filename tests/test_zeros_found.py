"""Patterns of zeros, found by the values of weights at every level, and why a product has no sparse kernel."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qdq_graphs import graph

import mulshift
from mulshift.ir import Array
from mulshift.passes.sparsity.found import fits, pattern_of, zeros_in
from mulshift.passes.sparsity.pattern import TILE, Sparsity

NET = """(float[2, 16, 6, 6] x) => (float[2, 5] y) {
    a = Conv <pads=[1,1,1,1]> (x, w1, b1)  r = Relu(a)
    d = Conv <group=32> (r, w2)            s = Relu(d)
    e = Conv (s, w3)                       t = Relu(e)
    p = GlobalAveragePool(t)  f = Flatten(p)  y = Gemm <transB=1> (f, w4)
}"""


def sparse(rng: np.random.Generator, *shape: int, shared: bool = False) -> Array:
    """Conv weights, two of four input channels at a place; shared: of the same places for all outputs."""
    w = rng.uniform(0.1, 1, shape) * rng.choice([-1, 1], shape)
    fours = w.reshape(shape[0], shape[1] // 4, 4, -1)
    order = rng.random((1 if shared else shape[0], *fours.shape[1:])).argsort(axis=2)
    return (fours * (order < 2)).reshape(shape).astype(np.float32)


RNG = np.random.default_rng(0)
WEIGHTS: dict[str, Array] = {
    "w1": sparse(RNG, 32, 16, 3, 3),
    "b1": np.ones(32, np.float32),
    "w2": RNG.standard_normal((32, 1, 1, 1)).astype(np.float32),
    "w3": sparse(RNG, 80, 32, 1, 1, shared=True),
    "w4": RNG.standard_normal((5, 80)).astype(np.float32),
}
FEEDS = [{"x": RNG.standard_normal((2, 16, 6, 6)).astype(np.float32)} for _ in range(3)]


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 70), st.integers(1, 4), st.integers(1, 3), st.integers(0, 2**31), st.booleans())
def test_a_pattern_is_found_wherever_the_channels_lie(n: int, fours: int, k: int, seed: int, shared: bool) -> None:
    rng = np.random.default_rng(seed)
    w = sparse(rng, n, 4 * fours, k, shared=shared)
    found = pattern_of(w, 0)
    assert found == Sparsity(across=TILE) if shared else found is not None
    matrix = w[:, :, 0]
    assert pattern_of(matrix, 0) is not None and pattern_of(matrix.T, 1) == pattern_of(matrix, 0)
    w[n - 1, :3, k - 1] = 1
    assert pattern_of(w, 0) is None


def test_a_tile_does_not_reach_into_the_next_group() -> None:
    w = np.zeros((4, 4, 1), np.float32)
    w[:2, :2], w[2:, 2:] = 1, 1
    assert pattern_of(w, 0, groups=2) == Sparsity(across=TILE) and pattern_of(w, 0) == Sparsity()


@pytest.mark.parametrize(
    ("shape", "axis", "there"),
    [((8, 4, 3, 3), 0, True), ((8, 1, 3, 3), 0, False), ((8, 6), 0, False), ((8, 6), 1, True), ((2, 8, 8), 2, False)],
)
def test_shapes_that_can_have_it(shape: tuple[int, ...], axis: int, there: bool) -> None:
    assert fits(shape, axis, Sparsity()) == there


def reasons(rows: Any) -> list[tuple[str, str | None, str | None]]:
    return [(z.op, z.pattern, z.reason) for z in rows]


def test_every_level_tells_the_same_patterns() -> None:
    model = graph(NET, WEIGHTS)
    few = "1 input channel a group, fewer than 4"
    dense = "100.0% of the fours have more than 2 weights"
    assert reasons(zeros_in(model.graph)) == [
        ("Conv", "2:4", "not quantized"), ("Conv", None, few),
        ("Conv", "2:4:shared", "not quantized"), ("Gemm", None, dense),
    ]  # fmt: skip
    made = mulshift.compile(model, FEEDS, recipe="int8-fast")
    layers = [r for r in made.report.layers if r.density is not None]
    assert [r.sparsity for r in layers] == ["2:4", None, "2:4:shared", None]
    assert layers[0].dense_reason is None and layers[0].density == 0.5
    forms = {
        target: mulshift.compile(model, FEEDS, recipe="int8-fast", target=target)
        for target in ("onnxruntime-qdq", "tensorrt")
    }
    told = {t: reasons(zeros_in(m.artifact.model.graph)) for t, m in forms.items()}
    assert told["onnxruntime-qdq"][0] == ("Conv", "2:4", "its input is not INT8")
    assert told["tensorrt"][:3] == [("Conv", "2:4", None), ("Conv", None, few), ("Conv", "2:4:shared", None)]


@pytest.mark.parametrize("target", ["onnxruntime", "tensorrt"])
def test_a_model_that_comes_with_zeros_keeps_them(target: str) -> None:
    """Whatever rounds the weights: nobody has to run `sparsify`."""
    made = mulshift.compile(graph(NET, WEIGHTS), FEEDS, recipe="int8", target=target, sparse_kernels="all")
    assert [r.sparsity for r in made.report.layers if r.density is not None] == ["2:4", None, "2:4:shared", None]


def test_odd_channels_and_float_outputs_are_told() -> None:
    w = {"w": sparse(np.random.default_rng(1), 8, 16, 1, 1)}
    model = graph("(float[1, 16, 2, 2] x) => (float[1, 8, 2, 2] y) { y = Conv (x, w) }", w)
    made = mulshift.compile(model, [{"x": FEEDS[0]["x"][:1, :, :2, :2]}], recipe="int8-fast", target="tensorrt")
    assert zeros_in(made.artifact.model.graph)[0].reason == "8 output channels, no multiple of 16"
    graph_ = made.artifact.model.graph
    conv = next(n for n in graph_ if n.op_type == "Conv")
    graph_.outputs[0] = conv.outputs[0]
    for use in list(conv.outputs[0].uses()):
        use.node.replace_input_with(use.idx, None)
    assert zeros_in(graph_)[0].reason == "its output is not INT8"


def test_inspect_shows_them(capsys: pytest.CaptureFixture[str], tmp_path: Any) -> None:
    from mulshift.cli import run_command

    ir.save(graph(NET, WEIGHTS), tmp_path / "net.onnx")
    assert run_command(["inspect", str(tmp_path / "net.onnx")]) == 0
    shown = capsys.readouterr().out
    assert "qualifies for 2:4" in shown and "2:4:shared" in shown and "1 input channel a group" in shown
