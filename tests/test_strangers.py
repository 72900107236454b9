"""Graphs that strangers write by hand, through the whole main job: none may crash, all say what stays float."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest

import mulshift
from mulshift.ir import Array

LEAST_SQNR = 30.0
"""dB. One or two 8-bit roundings in a row, see test_zoo."""


def _weights(*shape: int, seed: int = 0) -> Array:
    return (np.random.default_rng(seed).standard_normal(shape) * 0.5).astype(np.float32)


def _compile(
    text: str, weights: dict[str, Array], shapes: dict[str, Sequence[int]], **options: Any
) -> mulshift.Compiled:
    model = onnx.parser.parse_model(text)
    model.graph.initializer.extend(onnx.numpy_helper.from_array(a, n) for n, a in weights.items())
    rng = np.random.default_rng(1)
    feeds = [{n: rng.standard_normal(s).astype(np.float32) for n, s in shapes.items()} for _ in range(4)]
    return mulshift.compile(model, feeds, **{"recipe": "int8-fast", **options})


def _islands(compiled: mulshift.Compiled) -> list[str]:
    return [layer.op for layer in compiled.report.layers if layer.float_reason]


def _close(compiled: mulshift.Compiled) -> bool:
    figures = compiled.report.totals.output_sqnr_db.values()
    return compiled.report.verification.differences == 0 and all(db is None or db > LEAST_SQNR for db in figures)


HEAD = '<ir_version: 8, opset_import: ["" : 13]>'


def test_subgraphs_read_what_stays_float() -> None:
    text = f"""{HEAD} g (float[1, 4] x) => (float[1, 4] y) <float zero = {{0}}> {{
        h = Gemm (x, w)
        s = ReduceSum <keepdims = 0> (x)
        c = Greater (s, zero)
        i = If (c) <then_branch = t () => (float[1, 4] a) {{ a = Relu (h) }},
                    else_branch = e () => (float[1, 4] b) {{ b = Gemm (h, w) }}>
        y = Gemm (i, w)
    }}"""
    compiled = _compile(text, {"w": _weights(4, 4)}, {"x": (1, 4)})
    assert _islands(compiled) == ["If"]
    assert _close(compiled)


def test_what_only_a_subgraph_reads_is_not_quantized() -> None:
    text = f"""{HEAD} g (float[1, 4] x, bool c) => (float[1, 4] y) {{
        y = If (c) <then_branch = t () => (float[1, 4] a) {{ a = Relu (x) }},
                    else_branch = e () => (float[1, 4] b) {{ b = Neg (x) }}>
    }}"""
    model = onnx.parser.parse_model(text)
    x = np.array([[0.1, -0.2, 0.3, 5.0]], np.float32)
    compiled = mulshift.compile(model, [{"x": x, "c": np.array(True)}], recipe="int8-fast")
    np.testing.assert_array_equal(compiled.run({"x": x, "c": np.array(True)})["y"], np.maximum(x, 0))


@pytest.mark.parametrize(
    "body, outputs",
    [
        ("y = Relu (x)", "float[1, 4] y, float[1, 4] x"),
        ("", "float[1, 4] x"),
        ("", "float[4, 3] w"),
        ("y = Relu (w)", "float[4, 3] y"),
    ],
    ids=["an input that is an output too", "no node", "only a constant", "constant in the end"],
)
def test_graphs_with_little_in_them(body: str, outputs: str) -> None:
    compiled = _compile(f"{HEAD} g (float[1, 4] x) => ({outputs}) {{ {body} }}", {"w": _weights(4, 3)}, {"x": (1, 4)})
    assert _close(compiled)
    assert [v.name for v in compiled.artifact.proto.graph.input] == ["x"]
    x = np.array([[1.0, -2.0, 0.5, 0.25]], np.float32)
    made = compiled.run({"x": x})
    np.testing.assert_array_equal(made.get("x", x), x)


def test_a_constant_output_is_no_island() -> None:
    text = f"""{HEAD} g (float[1, 4] x) => (float[1, 3] y, float[2] k) {{
        y = Gemm (x, w)
        k = Constant <value = float[2] {{1.5, 2.5}}> ()
    }}"""
    compiled = _compile(text, {"w": _weights(4, 3)}, {"x": (1, 4)}, float_islands="forbid")
    assert compiled.run({"x": np.zeros((1, 4), np.float32)})["k"].tolist() == [1.5, 2.5]


def test_gather_of_a_vector_at_a_number() -> None:
    text = f"""{HEAD} g (float[1, n] x) => (float[1, 1] y) <int64 one = {{1}}, int64[1] ax = {{0}}> {{
        s = Shape (x)
        n = Gather (s, one)
        f = Cast <to = 1> (n)
        t = ReduceSum <keepdims = 1> (x)
        y = Div (t, f)
    }}"""
    assert _compile(text, {}, {"x": (1, 6)}).report.verification.differences == 0


@pytest.mark.parametrize("recipe", ["int8", "int8-fast"])
def test_gemm_with_everything(recipe: str) -> None:
    text = f"""{HEAD} g (float[8, 2] x) => (float[2, 3] y) {{
        h = Gemm <transA = 1, transB = 1, alpha = 0.5, beta = 2.0> (x, w, b)
        r = Relu (h)
        y = Gemm <alpha = 1.5, beta = 0.0> (r, v, unused)
    }}"""
    weights = {"w": _weights(5, 8), "b": _weights(1), "v": _weights(5, 3), "unused": _weights(2, 3)}
    compiled = _compile(text, weights, {"x": (8, 2)}, recipe=recipe)
    assert _islands(compiled) == []
    assert _close(compiled)


def test_sums_and_means_of_many() -> None:
    text = f"""{HEAD} g (float[1, 4] x) => (float[1, 4] y, float[1, 4] z) {{
        a = Gemm (x, w)
        b = Relu (a)
        y = Sum (a, b, x)
        z = Mean (a, b, x)
    }}"""
    compiled = _compile(text, {"w": _weights(4, 4)}, {"x": (1, 4)})
    assert _islands(compiled) == []
    assert _close(compiled)


def test_a_mask_through_the_interchange_form() -> None:
    text = f"""{HEAD} g (float[1, 4] x, bool[1, 4] m) => (float[1, 4] y) <float low = {{-1.5}}> {{
        a = Where (m, x, low)
        b = Relu (a)
        y = Mul (a, b)
    }}"""
    model = onnx.parser.parse_model(text)
    rng = np.random.default_rng(1)
    feeds = [{"x": rng.standard_normal((1, 4)).astype(np.float32), "m": rng.random((1, 4)) > 0.5} for _ in range(4)]
    for target in ("onnxruntime", "onnxruntime-qdq"):
        compiled = mulshift.compile(model, feeds, recipe="int8-fast", target=target)
        assert _close(compiled)
        assert compiled.report.verification.tensors > 0


@pytest.mark.parametrize("kind", ["float16", "double", "bfloat16"])
def test_other_floating_point_types_become_float32(kind: str) -> None:
    code = {"float16": 10, "double": 11, "bfloat16": 16}[kind]
    text = f"""{HEAD.replace("13", "21").replace("8,", "10,")} g ({kind}[1, 4] x) => ({kind}[1, 3] y) {{
        a = Gemm (x, w)
        b = Relu (a)
        c = Cast <to = 1> (b)
        d = Cast <to = {code}> (c)
        e = ConstantOfShape (shape)
        f = Add (d, e)
        y = Gemm (f, v)
    }}"""
    model = onnx.parser.parse_model(text)
    dtype = onnx.helper.tensor_dtype_to_np_dtype(code)
    half = onnx.numpy_helper.from_array(np.array([0.5], dtype), "half")
    model.graph.node[4].attribute.append(onnx.helper.make_attribute("value", half))
    weights = {"w": _weights(4, 4).astype(dtype), "v": _weights(4, 3).astype(dtype), "shape": np.array([1, 4])}
    model.graph.initializer.extend(onnx.numpy_helper.from_array(a, n) for n, a in weights.items())
    rng = np.random.default_rng(1)
    feeds = [{"x": rng.standard_normal((1, 4)).astype(np.float32)} for _ in range(4)]
    compiled = mulshift.compile(model, feeds, recipe="int8-fast")
    assert _islands(compiled) == []
    assert _close(compiled)
    assert compiled.run(feeds[0])["y"].dtype == np.float32


@pytest.mark.parametrize("low", ["-inf", "-3.4e38", "-10000"])
def test_a_mask_before_a_softmax_stays_float(low: str) -> None:
    text = f"""{HEAD} g (float[1, 6] x, bool[1, 6] m) => (float[1, 6] y) {{
        s = Gemm (x, w)
        mask = Where (m, zero, low)
        a = Add (s, mask)
        y = Softmax (a)
    }}"""
    model = onnx.parser.parse_model(text)
    constants = {"w": _weights(6, 6), "zero": np.float32(0), "low": np.float32(float(low))}
    model.graph.initializer.extend(onnx.numpy_helper.from_array(np.asarray(a), n) for n, a in constants.items())
    rng = np.random.default_rng(1)
    keep = np.array([[True, True, False, True, False, True]])
    feeds = [{"x": rng.standard_normal((1, 6)).astype(np.float32), "m": keep} for _ in range(4)]
    for target in ("onnxruntime", "onnxruntime-qdq"):
        compiled = mulshift.compile(model, feeds, recipe="int8-fast", target=target)
        assert _close(compiled)
        assert [y.float_reason for y in compiled.report.layers if y.op == "Add"] == [
            "a mask drives it towards minus infinity"
        ]
        assert (compiled.run(feeds[0])["y"][~keep] == 0).all()


def test_no_integer_is_not_a_number() -> None:
    text = f"""{HEAD} g (float[n, 6] x) => (float[n, 6] y) <float zero = {{0}}> {{
        s = Gemm (x, w)
        p = Softmax (s)
        bad = IsNaN (p)
        safe = Where (bad, zero, p)
        y = MatMul (safe, w)
    }}"""
    compiled = _compile(text, {"w": _weights(6, 6)}, {"x": (1, 6)})
    assert "IsNaN" not in _islands(compiled)
    assert _close(compiled)
