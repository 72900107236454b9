"""ONNX files: constants, names, origins, lazy external data, odd file names, control flow, our own artifacts."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from importing import random_feeds, run, text_model

from mulshift.ir import Level, ModelError, attach, get_level, load, origin, set_level

CONSTANTS = """g (float[N,2,W] x) => (float[N,3,W] y) {
    w = Constant<value = float[3,2,1] {1,2,3,4,5,6}>()
    c = Conv(x, w)
    s = Constant<value_float = 2.0>()
    y = Mul(c, s)
}"""


def test_constants_become_initializers_and_dimensions_keep_their_names() -> None:
    proto = text_model(CONSTANTS)
    model = load(proto)
    assert [node.op_type for node in model.graph] == ["Conv", "Mul"]
    assert set(model.graph.initializers) == {"w", "s"}
    assert str(model.graph.inputs[0].shape) == "[N,2,W]"
    assert [str(node.outputs[0].shape) for node in model.graph] == ["[N,3,unk__0]", "[N,3,W]"]
    assert get_level(model) is Level.FLOAT
    feeds = random_feeds(model, N=2, W=5)
    assert np.array_equal(run(model, feeds)[0], run(proto, feeds)[0])


def test_every_node_has_a_name_of_its_own_and_an_origin() -> None:
    model = load(
        text_model("g (float[2] x) => (float[2] y) {a = Relu(x) [a] b = Neg(a) [same] c = Abs(b) [same] y = Exp(c)}")
    )
    assert [node.name for node in model.graph] == ["a", "a_1", "same", "same_1"]
    assert [origin(node) for node in model.graph] == [("a",), ("a_1",), ("same",), ("same_1",)]


def test_the_source_is_left_alone() -> None:
    proto = text_model(CONSTANTS, 12)
    before = proto.SerializeToString(deterministic=True)
    source = ir.serde.deserialize_model(proto)
    model = load(source)
    load(proto)
    assert proto.SerializeToString(deterministic=True) == before
    assert ir.serde.serialize_model(source).SerializeToString(deterministic=True) == ir.serde.serialize_model(
        ir.serde.deserialize_model(proto)
    ).SerializeToString(deterministic=True)
    assert model is not source


def test_unsorted_nodes_are_sorted() -> None:
    proto = text_model("g (float[2] x) => (float[2] y) {a = Relu(x) y = Neg(a)}")
    nodes = list(proto.graph.node)[::-1]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    assert [node.op_type for node in load(proto).graph] == ["Relu", "Neg"]


def test_functions_are_inlined() -> None:
    proto = text_model(
        """g (float[2] x) => (float[2] y) {y = my.domain.Twice(x)}
        <domain: "my.domain", opset_import: ["": 21]> Twice (a) => (b) {b = Add(a, a)}""",
        extra=', "my.domain": 1',
    )
    model = load(proto)
    assert [node.op_type for node in model.graph] == ["Add"]
    assert not model.functions


@pytest.mark.parametrize("opset", [21, 12])
def test_external_data_stays_on_disk(tmp_path: Path, opset: int) -> None:
    """Also through the upgrade, for which the weights are set aside."""
    weight = np.arange(3 * 512, dtype=np.float32).reshape(3, 512, 1)
    proto = text_model("g (float[N,512,W] x, float[3,512,1] w) => (float[N,3,W] y) {y = Conv(x, w)}", opset)
    del proto.graph.input[1]
    proto.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    path = tmp_path / "big.onnx"
    onnx.save(proto, path, save_as_external_data=True, location="big.data", size_threshold=0)
    model = load(path)
    tensor = model.graph.initializers["w"].const_value
    assert isinstance(tensor, ir.ExternalTensor)
    assert tensor.raw is None  # not even mapped any more
    assert np.array_equal(tensor.numpy(), weight)
    assert model.opset_imports[""] == 21


@pytest.mark.parametrize(
    "name", ["a b.onnx", "größe 模型.onnx", "100%d %s.onnx", 'it\'s "q".onnx', "-rf.onnx", "a\nb.bin"]
)
def test_odd_file_names(tmp_path: Path, name: str) -> None:
    onnx.save(text_model(CONSTANTS), tmp_path / name, format="protobuf")
    assert len(load(tmp_path / name).graph) == 2
    assert len(load(os.fspath(tmp_path / name)).graph) == 2


def test_an_artifact_of_ours_comes_back_as_it_was(tmp_path: Path) -> None:
    text = "g (uint8[4] x, uint8[256] t) => (uint8[4] y) {y = mulshift.Table(x, t)}"
    model = ir.serde.deserialize_model(text_model(text, extra=', "mulshift": 1'))
    set_level(model, Level.INTEGER)
    attach(model)
    ir.save(model, tmp_path / "model.onnx")
    back = load(tmp_path / "model.onnx")
    assert get_level(back) is Level.INTEGER
    assert ir.serde.serialize_model(back) == ir.serde.serialize_model(model)


def test_a_proto_without_its_file_has_no_external_data(tmp_path: Path) -> None:
    proto = text_model("g (float[4] x) => (float[4] y) <float[4] w = {1,2,3,4}> {y = Add(x, w)}")
    proto.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(np.ones(4, np.float32), "w"))
    onnx.save(proto, tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    bare = onnx.load(tmp_path / "m.onnx", load_external_data=False)
    with pytest.raises(ModelError, match=r"external data file 'm\.data' of initializer 'w' is missing"):
        load(bare)
