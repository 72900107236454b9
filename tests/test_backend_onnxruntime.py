"""The three ONNX Runtime forms of one small network, and that their verification can fail."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import tiny

from mulshift import kernels
from mulshift.backends import TARGETS, Artifact, find_target, kernel_session, lower, verify
from mulshift.backends.onnxruntime import session
from mulshift.backends.qdq import freeze
from mulshift.backends.verify import verify_integer, verify_runtime
from mulshift.backends.verify_qdq import Tally, verify_qdq
from mulshift.ir import DataError, Interpreter, ModelError, OutputError, UsageError, VerificationError, add_initializer


@pytest.fixture
def qdq() -> ir.Model:
    model = tiny.float_model()
    tiny.TinyQdq()(model)
    return model


@pytest.fixture
def integer(qdq: ir.Model) -> ir.Model:
    tiny.TinyInteger()(qdq)
    return qdq


@pytest.mark.parametrize(("target", "copies"), [("onnxruntime", 2), ("onnxruntime-portable", 1)])
def test_integers_are_those_of_the_specification(integer: ir.Model, target: str, copies: int) -> None:
    """h exists channels last as well where it is fused."""
    artifact = lower(integer, target)
    found = verify_integer(artifact, integer, tiny.samples(3))
    assert (found.samples, found.tensors, found.differences) == (3, 1 + copies, 0)
    assert found.elements == 3 * (3 * 36 + copies * 4 * 36)
    assert found.kernel_elements == (found.elements if target == "onnxruntime" else 0)


def test_without_the_library_bodies_alone_are_compared(integer: ir.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "is_built", lambda: False)
    found = verify_integer(lower(integer, "onnxruntime"), integer, tiny.samples(1))
    assert found.elements > 0 and found.kernel_elements == 0


@pytest.mark.parametrize("output", ["h", "x.integer"])
def test_a_wrong_kernel_is_named(integer: ir.Model, monkeypatch: pytest.MonkeyPatch, output: str) -> None:
    """Break it on purpose: what runs as the kernel library adds one to a tensor."""

    def wrong(data: bytes) -> object:
        proto = onnx.load_from_string(data)
        proto.graph.initializer.append(onnx.helper.make_tensor("one", onnx.TensorProto.UINT8, [], [1]))
        made = next(n for n in proto.graph.node if output in n.output)
        made.output[0] = "right"
        at = list(proto.graph.node).index(made) + 1
        proto.graph.node.insert(at, onnx.helper.make_node("Add", ["right", "one"], [output]))
        return session(proto.SerializeToString(), precise=False)

    monkeypatch.setattr(verify, "_KERNELS", verify._Runtime("with the kernel library", wrong))
    artifact = lower(integer, "onnxruntime")
    with pytest.raises(VerificationError, match=f"in '{output}' .* differ.* with the kernel library"):
        verify_integer(artifact, integer, tiny.samples(1))


def test_an_artifact_runs_with_kernels_where_they_are_built(integer: ir.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    feeds = tiny.samples(1)[0]
    opened: list[str] = []
    original = kernel_session.session
    monkeypatch.setattr(kernel_session, "session", lambda *a: opened.append("kernels") or original(*a))
    fast = lower(integer, "onnxruntime").run(feeds)["y"]
    assert opened == ["kernels"]
    monkeypatch.setattr(kernels, "is_built", lambda: False)
    assert np.array_equal(lower(integer, "onnxruntime").run(feeds)["y"], fast)
    assert opened == ["kernels"]


def test_integer_form_has_bodies_and_portable_form_has_none(integer: ir.Model) -> None:
    kept, inlined = lower(integer, "onnxruntime").model, lower(integer, "onnxruntime-portable").model
    assert {key[1] for key in kept.functions} == {"ConvFromNchw", "Conv", "ConvAccumulate", "Requantize"}
    assert not inlined.functions and "mulshift" not in inlined.opset_imports
    assert {n.domain for n in inlined.graph} == {""}
    assert "h" in {v.name for n in inlined.graph for v in n.outputs}


def test_lowering_leaves_the_model_as_it_is(integer: ir.Model) -> None:
    before = ir.serde.serialize_model(integer)
    for name in ("onnxruntime", "onnxruntime-portable"):
        lower(integer, name)
    assert ir.serde.serialize_model(integer) == before


@pytest.mark.parametrize("target", ["onnxruntime", "onnxruntime-portable"])
def test_a_wrong_bias_is_named(integer: ir.Model, target: str) -> None:
    """Break it on purpose: the artifact was lowered from another graph than the specification."""
    artifact = lower(integer, target)
    bias = integer.graph.initializers["bias"]
    assert bias.const_value is not None
    moved = bias.const_value.numpy().copy()
    moved[2] += 400
    bias.const_value = ir.tensor(moved)
    with pytest.raises(VerificationError, match=r"^node 'conv' \(Conv.*in 'h' \d+ of 144 differ, first at \[0, 2,"):
        verify_integer(artifact, integer, tiny.samples(1))


def test_no_sample_verifies_nothing(integer: ir.Model) -> None:
    with pytest.raises(VerificationError, match="no sample"):
        verify_integer(lower(integer, "onnxruntime"), integer, [])


def test_groups_bound_what_is_held(integer: ir.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    groups = []
    original = verify._group
    monkeypatch.setattr(verify, "GROUP_BYTES", 1)
    monkeypatch.setattr(
        verify, "_group", lambda proto, views, *rest: groups.append(views) or original(proto, views, *rest)
    )
    assert verify_integer(lower(integer, "onnxruntime"), integer, tiny.samples(2)).tensors == 3
    assert [[v.value.name for v in views] for views in groups] == [["x.integer"], ["h.nhwc"], ["h"]]


def test_an_operator_whose_result_the_specification_lacks_is_named(integer: ir.Model) -> None:
    artifact = lower(integer, "onnxruntime")
    twin = next(v for n in artifact.model.graph for v in n.outputs if v.name == "h.nhwc")
    twin.metadata_props.clear()
    with pytest.raises(VerificationError, match=r"^node 'conv'.*'h\.nhwc' stands for no tensor"):
        verify_integer(artifact, integer, tiny.samples(1))


def test_a_twin_in_a_wrong_layout_is_named(integer: ir.Model) -> None:
    """Break it on purpose: rows and columns trade places, which the shape of a square image does not tell."""
    artifact = lower(integer, "onnxruntime")
    back = next(n for n in artifact.model.graph if n.op_type == "Transpose")
    back.attributes["perm"] = ir.AttrInt64s("perm", [0, 3, 2, 1])
    with pytest.raises(VerificationError, match=r"^node 'conv' \(Conv.*in 'h' \d+ of 144 differ"):
        verify_integer(artifact, integer, tiny.samples(1))


def test_after_a_float_island_the_specification_is_fed() -> None:
    """Exp in float may differ in the last bit between torch and ONNX Runtime; what follows is still compared."""
    text = """<ir_version: 10, opset_import: ["" : 21]>
    island (float[1, 8] x) => (uint8[8, 1] y)
    <float s = {0.01}, uint8 z = {3}>
    { e = Exp (x)  q = QuantizeLinear (e, s, z)  y = Transpose (q) }"""
    model = ir.serde.deserialize_model(onnx.parser.parse_model(text))
    for value in (model.graph.node(0).outputs[0], model.graph.node(1).outputs[0]):
        value.type = ir.TensorType(ir.DataType.FLOAT if value.name == "e" else ir.DataType.UINT8)
    model.metadata_props["mulshift.level"] = "INTEGER"
    x = np.linspace(-1, 0.9, 8, dtype=np.float32)[None]
    found = verify_integer(lower(model, "onnxruntime"), model, [{"x": x}])
    assert (found.tensors, found.elements) == (1, 8)


def test_bytes_do_not_depend_on_the_run_or_on_the_exporter(integer: ir.Model) -> None:
    first = lower(integer, "onnxruntime").serialize()
    node = integer.graph.node(1)
    node.metadata_props["pkg.torch.onnx.stack_trace"] = "/home/someone/model.py"
    node.doc_string = "from /home/someone"
    assert lower(integer, "onnxruntime").serialize() == first


def test_qdq_form_holds_integers(qdq: ir.Model) -> None:
    made = lower(qdq, "onnxruntime-qdq").model
    types = {n: v.dtype for n, v in made.graph.initializers.items() if n.endswith(".frozen")}
    assert types == {"w.quantized.frozen": ir.DataType.INT8, "bias.frozen": ir.DataType.INT32}
    assert "w" not in made.graph.initializers and "bias" not in made.graph.initializers
    assert [n.op_type for n in made.graph].count("QuantizeLinear") == 2


def test_qdq_form_equals_the_graph_that_training_saw(qdq: ir.Model) -> None:
    """Frozen weights are the fake-quantized ones, and ONNX Runtime fuses to QLinearConv with sums that are exact."""
    feeds = tiny.samples(1)[0]
    expected = Interpreter(qdq).run(feeds)["y"].numpy()
    got = lower(qdq, "onnxruntime-qdq").run(feeds)["y"]
    steps = np.abs(got - expected) / float(tiny.Y.scale)
    assert steps.max() < 1.5  # one step: bias rounding to s32 and another order of float sums
    assert np.count_nonzero(steps > 0.5) <= 2


def test_freezing_twice_changes_nothing(qdq: ir.Model) -> None:
    once = ir.serde.serialize_model(freeze(qdq))
    assert ir.serde.serialize_model(freeze(qdq)) == once


def test_a_float_bias_without_quantized_weights_is_left_alone() -> None:
    model = tiny.float_model()
    before = ir.serde.serialize_model(model)
    assert ir.serde.serialize_model(freeze(model)) == before


def test_second_activation_of_a_product_becomes_u8() -> None:
    """u8 x s8 of two activations saturates on x86 without VNNI whatever the session says; u8 x u8 is exact."""
    text = """<ir_version: 10, opset_import: ["" : 21]>
    product (float[4, 256] a, float[256, 4] b) => (float[4, 4] y)
    <float s = {0.01}, uint8 z = {0}, float t = {0.01}, int8 n = {0}>
    {
      aq = QuantizeLinear (a, s, z)  af = DequantizeLinear (aq, s, z)
      bq = QuantizeLinear (b, t, n)  bf = DequantizeLinear (bq, t, n)
      y = MatMul (af, bf)
    }"""
    model = ir.serde.deserialize_model(onnx.parser.parse_model(text))
    model.metadata_props["mulshift.level"] = "QDQ"
    for node, dtype in zip(model.graph, (2, 1, 3, 1, 1), strict=True):
        node.outputs[0].type = ir.TensorType(ir.DataType(dtype))
    rng = np.random.default_rng(0)
    a, b = rng.integers(200, 256, (4, 256)), rng.integers(100, 128, (256, 4))
    artifact = lower(model, "onnxruntime-qdq")
    zero = artifact.model.graph.node(2).inputs[2]
    assert zero is not None and zero.const_value is not None and zero.const_value.numpy() == np.uint8(128)
    got = artifact.run({"a": (a * 0.01).astype(np.float32), "b": (b * 0.01).astype(np.float32)})["y"]
    assert np.abs(got / 1e-4 - a @ b).max() < 8  # float32 carries 24 bits of sums near 2^23


def test_precise_session_is_exact_where_products_saturate() -> None:
    """Constant s8 weights near 127 times u8 near 255 overflow vpmaddubsw's 16 bits on AVX2."""
    rng = np.random.default_rng(0)
    x, w = rng.integers(200, 256, (8, 256)).astype(np.uint8), rng.integers(100, 128, (256, 16)).astype(np.int8)
    text = """<ir_version: 10, opset_import: ["" : 21]>
    product (uint8[8, 256] x) => (int32[8, 16] y) { y = MatMulInteger (x, w) }"""
    model = ir.serde.deserialize_model(onnx.parser.parse_model(text))
    model.graph.node(0).replace_input_with(1, add_initializer(model.graph, "w", w))
    data = ir.serde.serialize_model(model).SerializeToString()
    assert np.array_equal(session(data).run(None, {"x": x})[0], x.astype(np.int32) @ w.astype(np.int32))


def test_targets_are_rows() -> None:
    assert find_target("onnxruntime") is TARGETS["onnxruntime"]
    with pytest.raises(UsageError, match="did you mean 'onnxruntime-qdq'"):
        find_target("onnxruntime-qqd")


def test_a_graph_of_another_level_is_refused(qdq: ir.Model) -> None:
    with pytest.raises(UsageError, match="wants a graph at level INTEGER, not QDQ"):
        lower(qdq, "onnxruntime")


def test_run_checks_the_feeds(integer: ir.Model) -> None:
    artifact = lower(integer, "onnxruntime")
    with pytest.raises(DataError, match="'x'"):
        artifact.run({"x": np.zeros((1, 3, 6, 5), np.float32)})
    assert artifact.run(tiny.samples(1)[0])["y"].shape == (1, 4, 6, 6)


def test_a_model_that_onnx_runtime_refuses_is_one_line() -> None:
    with pytest.raises(ModelError, match="ONNX Runtime refuses it") as caught:
        session(b"not a model")
    assert "\n" not in str(caught.value)


def test_save_into_a_file_is_an_error(integer: ir.Model, tmp_path: object) -> None:
    file = tmp_path / "file"  # type: ignore[operator]
    file.write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        lower(integer, "onnxruntime").save(file / "folder")


def test_optimized_and_plain_sessions_agree(integer: ir.Model) -> None:
    artifact = lower(integer, "onnxruntime-portable")
    assert verify_runtime(artifact, tiny.samples(2)).elements == 2 * 144
    assert isinstance(artifact, Artifact)


def test_portable_names_tell_where_a_value_belongs(integer: ir.Model) -> None:
    other = integer.graph.node(0)
    other.outputs[0].name = "conv/acc"  # taken: the prefix must give way
    made = lower(integer, "onnxruntime-portable").model
    names = [v.name for n in made.graph for v in n.outputs]
    assert len(set(names)) == len(names)
    assert {"conv_/acc", "conv/acc", "h"} <= set(names)
    assert all('"conv"' in n.metadata_props["mulshift.origin"] for n in made.graph if str(n.name).startswith("conv_/"))


def test_qdq_pool_without_pads_counts_what_is_there() -> None:
    """ONNX Runtime 1.31's QLinearAveragePool divides an overhanging window by its full size if pads are counted."""
    text = """<ir_version: 10, opset_import: ["" : 21]>
    pool (float[1, 1, 5, 5] x) => (float[1, 1, 3, 3] y)
    <float s = {0.1}, uint8 z = {0}>
    {
      a = QuantizeLinear (x, s, z)  b = DequantizeLinear (a, s, z)
      c = AveragePool <kernel_shape = [2, 2], strides = [2, 2], ceil_mode = 1, count_include_pad = 1> (b)
      d = QuantizeLinear (c, s, z)  y = DequantizeLinear (d, s, z)
    }"""
    model = ir.serde.deserialize_model(onnx.parser.parse_model(text))
    model.metadata_props["mulshift.level"] = "QDQ"
    x = np.arange(25, dtype=np.float32).reshape(1, 1, 5, 5)
    got = lower(model, "onnxruntime-qdq").run({"x": x})["y"][0, 0]
    assert np.abs(got[2] - [20.5, 22.5, 24.0]).max() < 1e-5


def test_qdq_blocks_are_compared_with_the_integer_formula(qdq: ir.Model) -> None:
    found = verify_qdq(qdq, tiny.samples(4))
    assert (found.samples, found.tensors, found.elements) == (4, 1, 4 * 144)
    assert found.differences <= 1  # expected 1e-5 of 576


def test_a_wrong_qdq_block_is_named(qdq: ir.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Break it on purpose: a freeze that stores other weights."""

    def wrong(model: ir.Model) -> ir.Model:
        for name, value in freeze(model).graph.initializers.items():
            if name == "w.quantized.frozen" and value.const_value is not None:
                value.const_value = ir.tensor(value.const_value.numpy() // 2, name=name)
        return model

    monkeypatch.setattr("mulshift.backends.verify_qdq.freeze", wrong)
    with pytest.raises(VerificationError, match=r"^node 'relu' \(Relu\): 'y' is \d+ steps off the integer formula"):
        verify_qdq(qdq, tiny.samples(1))


def test_a_rate_is_judged_over_all_values() -> None:
    tally = Tally()
    tally.add("node 'a'", 3, 29_999)
    with pytest.raises(VerificationError, match=r"^node 'a': most of the differences, 3; qdq form: 0\.0001 of 29999"):
        tally.judge()
    tally.add("node 'b'", 0, 1)
    tally.judge()


@pytest.mark.parametrize(("target", "level"), [("onnxruntime-portable", "INTEGER"), ("onnxruntime-qdq", "QDQ")])
def test_functions_of_float_operators_are_inlined_too(target: str, level: str) -> None:
    text = """<ir_version: 10, opset_import: ["" : 21, "other" : 1]>
    net (float[4] x) => (float[4] y) { y = other.Twice (x) }
    <opset_import: ["" : 21], domain: "other"> Twice (a) => (b) { b = Add (a, a) }
    <opset_import: ["" : 21], domain: "other"> Unused (a) => (b) { b = Mul (a, a) }"""
    model = ir.serde.deserialize_model(onnx.parser.parse_model(text))
    model.metadata_props["mulshift.level"] = level
    made = lower(model, target)
    assert not made.model.functions and set(made.model.opset_imports) == {""}
    assert made.run({"x": np.ones(4, np.float32)})["y"].tolist() == [2, 2, 2, 2]
