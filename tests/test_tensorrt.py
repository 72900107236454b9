"""The form for TensorRT: INT8 in and out around every product, zero points 0, zeros of weights kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from allocation_graphs import CHAIN, CONSTANTS, SAMPLES
from qdq_graphs import graph

import mulshift
from mulshift.backends import lower
from mulshift.ir import Array, Level, UnsupportedError, constant, set_level
from mulshift.passes.pipeline import Pipeline

PRODUCTS = ("Conv", "Gemm", "MatMul")
RECIPE = "int8"
MATRICES = """(float[2, 6, 16] x) => (float[2, 6, 16] y) {
    h = MatMul(x, w)  b = Add(h, bias)  r = Sigmoid(b)  k = MatMul(r, v)  y = Mul(k, x)
}"""


def two_four(w: Array) -> Array:
    """Two of each four along axis 1 (a Conv's inputs) set to 0."""
    kept = w.copy()
    kept[:, 0::4] = kept[:, 2::4] = 0
    return kept


def pairs(model: ir.Model) -> list[ir.Node]:
    return [n for n in model.graph if n.op_type in ("QuantizeLinear", "DequantizeLinear")]


def made_by(value: ir.Value | None) -> str:
    node = None if value is None else value.producer()
    return "" if node is None else node.op_type


def readers(value: ir.Value) -> set[str]:
    """Operators that read a value, or what a Relu or a bias makes of it."""
    found = {u.node.op_type for u in value.uses()}
    if found & {"Relu", "Add"}:
        return set().union(*(readers(u.node.outputs[0]) for u in value.uses()))
    return found


def check(model: ir.Model) -> int:
    """Products, each with INT8 in and out; every integer s8 with zero point 0."""
    for node in pairs(model):
        zero_point, integers = constant(node.inputs[2]), node.inputs[0 if node.op_type == "DequantizeLinear" else 2]
        assert zero_point is not None and zero_point.dtype == np.int8 and not zero_point.any()
        assert integers is not None and integers.dtype == ir.DataType.INT8
    products = [n for n in model.graph if n.op_type in PRODUCTS]
    for node in products:
        assert [made_by(v) for v in node.inputs[:2]] == ["DequantizeLinear"] * 2
        assert readers(node.outputs[0]) == {"QuantizeLinear"}
        assert all(v is None or v.dtype == ir.DataType.FLOAT for v in node.inputs[2:])
    return len(products)


def test_integers_surround_every_product() -> None:
    made = mulshift.compile(graph(CHAIN, CONSTANTS), SAMPLES, recipe=RECIPE, target="tensorrt")
    assert check(made.artifact.model) == 3
    assert made.report.verification.differences == 0 and made.report.verification.tensors > 3
    exact = mulshift.compile(graph(CHAIN, CONSTANTS), SAMPLES, recipe=RECIPE)
    float_y = mulshift.Interpreter(exact.levels[Level.FLOAT]).run(SAMPLES[0])["y"].numpy()
    for found in (made, exact):
        error = np.abs(found.run(SAMPLES[0])["y"] - float_y).max() / np.abs(float_y).max()
        assert error < 0.05  # a few steps of 8 bits; s8 has one bit less behind Relu


def test_matrices_with_a_bias_and_two_activations() -> None:
    rng = np.random.default_rng(0)
    weights = {"w": rng.standard_normal((16, 16)).astype(np.float32), "bias": np.ones(16, np.float32),
               "v": rng.standard_normal((16, 16)).astype(np.float32)}  # fmt: skip
    feeds = [{"x": rng.standard_normal((2, 6, 16)).astype(np.float32)} for _ in range(3)]
    made = mulshift.compile(graph(MATRICES, weights), feeds, recipe=RECIPE, target="tensorrt")
    assert check(made.artifact.model) == 2


def test_zeros_of_weights_stay_zeros() -> None:
    weights = {**CONSTANTS, "w2": two_four(CONSTANTS["w2"])}
    made = mulshift.compile(graph(CHAIN, weights), SAMPLES, recipe=RECIPE, target="tensorrt")
    frozen = next(n for n in pairs(made.artifact.model) if constant(n.inputs[0]) is not None and
                  constant(n.inputs[0]).shape == (6, 8, 3, 3))  # type: ignore[union-attr]  # fmt: skip
    integers = constant(frozen.inputs[0])
    assert integers is not None and np.array_equal(integers == 0, weights["w2"] == 0)


def test_few_bits_are_stored_in_eight() -> None:
    made = mulshift.compile(graph(CHAIN, CONSTANTS), SAMPLES, recipe="w4a8-cnn", target="tensorrt")
    assert check(made.artifact.model) == 3
    same = mulshift.compile(graph(CHAIN, CONSTANTS), SAMPLES, recipe="w4a8-cnn", target="onnxruntime-qdq")
    weights = [
        {str(v.name): np.asarray(constant(v), np.int64) for n in pairs(m.artifact.model)
         if (v := n.inputs[0]) is not None and (a := constant(v)) is not None and a.dtype != np.int32}
        for m in (made, same)
    ]  # fmt: skip
    assert weights[0] and weights[0].keys() == weights[1].keys()
    assert max(np.abs(w).max() for w in weights[0].values()) <= 127


def test_what_tensorrt_cannot_read_is_named() -> None:
    unsigned = Pipeline(RECIPE, checked=0).run(graph(CHAIN, CONSTANTS), SAMPLES, target="qdq").levels[Level.QDQ]
    with pytest.raises(UnsupportedError, match=r"its integers are u8, not s8 with zero point 0"):
        lower(unsigned, "tensorrt")
    made = mulshift.ir.load(graph(CHAIN, CONSTANTS))
    set_level(made, Level.QDQ)
    assert not pairs(lower(made, "tensorrt").model)
    recipe = {"name": "groups", "passes": [{"pass": "canonicalize"}, {"pass": "calibrate"},
              {"pass": "insert-fake-quant", "options": {"weight_bits": 4, "group": 4}}]}  # fmt: skip
    with pytest.raises(UnsupportedError, match="weights with groups"):
        mulshift.compile(graph(CHAIN, CONSTANTS), SAMPLES, recipe=recipe, target="tensorrt")


def test_an_artifact_is_checked_and_replayed(tmp_path: Path) -> None:
    mulshift.compile(graph(CHAIN, CONSTANTS), SAMPLES, recipe=RECIPE, target="tensorrt", output=tmp_path / "out")
    assert mulshift.verify(tmp_path / "out", SAMPLES).differences == 0
    assert mulshift.replay(tmp_path / "out", graph(CHAIN, CONSTANTS), SAMPLES).same
