"""to-integer on graphs that others quantized, image inputs, whole networks; the vectorised dyadic numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import qdq_graphs as g
from hypothesis import given
from hypothesis import strategies as st

from mulshift.ir import Interpreter, Level, dyadic, get_qparams, set_level
from mulshift.passes.integer.scales import dyadics, narrow_dyadics


def imported(text: str, constants: dict[str, Any]) -> ir.Model:
    """A QDQ graph from ONNX text, as another tool leaves it."""
    model = g.graph(text, constants)
    set_level(model, Level.QDQ)
    return model


X = {"x": g.normal(1, 3, 6, 6)}
INTEGER_WEIGHTS = """(float[1,3,6,6] x) => (float out) {
  xq = QuantizeLinear (x, xs, xz)
  xd = DequantizeLinear (xq, xs, xz)
  wd = DequantizeLinear <axis = 0> (w, ws, wz)
  bd = DequantizeLinear <axis = 0> (b, bs)
  h = Conv (xd, wd, bd)
  r = Relu (h)
  q = QuantizeLinear (r, ys, yz)
  out = DequantizeLinear (q, ys, yz)
}"""


def conv_constants(w: str, x: str, per_channel: bool, w_zero: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    info = np.iinfo(w)
    shape = (4,) if per_channel else ()
    ws = np.full(shape, 0.01, np.float32) * (np.arange(1, 5, dtype=np.float32) if per_channel else 1)
    return {
        "xs": np.float32(0.03),
        "xz": np.asarray(7, x),
        "w": rng.integers(info.min, info.max + 1, (4, 3, 3, 3)).astype(w),
        "ws": ws.astype(np.float32),
        "wz": np.full(shape, w_zero, w),
        "b": rng.integers(-500, 500, 4).astype(np.int32),
        "bs": np.broadcast_to(ws * np.float32(0.03), (4,)).astype(np.float32),
        "ys": np.float32(0.05),
        "yz": np.asarray(-100 if x == "int8" else 3, x),
    }


@pytest.mark.parametrize("w_zero", [0, 9])
@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("x", ["uint8", "int8"])
@pytest.mark.parametrize("w", ["uint8", "int8"])
def test_integer_weights_of_any_sign_and_zero_point(w: str, x: str, per_channel: bool, w_zero: int) -> None:
    model = imported(INTEGER_WEIGHTS, conv_constants(w, x, per_channel, w_zero))
    integer = g.check(model, X)
    (conv,) = [n for n in integer.graph if n.op_type == "Conv"]
    assert [v.dtype for v in conv.inputs[:2]] == [ir.DataType.UINT8, ir.DataType.INT8]
    stored = conv.inputs[1].const_value.numpy().astype(int) - conv.attributes["w_zero_point"].value
    np.testing.assert_array_equal(stored, model.graph.initializers["w"].const_value.numpy().astype(int) - w_zero)


def test_a_zero_point_for_each_channel_is_a_float_island() -> None:
    constants = conv_constants("int8", "uint8", True, 0) | {"wz": np.arange(4).astype(np.int8)}
    integer = g.check(imported(INTEGER_WEIGHTS, constants), X, islands=1)
    (conv,) = [n for n in integer.graph if n.op_type == "Conv"]
    assert "different zero point" in conv.metadata_props["mulshift.float_reason"]


def test_a_bias_that_was_an_integer_stays_that_integer() -> None:
    model = imported(INTEGER_WEIGHTS, conv_constants("int8", "uint8", True, 0))
    (conv,) = [n for n in g.lower(model).graph if n.op_type == "Conv"]
    np.testing.assert_array_equal(
        conv.inputs[2].const_value.numpy().reshape(-1), model.graph.initializers["b"].const_value.numpy()
    )


def test_an_integer_output_keeps_its_name_and_type() -> None:
    text = """(float[2,4] x) => (int8 out) {
      q = QuantizeLinear (x, s, z)
      d = DequantizeLinear (q, s, z)
      r = Relu (d)
      out = QuantizeLinear (r, s, z)
    }"""
    integer = g.check(imported(text, {"s": np.float32(0.02), "z": np.int8(-3)}), {"x": g.normal(2, 4)}, steps=0)
    assert integer.graph.outputs[0].name == "out" and integer.graph.outputs[0].dtype == ir.DataType.INT8


def test_different_scales_on_both_sides_of_a_mover() -> None:
    text = """(float[2,4] x) => (float out) {
      q = QuantizeLinear (x, s, z)
      d = DequantizeLinear (q, s, z)
      t = Transpose (d)
      u = QuantizeLinear (t, s2, z)
      out = DequantizeLinear (u, s2, z)
    }"""
    constants = {"s": np.float32(0.02), "s2": np.float32(0.05), "z": np.uint8(9)}
    integer = g.check(imported(text, constants), {"x": g.normal(2, 4)})
    assert g.operators(integer) == ["QuantizeLinear", "Transpose", "mulshift::Requantize", "DequantizeLinear"]


IMAGE = """(uint8[1,3,6,6] x) => (float out) {
  f = Cast <to = 1> (x)
  m = Mul (f, k)
  a = Add (m, t)
  h = Conv <pads = [1,1,1,1]> (a, w, b)
  out = Relu (h)
}"""


def test_an_image_enters_as_integers_and_its_preprocessing_is_one_affine() -> None:
    feeds = {"x": np.random.default_rng(0).integers(0, 256, (1, 3, 6, 6)).astype(np.uint8)}
    constants = {
        "k": np.float32([[[0.017]], [[0.018]], [[0.016]]]),
        "t": np.float32([[[-2.1]], [[-2.0]], [[-1.8]]]),
        "w": g.normal(4, 3, 3, 3),
        "b": g.normal(4),
    }
    integer = g.check(g.qdq(g.graph(IMAGE, constants), feeds, skip=("f", "m")), feeds, steps=2)
    assert g.operators(integer) == ["mulshift::Affine", "mulshift::Conv", "DequantizeLinear"]
    q = get_qparams(integer.graph.inputs[0])
    assert q is not None and float(q.scale) == 1 and int(q.zero_point) == 0


def test_shape_arithmetic_is_left_alone_and_is_no_island() -> None:
    text = """(float[N,3,4,4] x) => (float[N,48] out) {
      r = Relu (x)
      s = Shape <start = 0, end = 1> (r)
      t = Concat <axis = 0> (s, minus)
      out = Reshape (r, t)
    }"""
    feeds = {"x": g.normal(2, 3, 4, 4)}
    integer = g.check(g.qdq(g.graph(text, {"minus": np.asarray([-1])}), feeds, skip=("out",)), feeds)
    assert "Shape" in g.operators(integer)


def test_a_node_that_was_asked_to_stay_float_stays() -> None:
    model = g.qdq(g.graph("(float[2,4] x, float[2,4] y) => (float out) { out = Add (x, y) }"), F2)
    (add,) = [n for n in model.graph if n.op_type == "Add"]
    add.metadata_props["mulshift.float_reason"] = "asked for"
    integer = g.check(model, F2, islands=1)
    (add,) = [n for n in integer.graph if n.op_type == "Add"]
    assert add.domain == "" and add.metadata_props["mulshift.float_reason"] == "asked for"


F2 = {"x": g.normal(2, 4), "y": g.normal(2, 4, seed=1)}


def test_a_model_function_of_one_tensor_is_a_table() -> None:
    text = """<ir_version: 10, opset_import: ["" : 21, "mulshift.float" : 1]>
    g (float[2,40] x) => (float[2,40] out) { out = mulshift.float.Silu (x) }
    <domain: "mulshift.float", opset_import: ["" : 21]>
    Silu (x) => (y) { s = Sigmoid (x) y = Mul (x, s) }"""
    model = ir.from_proto(onnx.parser.parse_model(text))
    model.graph[0].outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    feeds = {"x": g.normal(2, 40)}
    integer = g.check(g.qdq(model, feeds), feeds)
    assert g.operators(integer) == ["QuantizeLinear", "mulshift::Table", "DequantizeLinear"]


def test_a_whole_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Residuals, depthwise, squeeze-and-excite, concat, bilinear resize, pools: all integer, and close to QDQ."""
    rng = np.random.default_rng(5)

    def w(*shape: int) -> Any:
        return (rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)

    text = """(float[2,3,16,16] x) => (float out) {
      c1 = Conv <pads = [1,1,1,1], strides = [2,2]> (x, w1, b1)
      r1 = Relu (c1)
      d = Conv <pads = [1,1,1,1], group = 8> (r1, w2, b2)
      h = HardSwish (d)
      p = GlobalAveragePool (h)
      e1 = Conv (p, w3, b3)
      e2 = Relu (e1)
      e3 = Conv (e2, w4, b4)
      e4 = HardSigmoid (e3)
      m = Mul (h, e4)
      j = Conv (m, w5, b5)
      a = Add (j, r1)
      u = ConvTranspose <strides = [2,2]> (a, w6, b6)
      ur = Clip (u, lo, hi)
      v = Resize <mode = "linear"> (a, , up)
      k = Concat <axis = 1> (ur, v)
      mp = MaxPool <kernel_shape = [2,2], strides = [2,2]> (k)
      ap = AveragePool <kernel_shape = [3,3], pads = [1,1,1,1]> (mp)
      ge = Gelu (ap)
      gp = GlobalAveragePool (ge)
      f = Flatten (gp)
      out = Gemm <transB = 1> (f, w7, b7)
    }"""
    constants = {
        "w1": w(8, 3, 3, 3), "w2": w(8, 1, 3, 3), "w3": w(4, 8, 1, 1), "w4": w(8, 4, 1, 1), "w5": w(8, 8, 1, 1),
        "w6": w(8, 6, 2, 2), "w7": w(5, 14), "lo": np.float32(0), "hi": np.float32(6),
        "up": np.asarray([1, 1, 2, 2], np.float32),
    }  # fmt: skip
    constants |= {f"b{k}": w(n) for k, n in zip(range(1, 8), (8, 8, 4, 8, 8, 6, 5), strict=True)}
    feeds = {"x": g.normal(2, 3, 16, 16)}
    model = g.graph(text, constants)
    expected = Interpreter(model).run(feeds)["out"].numpy()
    integer = g.check(g.qdq(model, feeds), feeds, steps=20)
    found = g.python_values(integer, feeds)["out"]
    # 8 bits everywhere on random weights: 20 dB is what the QDQ graph itself reaches, 100 times less than the signal.
    assert 10 * np.log10((expected**2).sum() / ((found - expected) ** 2).sum()) > 20


RATIOS = st.floats(min_value=2.0**-70, max_value=2.0**20, allow_nan=False)


@given(ratio=RATIOS, bits=st.integers(1, 31))
def test_dyadics_are_those_of_the_specification(ratio: float, bits: int) -> None:
    expected = dyadic.to_dyadic(ratio, bits)
    b, c = dyadics(np.asarray([ratio]), bits)
    assert (int(b[0]), int(c[0])) == (expected.b, expected.c)


@given(ratio=RATIOS, bound=st.integers(1, 2**31 - 1), bits=st.integers(1, 12))
def test_narrow_dyadics_are_those_of_the_specification(ratio: float, bound: int, bits: int) -> None:
    expected = dyadic.narrow_dyadic(ratio, bound, bits)
    b, c, found = narrow_dyadics(np.asarray([ratio]), np.asarray([bound], object), bits)
    if bound * ratio < 0.5:
        assert found[0] and (b[0], c[0]) == (0, 2)  # every accumulator rounds to 0: exact, whatever the bits
    elif expected is None:
        assert not found[0]
    else:
        assert found[0] and (int(b[0]), int(c[0])) == (expected.b, expected.c)


def test_sums_of_unknown_length_are_integer_and_say_what_they_assume() -> None:
    text = """(float[N,3,H,W] x) => (float[N,3,1,1] out, float[N,3,A,B] p) {
      out = GlobalAveragePool (x)
      t = Transpose <perm = [0,1,3,2]> (x)
      p = MatMul (x, t)
    }"""
    feeds = {"x": g.normal(2, 3, 5, 6)}
    integer = g.check(g.qdq(g.graph(text), feeds, skip=("t",)), feeds)
    assumed = [n.metadata_props["mulshift.assumes"] for n in integer.graph if "mulshift.assumes" in n.metadata_props]
    assert len(assumed) == 2 and "products in a sum" in assumed[1]
    other = {"x": g.normal(1, 3, 40, 3, seed=4)}  # the same graph at another size, still exact
    np.testing.assert_array_equal(g.python_values(integer, other)["out"], g.ort_values(integer, other)["out"])


def test_a_scalar_product_that_only_changes_the_scale_costs_nothing() -> None:
    text = """(float[2,4] x) => (float out) {
      q = QuantizeLinear (x, s, z)
      d = DequantizeLinear (q, s, z)
      m = Mul (d, half)
      u = QuantizeLinear (m, s2, z)
      out = DequantizeLinear (u, s2, z)
    }"""
    constants = {"s": np.float32(0.02), "s2": np.float32(0.01), "z": np.uint8(9), "half": np.float32(0.5)}
    integer = g.check(imported(text, constants), {"x": g.normal(2, 4)}, steps=0)
    assert g.operators(integer) == ["QuantizeLinear", "Identity", "DequantizeLinear"]


def test_a_subgraph_reads_floats_from_the_border() -> None:
    text = """(float[2,4] x, bool c) => (float[2,4] out) {
      r = Relu (x)
      out = If (c) <
        then_branch = t () => (float[2,4] a) { a = Identity (r) },
        else_branch = e () => (float[2,4] b) { b = Sqrt (r) }
      >
    }"""
    feeds = {"x": g.normal(2, 4), "c": np.asarray(True)}
    integer = g.check(g.qdq(g.graph(text), feeds, skip=("out",)), feeds, steps=1, islands=1)
    (branch,) = [n for n in integer.graph if n.op_type == "If"]
    read = branch.attributes["then_branch"].value[0].inputs[0]
    assert read.producer().op_type == "DequantizeLinear"
    assert branch.metadata_props["mulshift.float_reason"] == "no integer form of If"
