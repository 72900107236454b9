"""Low bits from recipe to artifact: integers, accuracy in the right order, and the same bits on every form."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from float_graphs import by_ort, graph, random
from qdq_graphs import check, lower

import mulshift
from mulshift.ir import Array, Interpreter, Level, constant, get_qparams, origin
from mulshift.passes.calibrate import Calibrate
from mulshift.passes.correct_bias import CorrectBias
from mulshift.passes.insert_fake_quant import InsertFakeQuant
from mulshift.passes.narrow_scales import NarrowScales
from mulshift.passes.round_weights import RoundWeights

NET = """
g (float[1, 3, 8, 8] x) => (float[1, 5] y, float[1, 6, 8, 8] t)
{
  a = Conv <pads = [1, 1, 1, 1]> (x, w1, b1)
  r = Relu (a)
  d = Conv <pads = [1, 1, 1, 1], group = 8> (r, w2)
  s = Sigmoid (d)
  e = Add (s, r)
  c = Concat <axis = 1> (e, r)
  m = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (c)
  u = ConvTranspose <strides = [2, 2]> (m, w3)
  v = Conv (u, w4)
  t = Relu (v)
  p = AveragePool <kernel_shape = [2, 2], strides = [2, 2]> (t)
  o = GlobalAveragePool (p)
  f = Flatten (o)
  z = MatMul (f, w5)
  y = Add (z, b5)
}
"""
SHAPES = {"w1": (8, 3, 3, 3), "w2": (8, 1, 3, 3), "w3": (16, 12, 2, 2), "w4": (6, 12, 1, 1), "w5": (6, 5)}
WEIGHTS: dict[str, Array] = {
    **{k: np.random.default_rng(i).standard_normal(s).astype(np.float32) for i, (k, s) in enumerate(SHAPES.items())},
    "b1": random((8,), 20),
    "b5": random((5,), 21),
}
FEEDS = [{"x": random((1, 3, 8, 8), seed, low=-2.0, high=2.0)} for seed in (1, 2)]
VARIANTS = [(8, 4, 0), (4, 8, 4), (4, 4, 0), (3, 4, 4), (2, 8, 0), (2, 4, 4), (1, 8, 4), (1, 4, 0)]


def quantized(**options: Any) -> ir.Model:
    m = graph(NET, WEIGHTS)
    Calibrate(samples=FEEDS, low_bits=[4])(m)
    InsertFakeQuant(**options)(m)
    return m


def sqnr(m: ir.Model, expected: list[Array]) -> float:
    """In dB, of all outputs together."""
    got = by_ort(m, FEEDS[0])
    noise = sum(float(((e - y).astype(np.float64) ** 2).sum()) for e, y in zip(expected, got, strict=True))
    return float(10 * np.log10(sum(float((e.astype(np.float64) ** 2).sum()) for e in expected) / noise))


@pytest.mark.parametrize(("weights", "activations", "group"), VARIANTS)
def test_integers_follow_the_simulation(weights: int, activations: int, group: int) -> None:
    """Interpreter == ONNX Runtime on every tensor, and near the QDQ graph, where biases are not rounded."""
    m = quantized(weight_bits=weights, activation_bits=activations, group=group)
    for step in (NarrowScales(), RoundWeights(samples=FEEDS), CorrectBias(samples=FEEDS)):
        step(m)
    integer = check(m, FEEDS[0], steps=1e9)
    assert sqnr(integer, by_ort(m, FEEDS[0])) > 15  # a bias off by half a step flips few roundings
    integers = ("Conv", "Gemm", "ConvAccumulate", "GemmAccumulate")  # pooling makes some too
    products = [n for n in integer.graph if n.op_type in integers and {*"aduvy"} & set(origin(n))]
    assert len(products) == 5
    reads = [get_qparams(n.inputs[0]) for n in products if n.inputs[0] is not None]
    assert {q.spec.bits for q in reads if q is not None} == {activations}
    for node in products:
        w = constant(node.inputs[1])
        assert w is not None and w.dtype == np.int8
        assert np.abs(w).max() <= {8: 127, 4: 7, 3: 3, 2: 1, 1: 1}[weights] * (15 if group and weights < 8 else 1)
        assert weights > 1 or (w != 0).all()


@pytest.mark.parametrize("residual", [8, 16])
def test_no_tensor_leaves_its_bits(residual: int) -> None:
    m = quantized(weight_bits=4, activation_bits=4, residual_bits=residual)
    integer = lower(m)
    specs = {str(v.name): get_qparams(v) for n in integer.graph for v in n.outputs}
    fours = {k for k, q in specs.items() if q is not None and q.spec.bits == 4}
    seen: dict[str, Array] = {}
    Interpreter(integer).run(FEEDS[0], lambda v, t: seen.update({str(v.name): t.numpy()}))
    assert len(fours) >= 5
    for name in fours:
        assert seen[name].dtype == np.uint8 and seen[name].max() <= 15, name


def test_more_bits_are_more_exact_and_groups_help() -> None:
    m = graph(NET, WEIGHTS)
    expected = by_ort(m, FEEDS[0])
    found = [sqnr(quantized(weight_bits=bits), expected) for bits in (8, 4, 3, 2)]
    assert found == sorted(found, reverse=True)
    assert sqnr(quantized(weight_bits=4, group=4), expected) > found[1]
    assert sqnr(quantized(activation_bits=4), expected) < found[0] - 10


def test_groups_isolate_outliers() -> None:
    """One weight in 64 is 20 times as large: one scale a channel leaves the others a step or two."""
    w = np.random.default_rng(3).standard_normal((128, 16)).astype(np.float32)
    w[::64] *= 20
    x = np.random.default_rng(4).standard_normal((9, 128)).astype(np.float32)
    text = "g (float[9, 128] x) => (float[9, 16] y) { y = MatMul (x, w) }"
    expected, errors = x @ w, []
    for group in (0, 16):
        m = graph(text, {"w": w})
        Calibrate(samples=[{"x": x}])(m)
        InsertFakeQuant(weight_bits=4, group=group)(m)
        errors.append(float(((by_ort(m, {"x": x})[0] - expected) ** 2).sum()))
    assert errors[1] < errors[0] / 2


RECIPE = {
    "name": "low",
    "passes": [
        {"pass": "canonicalize"},
        {"pass": "fuse"},
        {"pass": "calibrate", "options": {"method": "mse", "low_bits": [4]}},
        {
            "pass": "insert-fake-quant",
            "options": {"weight_bits": 4, "group": 4, "precision": {"[uv]": "w2a4", "z": "w1a8"}},
        },
        {"pass": "narrow-scales"},
        {"pass": "round-weights"},
        {"pass": "to-integer"},
    ],
}


@pytest.mark.parametrize(
    ("recipe", "target"),
    [("w4a8", "onnxruntime"), *((RECIPE, t) for t in ("onnxruntime", "onnxruntime-portable", "onnxruntime-qdq"))],
    ids=["w4a8", "mixed", "mixed-portable", "mixed-qdq"],
)
def test_every_form_is_verified(recipe: Any, target: str) -> None:
    """`compile` proves the artifact against Python arithmetic, kernels included, or raises."""
    made = mulshift.compile(graph(NET, WEIGHTS), FEEDS, recipe=recipe, target=target)
    if target == "onnxruntime-qdq":
        frozen = [n.inputs[0] for n in made.artifact.model.graph if n.op_type == "DequantizeLinear"]
        assert len([v for v in frozen if v is not None and v.dtype == ir.DataType.INT4]) == 5
        return
    expected = Interpreter(made.levels[Level.INTEGER]).run(FEEDS[0])
    for name, array in made.run(FEEDS[0]).items():
        np.testing.assert_array_equal(array, expected[name].numpy())
