"""What a level forbids is found and named; legal graphs pass."""

from __future__ import annotations

import onnx_ir as ir
import pytest
from importing import text_model

from mulshift.ir import Level, ModelError, load, set_level
from mulshift.ir.levels import check, float_nodes, require

QDQ = """g (float[4] x) => (float[4] y) <float s = {0.1}, uint8 z = {3}> {
    [q] a = QuantizeLinear(x, s, z)
    [d] y = DequantizeLinear(a, s, z)
}"""
INTEGER = """g (float[1,4] x) => (float[1,2] y)
    <float s = {0.1}, uint8 z = {3}, int8[2,4] w = {1,2,3,4,5,6,7,8}, int32[2] b = {9,9}> {
    [q] a = QuantizeLinear(x, s, z)
    [fc] c = mulshift.GemmAccumulate<x_zero_point=3>(a, w, b)
    [d] y = DequantizeLinear(c, s)
}"""


def graph(text: str, level: Level) -> ir.Model:
    """The graph as written, at a level that it claims."""
    model = ir.serde.deserialize_model(text_model(text, extra=', "mulshift": 1, "com.microsoft": 1'))
    set_level(model, level)
    for i, node in enumerate(model.graph):
        node.name = node.name or f"n{i}"
    return model


def integer() -> ir.Model:
    model = graph(INTEGER, Level.INTEGER)
    node = model.graph[1]
    node.metadata_props["mulshift.accumulator_bound"] = "8000"
    for value, dtype in ((model.graph[0].outputs[0], ir.DataType.UINT8), (node.outputs[0], ir.DataType.INT32)):
        value.dtype = dtype
    return model


def test_legal_graphs() -> None:
    for model in (
        load(text_model("g (float[2] x) => (float[2] y) {y = Relu(x)}")),
        load(text_model(QDQ)),
        integer(),
    ):
        assert check(model) == []
        require(model)


@pytest.mark.parametrize(
    "text, message",
    [
        (QDQ, "node 'q' (QuantizeLinear) is quantized"),
        (
            "g (uint8[4] x, uint8[256] t) => (uint8[4] y) {[t] y = mulshift.Table(x, t)}",
            "node 't' (Table) is quantized",
        ),
        (
            "g (uint8[2,2] x, int8[2,2] w) => (int32[2,2] y) {[m] y = MatMulInteger(x, w)}",
            "(MatMulInteger) is quantized",
        ),
        (
            "g (float[1] x) => (float[1] y) {[k] c = Constant<value_float = 1.0>() y = Add(x, c)}",
            "is to be an initializer",
        ),
        ("g (float[1] x) => (float[1] y) {[a] b = Relu(x) [a] y = Relu(b)}", "node 'a' (Relu) shares its name"),
        ("g (float[1] x) => (float[1] y) {[a] y = com.microsoft.Magic(x)}", "unknown operator 'com.microsoft::Magic'"),
    ],
)
def test_float(text: str, message: str) -> None:
    found = check(graph(text, Level.FLOAT))
    assert len([line for line in found if message in line]) == 1


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("DequantizeLinear(a, s, z)", "DequantizeLinear(a, t, z)", "node 'd' (DequantizeLinear) has another scale"),
        (
            "DequantizeLinear(a, s, z)",
            "DequantizeLinear(a, s)",
            "node 'd' (DequantizeLinear) has another scale or zero",
        ),
        ("s = {0.1}", "s = {0}", "node 'q' (QuantizeLinear) has a scale that is not a positive number"),
        ("float[4] x)", "float[4] x, uint8 zz)", ""),
        ("(x, s, z)", "(x, s, zz)", "is not constant"),
        ("y = DequantizeLinear(a,", "b = Identity(a) y = DequantizeLinear(b,", "reads the integers of node 'q'"),
        ("y = DequantizeLinear(a,", "b = Identity(a) y = DequantizeLinear(b,", "reads integers that node"),
        (
            "[d] y = ",
            "e = com.microsoft.QLinearSigmoid(a, s, z, s, z) [d] y = ",
            "is not a float operator between pairs",
        ),
    ],
)
def test_qdq(old: str, new: str, message: str) -> None:
    text = QDQ.replace("<float s", "<float t = {0.2}, float s").replace(old, new)
    if "zz" in new:
        text = text.replace("float[4] x)", "float[4] x, uint8 zz)")
    found = check(graph(text, Level.QDQ))
    assert [message] * bool(message) == [message for line in found if message in line and message][:1]
    assert bool(found) is bool(message)


def test_qdq_without_pairs() -> None:
    model = graph("g (float[2] x) => (float[2] y) {y = Relu(x)}", Level.QDQ)
    assert check(model) == ["no QuantizeLinear: this is a FLOAT graph"]


@pytest.mark.parametrize("bound", ["", "-1", "2147483648", "many"])
def test_integer_bounds(bound: str) -> None:
    model = integer()
    model.graph[1].metadata_props["mulshift.accumulator_bound"] = bound
    assert [line.split(" has ")[0] for line in check(model)] == ["node 'fc' (GemmAccumulate)"]


def test_integer_width() -> None:
    model = integer()
    node = model.graph[1]
    node.op_type = "Gemm"
    assert check(model) == ["node 'fc' (Gemm) has no width, but None"]
    node.metadata_props["mulshift.width"] = "narrow"
    assert check(model) == []


@pytest.mark.parametrize("op", ["LayerNorm", "RmsNorm", "RmsNormRowQuantize", "RotaryEmbedding", "Hadamard"])
def test_what_sums_carries_a_bound_and_a_width(op: str) -> None:
    model = integer()
    node = model.graph[1]
    node.op_type = op
    node.metadata_props["mulshift.accumulator_bound"] = str(2**31)
    assert [line.split(" has ")[1].split(",")[0] for line in check(model)] == [
        "no proven accumulator bound below 2^31",
        "no width",
    ]


@pytest.mark.parametrize("op", ["Attention", "MaskedAttention", "Softmax"])
def test_rows_with_a_ratio_of_their_own_have_no_width(op: str) -> None:
    model = integer()
    node = model.graph[1]
    node.op_type = op
    assert check(model) == []
    node.metadata_props["mulshift.accumulator_bound"] = "2147483648"
    assert bool(check(model)) is (op != "Softmax"), "its sum has 64 bits"


def test_float_islands_need_a_reason() -> None:
    text = INTEGER.replace("[d] y = DequantizeLinear(c, s)", "[d] e = DequantizeLinear(c, s) [exp] y = Exp(e)")
    model = graph(text, Level.INTEGER)
    model.graph[1].metadata_props["mulshift.accumulator_bound"] = "8000"
    island = model.graph[3]
    assert {"node 'exp' (Exp) computes in floating point without a reason"} < set(check(model))
    island.metadata_props["mulshift.float_reason"] = "no integer form of Exp"
    assert check(model) == []
    assert float_nodes(model) == [island]


def test_requantization_through_float() -> None:
    text = INTEGER.replace(
        "[d] y = DequantizeLinear(c, s)",
        "[d] e = DequantizeLinear(c, s) [again] f = QuantizeLinear(e, s, z) [dd] y = DequantizeLinear(f, s, z)",
    )
    model = graph(text, Level.INTEGER)
    model.graph[1].metadata_props["mulshift.accumulator_bound"] = "8000"
    assert check(model) == ["node 'again' (QuantizeLinear) requantizes through floating point"]


def test_constant_scales_are_no_floats() -> None:
    text = 'g (uint8[1,1,2,2] x) => (uint8[1,1,4,4] y) <float[4] k = {1,1,2,2}> {y = Resize<mode="nearest">(x, , k)}'
    assert float_nodes(graph(text, Level.INTEGER)) == []


def test_floats_inside_a_subgraph_count() -> None:
    text = """g (bool c, uint8[2] x) => (uint8[2] y) {[if] y = If(c)<
        then_branch = a () => (uint8[2] p) {f = Cast<to=1>(x) p = Cast<to=2>(f)},
        else_branch = b () => (uint8[2] q) {q = Identity(x)}>}"""
    model = graph(text, Level.INTEGER)
    inner = model.graph[0].attributes["then_branch"].as_graph()
    inner[0].outputs[0].dtype = ir.DataType.FLOAT
    assert [node.name for node in float_nodes(model)] == ["if"]


def test_require_tells_the_first_and_how_many() -> None:
    with pytest.raises(ModelError, match=r"^FLOAT graph: node 'q' \(QuantizeLinear\) is quantized \(and 1 more\)$"):
        require(graph(QDQ, Level.FLOAT))


def test_old_opset() -> None:
    model = ir.serde.deserialize_model(text_model("g (float[2] x) => (float[2] y) {[a] y = Relu(x)}", 13))
    assert check(model) == ["opset 13 is older than 21"]
