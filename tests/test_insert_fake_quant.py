"""insert-fake-quant: which values get pairs, of which type, on whose scale."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from float_graphs import by_ort, graph, random

from mulshift.ir import Array, Feeds, Level, UsageError, constant, get_level
from mulshift.passes.calibrate import Calibrate
from mulshift.passes.insert_fake_quant import InsertFakeQuant
from mulshift.passes.structure import check_structure, signature
from mulshift.passes.to_integer import ToInteger

BLOCK = """
g (float[N, 3, 8, 8] x) => (float[N, 5] y)
{
  a = Conv <pads = [1, 1, 1, 1]> (x, w1, b1)
  r = Clip (a, zero, six)
  c = Conv <pads = [1, 1, 1, 1]> (r, w2, b2)
  s = Add (c, r)
  t = Relu (s)
  m = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (t)
  p = GlobalAveragePool (m)
  f = Flatten (p)
  y = Gemm (f, w3, b3)
}
"""
WEIGHTS = {
    "w1": random((4, 3, 3, 3), 1),
    "b1": random((4,), 2),
    "w2": random((4, 4, 3, 3), 3),
    "b2": random((4,), 4),
    "w3": random((4, 5), 5),
    "b3": random((5,), 6),
    "zero": np.asarray(0, np.float32),
    "six": np.asarray(6, np.float32),
}


def quantized(text: str, weights: Mapping[str, Array], feeds: Feeds, **options: Any) -> tuple[ir.Model, str]:
    """The QDQ graph and the log as text."""
    m = graph(text, weights)
    Calibrate(samples=[feeds])(m)
    outputs = signature(m)
    step = InsertFakeQuant(**options)
    step(m)
    check_structure(m, outputs, step.name)
    assert get_level(m) == Level.QDQ
    ours = {k: v for k, v in vars(step).items() if k in options}
    assert not InsertFakeQuant(**ours)(m).modified  # a second run changes nothing
    return m, "\n".join(f"{n.where}: {n.what}" for n in (*step.log.changed, *step.log.skipped))


def lines(m: ir.Model) -> list[str]:
    """Each pair as `value -> type scale-name`, each operator as `op(inputs)`."""
    found = []
    for node in m.graph:
        names = ", ".join(v.name for v in node.inputs if v is not None)
        if node.op_type == "QuantizeLinear":
            kind = str(node.outputs[0].dtype).lower()
            found.append(f"{node.inputs[0].name} -> {kind} {node.inputs[1].name}")  # type: ignore[union-attr]
        elif node.op_type != "DequantizeLinear":
            found.append(f"{node.outputs[0].name} = {node.op_type}({names})")
    return found


def scale_of(m: ir.Model, name: str) -> Array:
    found = constant(m.graph.initializers[f"{name}.scale"])
    assert found is not None
    return found


def zero_point_of(m: ir.Model, name: str) -> Array:
    found = constant(m.graph.initializers[f"{name}.zero_point"])
    assert found is not None
    return found


def test_a_residual_block_in_full() -> None:
    x = random((2, 3, 8, 8), low=-2.0, high=2.0)
    m, log = quantized(BLOCK, WEIGHTS, {"x": x})
    assert lines(m) == [
        "x -> uint8 x.scale",
        "w1 -> int8 w1.scale",
        "a = Conv(x.dq, w1.dq, b1)",
        "r = Clip(a, zero, six)",
        "r -> int16 r.scale",
        "r.dq -> uint8 r.u8.scale",
        "w2 -> int8 w2.scale",
        "c = Conv(r.u8.dq, w2.dq, b2)",
        "c -> int16 c.scale",
        "s = Add(c.dq, r.dq)",
        "t = Relu(s)",
        "t -> uint8 t.scale",
        "m = MaxPool(t.dq)",
        "m -> uint8 t.scale",
        "p = GlobalAveragePool(m.dq)",
        "p -> uint8 p.scale",
        "f = Flatten(p.dq)",
        "f -> uint8 p.scale",
        "w3 -> int8 w3.scale",
        "y = Gemm(f.dq, w3.dq, b3)",
    ]
    assert "y: a graph output keeps its accumulator" in log
    assert zero_point_of(m, "t") == 0
    assert zero_point_of(m, "r.u8") == 0
    (expected,), (got,) = by_ort(graph(BLOCK, WEIGHTS), {"x": x}), by_ort(m, {"x": x})
    # eight bits a tensor: 30 dB and more on a net of three layers
    assert 10 * np.log10((expected**2).sum() / ((expected - got) ** 2).sum()) > 30
    ToInteger(float_islands="forbid")(m)


def test_eight_bits_everywhere() -> None:
    m, _ = quantized(BLOCK, WEIGHTS, {"x": random((2, 3, 8, 8))}, residual_bits=8)
    assert not [line for line in lines(m) if "int16" in line]
    assert "s = Add(c.dq, r.dq)" in lines(m)


def test_output_bits_put_a_pair_on_the_output_which_keeps_its_name() -> None:
    m, _ = quantized(BLOCK, WEIGHTS, {"x": random((2, 3, 8, 8))}, output_bits=16)
    assert lines(m)[-2:] == ["y.float = Gemm(f.dq, w3.dq, b3)", "y.float -> int16 y.scale"]
    assert [v.name for v in m.graph.outputs] == ["y"]


def test_a_shared_intermediate_is_not_fused() -> None:
    text = "g (float[1,2,4,4] x) => (float[1,2,4,4] r, float[1,2,4,4] q) { a = Conv (x, w) r = Relu (a) q = Neg (a) }"
    m, _ = quantized(text, {"w": random((2, 2, 1, 1))}, {"x": random((1, 2, 4, 4))})
    assert "a -> uint8 a.scale" in lines(m)


def test_a_clip_with_computed_bounds_is_not_fused() -> None:
    text = "g (float[1,2,4,4] x, float hi) => (float[1,2,4,4] r) { a = Conv (x, w) r = Clip (a, , hi) }"
    feeds = {"x": random((1, 2, 4, 4)), "hi": np.asarray(0.5, np.float32)}
    m, _ = quantized(text, {"w": random((2, 2, 1, 1))}, feeds)
    assert [line for line in lines(m) if line.startswith("a -> ")]


# Weights --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "shape", "axis"),
    [
        ("float[1,4,5,5] x) => (float[1,6,5,5] y) { y = Conv (x, w) }", (6, 4, 1, 1), 0),
        ("float[1,4,5,5] x) => (float[1,4,5,5] y) { y = Conv <group = 4> (x, w) }", (4, 1, 1, 1), 0),
        ("float[1,4,5,5] x) => (float[1,6,5,5] y) { y = ConvTranspose (x, w) }", (4, 6, 1, 1), 1),
        ("float[1,4,5,5] x) => (float[1,6,5,5] y) { y = ConvTranspose <group = 2> (x, w) }", (4, 3, 1, 1), 1),
        ("float[2,4] x) => (float[2,6] y) { y = Gemm (x, w) }", (4, 6), 1),
        ("float[2,4] x) => (float[2,6] y) { y = Gemm <transB = 1> (x, w) }", (6, 4), 0),
        ("float[2,3,4] x) => (float[2,3,6] y) { y = MatMul (x, w) }", (4, 6), 1),
        ("float[2,3,4] x) => (float[2,3,6] y) { y = MatMul (x, w) }", (2, 4, 6), 2),
    ],
)
def test_weights_have_a_scale_an_output_channel(text: str, shape: tuple[int, ...], axis: int) -> None:
    w = random(shape)
    name = text.split("float")[1].split("]")[0] + "]"
    x = random(tuple(int(d) for d in name[1:-1].split(",")))
    m, _ = quantized("g (" + text, {"w": w}, {"x": x})
    others = tuple(i for i in range(w.ndim) if i != axis)
    np.testing.assert_array_equal(scale_of(m, "w"), (np.abs(w).max(axis=others).astype(np.float64) / 127).astype("f4"))
    (quantize,) = [n for n in m.graph if n.op_type == "QuantizeLinear" and n.inputs[0].name == "w"]  # type: ignore[union-attr]
    assert quantize.attributes["axis"].value == axis
    assert zero_point_of(m, "w").dtype == np.int8


MATMUL = "g (float[2,4] x) => (float[2,3] y) { y = Gemm <transB = 1> (x, w, b) }"


def weight_scale(w: Array, b: Array) -> Array:
    m, _ = quantized(MATMUL, {"w": w, "b": b}, {"x": random((2, 4))})
    return scale_of(m, "w")


def test_a_dead_channel_gets_a_scale_of_the_others() -> None:
    w = random((3, 4))
    w[1] = 0
    found = weight_scale(w, np.zeros(3, np.float32))
    assert found[1] == found.max()
    np.testing.assert_array_equal(weight_scale(np.zeros((3, 4), np.float32), np.zeros(3, np.float32)), [1, 1, 1])


def test_a_bias_far_above_its_weights_still_fits_32_bits() -> None:
    w = random((3, 4))
    w[1] *= 1e-12
    b = np.asarray([1, 100, 1], np.float32)
    m, _ = quantized(MATMUL, {"w": w, "b": b}, {"x": random((2, 4))})
    assert (np.abs(b) / (scale_of(m, "x") * scale_of(m, "w").astype(np.float64)) < 2.0**29).all()


def test_weights_read_alike_share_a_pair_and_others_do_not() -> None:
    text = """g (float[2,4] x) => (float[2,4] y) {
      a = Gemm (x, w) b = Gemm (a, w) y = Gemm <transB = 1> (b, w) }"""
    m, _ = quantized(text, {"w": random((4, 4))}, {"x": random((2, 4))})
    pairs = [n for n in m.graph if n.op_type == "QuantizeLinear" and n.inputs[0].name == "w"]  # type: ignore[union-attr]
    assert [n.attributes["axis"].value for n in pairs] == [1, 0]


def test_mse_weights_clip_an_outlier() -> None:
    w = random((1, 4000), low=-0.1, high=0.1)
    w[0, 7] = 0.2
    text = "g (float[2,4000] x) => (float[2,1] y) { y = Gemm <transB = 1> (x, w) }"
    scales = [
        float(scale_of(quantized(text, {"w": w}, {"x": random((2, 4000))}, weight_range=r, weight_bits=4)[0], "w")[0])
        for r in ("max", "mse")
    ]
    assert scales[1] < 0.9 * scales[0]


# Activations ----------------------------------------------------------------------------------------------------------


def scales_of_input(x: Array) -> tuple[float, int]:
    text = "g (float[2,4] x) => (float[2,3] y) { y = Gemm <transB = 1> (x, w) }"
    m, _ = quantized(text, {"w": random((3, 4))}, {"x": x})
    return float(scale_of(m, "x")), int(zero_point_of(m, "x"))


@pytest.mark.parametrize(
    ("x", "scale", "zero_point"),
    [
        (0.0, 1.0, 0),  # nothing to resolve
        (5.1, 5.1 / 255, 0),  # zero stays representable, and 5.1 is exactly 255 steps
        (-5.1, 5.1 / 255, 255),
        (1e-30, 2.0**-60, 0),  # scales stay above 2^-60
    ],
)
def test_a_constant_activation(x: float, scale: float, zero_point: int) -> None:
    found = scales_of_input(np.full((2, 4), x, np.float32))
    assert found == (pytest.approx(scale, rel=1e-6), zero_point)  # float32 of a quotient


def test_zero_is_always_exact() -> None:
    scale, zero_point = scales_of_input(random((2, 4), low=3.0, high=4.0))
    assert zero_point == 0
    assert 3.0 / 255 < scale <= 4.0 / 255


def test_bounded_functions_have_their_bounds_as_range() -> None:
    text = "g (float[2,4] x) => (float[2,4] y, float[2,4] z) { s = Sigmoid (x) t = Tanh (x) y = Neg (s) z = Neg (t) }"
    m, _ = quantized(text, {}, {"x": random((2, 4))})
    assert (scale_of(m, "s"), zero_point_of(m, "s")) == (np.float32(1 / 255), 0)
    assert (scale_of(m, "t"), zero_point_of(m, "t")) == (np.float32(2 / 255), 127)


def test_the_second_operand_of_a_product_is_signed_through_movers() -> None:
    text = """g (float[2,4,6] q, float[2,4,6] k) => (float[2,4,4] y) {
      t = Transpose <perm = [0, 2, 1]> (k) s = MatMul (q, t) y = Neg (s) }"""
    m, _ = quantized(text, {}, {"q": random((2, 4, 6), 1), "k": random((2, 4, 6), 2)})
    assert lines(m)[:5] == [
        "k -> int8 k.scale",
        "t = Transpose(k.dq)",
        "t -> int8 k.scale",
        "q -> uint8 q.scale",
        "s = MatMul(q.dq, t.dq)",
    ]


def test_a_value_times_itself_goes_through_16_bits() -> None:
    text = "g (float[2,4,4] x) => (float[2,4,4] y) { s = MatMul (x, x) y = Neg (s) }"
    m, _ = quantized(text, {}, {"x": random((2, 4, 4))}, residual_bits=8)
    assert lines(m)[:4] == [
        "x -> int16 x.scale",
        "x.dq -> int8 x.s8.scale",
        "x.dq -> uint8 x.u8.scale",
        "s = MatMul(x.u8.dq, x.s8.dq)",
    ]


CONCAT = """g (float[1,2,4,4] x) => (float[1,2,4,4] y) {
  a = Conv (x, w1) b = Conv (x, w2) BRANCH c = Concat <axis = 1> (a, b) y = Conv (c, w3) }"""
CONCAT_WEIGHTS = {
    "w1": random((2, 2, 1, 1), 1),
    "w2": 5 * random((2, 2, 1, 1), 2),
    "w3": random((2, 4, 1, 1), 3),
}


def concat(branch: str = "", **options: Any) -> ir.Model:
    text = CONCAT.replace("BRANCH", branch)
    if branch:
        text = text.replace("[1,2,4,4] y)", "[1,2,4,4] y, float[1,2,4,4] z)")
    return quantized(text, CONCAT_WEIGHTS, {"x": random((1, 2, 4, 4))}, **options)[0]


def test_inputs_that_only_a_concat_reads_take_its_scale() -> None:
    m = concat()
    assert scale_of(m, "a") == scale_of(m, "b") == scale_of(m, "c")
    assert zero_point_of(m, "a") == zero_point_of(m, "b") == zero_point_of(m, "c")


def test_an_input_that_others_read_keeps_its_own() -> None:
    m = concat("z = Neg (a)")
    assert scale_of(m, "a") < scale_of(m, "b")
    assert scale_of(m, "b") == scale_of(m, "c")


def test_concat_inputs_may_all_keep_their_own() -> None:
    m = concat(concat="own")
    assert scale_of(m, "a") < scale_of(m, "c")


def test_the_residual_stream_is_16_bits_through_movers_that_can() -> None:
    text = """g (float[1,2,4,4] x) => (float[1,2,2,2] y) {
      a = Conv (x, w) t = Slice (a, start, stop, axes) b = Conv <strides = [2, 2]> (x, w)
      c = Slice (b, start, stop, axes) s = Add (t, MOVED) y = Neg (s) }"""
    bounds = {
        "start": np.asarray([0, 0]),
        "stop": np.asarray([2, 2]),
        "axes": np.asarray([2, 3]),
        "w": random((2, 2, 1, 1)),
    }
    m, _ = quantized(text.replace("MOVED", "c"), bounds, {"x": random((1, 2, 4, 4))})
    assert [x for x in lines(m) if x.startswith(("a ->", "t ->", "s ->"))] == [
        "a -> int16 a.scale",
        "t -> int16 a.scale",
        "s -> uint8 s.scale",
    ]
    pool = text.replace("s = Add", "p = MaxPool <kernel_shape = [1, 1]> (c) s = Add").replace("MOVED", "p")
    m, _ = quantized(pool, bounds, {"x": random((1, 2, 4, 4))})
    # ONNX has no 16-bit MaxPool: this operand of the Add stays at 8 bits, the other does not
    assert "p -> uint8 b.scale" in lines(m)
    assert "t -> int16 a.scale" in lines(m)


def test_16_bits_have_room_for_what_calibration_missed() -> None:
    m, _ = quantized(BLOCK, WEIGHTS, {"x": random((2, 3, 8, 8))})
    narrow = graph(BLOCK, WEIGHTS)
    Calibrate(samples=[{"x": random((2, 3, 8, 8))}], method="percentile", percent=60.0)(narrow)
    InsertFakeQuant()(narrow)
    assert scale_of(narrow, "c") == scale_of(m, "c")  # from the extremes, not from the clipped range
    assert scale_of(narrow, "t") < scale_of(m, "t")


# What is left alone ---------------------------------------------------------------------------------------------------


def test_integers_booleans_and_shapes_are_left_alone() -> None:
    text = """g (float[N,4] x, int64[2] k) => (int64[2] n, bool[N,4] b, float[N,4] y) {
      n = Add (k, k) h = Neg (x) z = Neg (h) b = Greater (h, z) d = Shape (h) y = Reshape (h, d) }"""
    m, _ = quantized(text, {}, {"x": random((2, 4)), "k": np.asarray([1, 2])}, output_bits=8)
    quantized_values = {n.inputs[0].name for n in m.graph if n.op_type == "QuantizeLinear"}  # type: ignore[union-attr]
    assert quantized_values == {"x", "h", "h.dq", "z", "y.float"}


def test_what_has_no_integer_form_says_so() -> None:
    text = """g (float[2,3,3] x) => (float[2] y) { a = Neg (x) d = Det (a) e = Det (x) f = Asin (e) y = Add (f, d) }"""
    m, log = quantized(text, {}, {"x": random((2, 3, 3))})
    det = next(n for n in m.graph if n.op_type == "Det")
    assert det.metadata_props["mulshift.float_reason"] == "Det has no integer form"
    assert "stays float (Det has no integer form) and so do all that read it" in log
    assert not [line for line in lines(m) if line.startswith("e ->")]
    assert [line for line in lines(m) if line.startswith("d -> int16")]


def test_a_node_can_be_kept_float() -> None:
    text = "g (float[2,4] x) => (float[2,4] y) { a = Gemm (x, w) r = Relu (a) b = Gemm (r, w) y = Neg (b) }"
    m = graph(text, {"w": random((4, 4))})
    next(iter(m.graph)).name = "first"
    Calibrate(samples=[{"x": random((2, 4))}])(m)
    InsertFakeQuant(skip=["first"])(m)
    first = next(n for n in m.graph if n.name == "first")
    assert first.inputs[1].name == "w"  # type: ignore[union-attr]
    assert first.metadata_props["mulshift.float_reason"] == "asked for"
    assert "b = Gemm(r.dq, w.dq)" in lines(m)


def test_a_quantized_value_keeps_its_scale() -> None:
    text = """g (float[2,4] x) => (float[2,4] y) {
      q = QuantizeLinear (x, s, z) d = DequantizeLinear (q, s, z) h = Gemm (d, w) y = Neg (h) }"""
    own = {"s": np.asarray(0.5, np.float32), "z": np.asarray(3, np.uint8), "w": random((4, 4))}
    m, _ = quantized(text, own, {"x": random((2, 4))})
    assert [x for x in lines(m) if x.startswith(("x ->", "d ->"))] == ["x -> uint8 s"]
    assert "h -> uint8 h.scale" in lines(m)


def test_the_interchange_form_has_no_16_bits_and_pairs_constants() -> None:
    text = "g (float[2,4] x) => (float[2,3] y) { a = Mul (x, k) b = Add (a, x) y = Gemm (b, w) }"
    m, _ = quantized(text, {"k": random((4,)), "w": random((4, 3))}, {"x": random((2, 4))}, target="qdq")
    assert lines(m) == [
        "x -> uint8 x.scale",
        "k -> uint8 k.scale",
        "a = Mul(x.dq, k.dq)",
        "a -> uint8 a.scale",
        "b = Add(a.dq, x.dq)",
        "b -> uint8 b.scale",
        "w -> int8 w.scale",
        "y.float = Gemm(b.dq, w.dq)",
        "y.float -> uint8 y.scale",
    ]


def test_without_ranges_it_asks_for_calibration() -> None:
    with pytest.raises(UsageError, match="run calibrate first"):
        InsertFakeQuant()(graph(BLOCK, WEIGHTS))


@pytest.mark.parametrize(
    "options", [{"weight_bits": 7}, {"residual_bits": 4}, {"weight_range": "x"}, {"target": "x"}, {"skip": ["nowhere"]}]
)
def test_unknown_options_are_refused(options: dict[str, Any]) -> None:
    m = graph(BLOCK, WEIGHTS)
    Calibrate(samples=[{"x": random((1, 3, 8, 8))}])(m)
    with pytest.raises(UsageError):
        InsertFakeQuant(**options)(m)
