"""Each product with weights of few bits and in groups: the INTEGER graph gives what the QDQ graph gives."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from float_graphs import by_ort, graph, random
from qdq_graphs import check, lower

from mulshift.backends.qdq import freeze
from mulshift.ir import Array, Level, add_initializer, constant, set_level
from mulshift.passes.calibrate import Calibrate
from mulshift.passes.insert_fake_quant import InsertFakeQuant
from mulshift.passes.to_integer import ToInteger

PRODUCTS = {
    "conv": ("float[1,10,5,5] x) => (float[1,6,3,3] y) { y = Conv (x, w) }", (6, 10, 3, 3), (1, 10, 5, 5)),
    "conv-1d": ("float[1,10,7] x) => (float[1,4,7] y) { y = Conv (x, w) }", (4, 10, 1), (1, 10, 7)),
    "grouped": (
        "float[1,20,5,5] x) => (float[1,6,5,5] y) { y = Conv <group = 2> (x, w) }",
        (6, 10, 1, 1),
        (1, 20, 5, 5),
    ),
    "transposed": (
        "float[1,10,4,4] x) => (float[1,6,5,5] y) { y = ConvTranspose (x, w) }",
        (10, 6, 2, 2),
        (1, 10, 4, 4),
    ),
    "gemm": ("float[3,10] x) => (float[3,6] y) { y = Gemm (x, w) }", (10, 6), (3, 10)),
    "gemm-t": ("float[3,10] x) => (float[3,6] y) { y = Gemm <transB = 1, alpha = 0.5> (x, w) }", (6, 10), (3, 10)),
    "matmul": ("float[2,3,10] x) => (float[2,3,6] y) { y = MatMul (x, w) }", (10, 6), (2, 3, 10)),
    "turned": (
        "float[3,10] x) => (float[3,6] y) { t = Transpose <perm = [1, 0]> (w) y = MatMul (x, t) }",
        (6, 10),
        (3, 10),
    ),
}


@pytest.mark.parametrize("kind", PRODUCTS)
@pytest.mark.parametrize(("bits", "group", "activations"), [(4, 0, 4), (4, 4, 8), (3, 3, 8), (2, 0, 8), (1, 4, 4)])
def test_integers_are_those_of_the_simulation(kind: str, bits: int, group: int, activations: int) -> None:
    """Without a bias nothing is rounded but the input: the accumulators differ by float32 sums alone."""
    text, w, x = PRODUCTS[kind]
    m = graph(f"g ({text}", {"w": random(w, 1)})
    feeds = {"x": random(x, 2)}
    Calibrate(samples=[feeds])(m)
    step = InsertFakeQuant(weight_bits=bits, group=group, activation_bits=activations)
    step(m)
    assert not step.log.skipped[1:]  # the graph output alone
    integer = check(m, feeds)
    (expected,), (got,) = by_ort(m, feeds), by_ort(integer, feeds)
    np.testing.assert_allclose(got, expected, rtol=0, atol=3e-6 * np.abs(expected).max())


def _blocked(scale: Array, kind: int, zero: int) -> ir.Model:
    """`y = x W`, W behind a lone DequantizeLinear with blocks of 4 along the inputs, as other tools write them."""
    m = graph("g (float[2,8] x) => (float[2,3] y) { y = MatMul (x, w) }", {"w": random((8, 3), 1)})
    Calibrate(samples=[{"x": random((2, 8), 2)}])(m)
    InsertFakeQuant(skip=[])(m)
    product = next(n for n in m.graph if n.op_type == "MatMul")
    dtype = ir.DataType(kind).numpy()
    low = -8 if zero == 0 else 0
    q = np.random.default_rng(3).integers(low, low + 16, (8, 3)).astype(dtype)
    inputs = [
        add_initializer(m.graph, "w4", q),
        add_initializer(m.graph, "w4.scale", scale),
        add_initializer(m.graph, "w4.zero", np.full(scale.shape, zero).astype(dtype)),
    ]
    node = ir.node("DequantizeLinear", inputs, {"axis": 0, "block_size": 4}, name="w4.dq")
    node.outputs[0].name, node.outputs[0].type, node.outputs[0].shape = (
        "w4.f",
        ir.TensorType(ir.DataType.FLOAT),
        ir.Shape((8, 3)),
    )
    m.graph.insert_before(product, node)
    product.replace_input_with(1, node.outputs[0])
    set_level(m, Level.QDQ)
    return m


@pytest.mark.parametrize(("kind", "zero"), [(onnx.TensorProto.INT4, 0), (onnx.TensorProto.UINT4, 8)])
def test_imported_blocks_whose_scales_are_multiples(kind: int, zero: int) -> None:
    scale = np.asarray([[0.25, 0.5, 3.0], [0.75, 0.5, 2.0]], np.float32)
    m, feeds = _blocked(scale, kind, zero), {"x": random((2, 8), 2)}
    integer = check(m, feeds)
    weights = constant(next(n for n in integer.graph if n.op_type == "GemmAccumulate").inputs[1])
    assert weights is not None and weights.dtype == np.int8 and np.abs(weights).max() > 8
    (expected,), (got,) = by_ort(m, feeds), by_ort(integer, feeds)
    np.testing.assert_allclose(got, expected, rtol=0, atol=3e-6 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("scale", "why"),
    [
        ([[1.0, 0.5, 3.0], [0.7071, 0.5, 2.0]], "groups of channel 0 are no small integer multiples"),
        ([[1.0, 1.0, 1.0], [1.0, 100.0, 1.0]], "leave 8 bits"),
    ],
)
def test_other_blocks_stay_float_and_say_why(scale: list[list[float]], why: str) -> None:
    m = _blocked(np.asarray(scale, np.float32), onnx.TensorProto.INT4, 0)
    step = ToInteger()
    step(m)
    assert any(why in n.what for n in step.log.skipped), step.log.skipped


def test_a_shared_weight_has_the_largest_bits_asked() -> None:
    text = "g (float[2,8] x) => (float[2,8] y) { a = MatMul (x, w) r = Relu (a) y = MatMul (r, w) }"
    m = graph(text, {"w": random((8, 8), 1)})
    Calibrate(samples=[{"x": random((2, 8), 2)}])(m)
    InsertFakeQuant(precision={"a": "w2a8", "y": "w4g4a8"})(m)
    weights = [n for n in m.graph if n.op_type == "QuantizeLinear" and constant(n.inputs[0]) is not None]
    assert len(weights) == 1 and weights[0].attributes["block_size"].value == 4
    assert weights[0].metadata_props["mulshift.bits"] == "4"
    lower(m, float_islands="forbid")


def test_rows_with_a_power_of_two_take_low_bit_weights() -> None:
    text = "g (float[2,3,16] x) => (float[2,3,8] y) { a = MatMul (x, w) r = Relu (x) b = MatMul (r, v) y = Add (a, b) }"
    m = graph(text, {"w": random((16, 8), 1), "v": random((16, 8), 2)})
    feeds = {"x": random((2, 3, 16), 3)}
    Calibrate(samples=[feeds])(m)
    step = InsertFakeQuant(activations="per-token", precision={"a": "w4g4a8", "b": "w3a4"})
    step(m)
    assert any(n.where.startswith("node 'b'") and "rows of its own" in n.what for n in step.log.skipped)
    check(m, feeds, steps=2)  # 16-bit outputs, of rows with 8 bits


@pytest.mark.parametrize("group", [0, 4])
def test_the_qdq_form_holds_int4_and_a_bias_of_the_accumulator(group: int) -> None:
    """A DequantizeLinear of s32 at `s_x * s_w[c]`, of groups at the scale that theirs are multiples of."""
    text = PRODUCTS["conv"][0].replace("(x, w)", "(x, w, b)")
    m = graph(f"g ({text}", {"w": random((6, 10, 3, 3), 1), "b": random((6,), 2)})
    feeds = {"x": random((1, 10, 5, 5), 3)}
    Calibrate(samples=[feeds])(m)
    InsertFakeQuant(weight_bits=4, group=group, target="qdq")(m)
    frozen = freeze(m.clone())
    product = next(n for n in frozen.graph if n.op_type == "Conv")
    kinds = [v.producer().inputs[0].dtype for v in product.inputs if v is not None]  # type: ignore[union-attr]
    assert kinds == [ir.DataType.UINT8, ir.DataType.INT4, ir.DataType.INT32]
    (expected,), (got,) = by_ort(m, feeds), by_ort(frozen, feeds)
    step = constant(m.graph.initializers["y.scale"])
    assert step is not None and np.abs(got - expected).max() <= 1.001 * step  # of the bias, rounded
