"""Old opsets: every operator whose meaning or form changed since 7, against ONNX Runtime on the old model."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from importing import random_feeds, run, text_model

from mulshift.ir import ModelError, load, origin

MODELS: dict[str, tuple[int, str]] = {
    "upsample-nearest": (7, "g (float[1,2,4,4] x) => (float[1,2,8,8] y) {y = Upsample<scales=[1.0,1.0,2.0,2.0]>(x)}"),
    "upsample-linear": (
        9,
        """g (float[1,2,4,4] x) => (float[1,2,8,8] y) <float[4] s = {1,1,2,2}> {y = Upsample<mode="linear">(x, s)}""",
    ),
    "resize-down": (
        10,
        "g (float[1,1,6,9] x) => (float[1,1,3,3] y) <float[4] s = {1.0,1.0,0.6,0.35}> {y = Resize(x, s)}",
    ),
    "resize-both": (
        10,
        "g (float[1,1,6,9] x) => (float[1,1,12,4] y) <float[4] s = {1.0,1.0,2.0,0.5}> {y = Resize(x, s)}",
    ),
    "softmax-flat": (9, "g (float[N,2,4,4] x) => (float[N,2,4,4] y) {z = Relu(x) y = Softmax(z)}"),
    "softmax-last": (11, "g (float[N,5] x) => (float[N,5] y) {z = Relu(x) y = Softmax(z)}"),
    "cnn": (
        7,
        """g (float[N,2,4,4] x, float[2] s, float[2] b, float[2] m, float[2] v, float[2,2,1,1] w) => (float[N,2,1,1] y)
        <float[2] s = {1,2}, float[2] b = {1,2}, float[2] m = {0,1}, float[2] v = {1,2}, float[2,2,1,1] w = {1,2,3,4}>
        {c = Conv(x, w) z = BatchNormalization(c, s, b, m, v) k = Clip<min=0.0, max=6.0>(z) d = Dropout(k)
         y = GlobalAveragePool(d)}""",
    ),
    "axes": (
        7,
        """g (float[N,2,4,4] x) => (float[N,32] y) {p = Pad<pads=[0,0,1,1,0,0,1,1]>(x) a, b = Split<axis=1>(p)
        c = Concat<axis=1>(b, a) d = Slice<axes=[2,3], starts=[1,1], ends=[5,5]>(c) r = Flatten(d)
        q = Unsqueeze<axes=[0]>(r) y = Squeeze<axes=[0]>(q)}""",
    ),
    "topk": (9, "g (float[N,8] x) => (float[N,2] v, int64[N,2] i) {v, i = TopK<k=2>(x)}"),
    "reduce": (
        11,
        "g (float[N,8] x) => (float[N,1] y) {a = ReduceSum<axes=[1]>(x) b = ReduceMax<axes=[1]>(x) y = Add(a, b)}",
    ),
    "group-norm": (
        18,
        """g (float[2,4,5] x) => (float[2,4,5] y) <float[2] s = {1,2}, float[2] b = {0,1}>
        {y = GroupNormalization<num_groups=2>(x, s, b)}""",
    ),
    "grid": (
        16,
        """g (float[1,1,4,4] x, float[1,2,2,2] p) => (float[1,1,2,2] y) {y = GridSample<mode="bilinear">(x, p)}""",
    ),
    "if": (
        11,
        """g (float[3,3] x) => (float[3,1] y) {t = ReduceSum<keepdims=0>(x) z = Constant<value=float {0}>()
        c = Greater(t, z) y = If(c)<then_branch = a () => (float[3,1] p) {p = ReduceSum<axes=[1]>(x)},
        else_branch = b () => (float[3,1] q) {q = ReduceMax<axes=[1]>(x)}>}""",
    ),
    "loop": (
        11,
        """g (float[N,4] x) => (float[N,4] y) <float[4] w = {1,2,3,4}, int64 n = {3}, bool c = {1}>
        {r = Relu(x) y, s = Loop(n, c, r)<body = b (int64 i, bool p, float[N,4] v)
        => (bool o, float[N,4] u, float[1,N,4] k) {o = Identity(p) u = Add(v, w) k = Unsqueeze<axes=[0]>(u)}>}""",
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_upgrade_keeps_the_numbers(name: str) -> None:
    opset, text = MODELS[name]
    old = text_model(text, opset, ir_version=3 if opset < 9 else 7)
    model = load(old)
    assert model.opset_imports[""] == 21
    onnx.checker.check_model(ir.serde.serialize_model(model), full_check=True)
    feeds = random_feeds(model, N=3)
    for before, after in zip(run(old, feeds), run(model, feeds), strict=True):
        assert before.shape == after.shape
        # the same float kernels in another version: only the order of a sum may differ
        np.testing.assert_allclose(after, before, rtol=1e-6, atol=1e-6)


def test_new_nodes_get_the_origin_of_the_old() -> None:
    opset, text = MODELS["softmax-flat"]
    model = load(text_model(text, opset))
    made = {node.op_type: origin(node) for node in model.graph}
    assert made == dict.fromkeys(("Shape", "Flatten", "Softmax", "Reshape"), ("y",)) | {"Relu": ("z",)}


def test_initializers_of_old_files_are_no_inputs() -> None:
    opset, text = MODELS["cnn"]
    model = load(text_model(text, opset, ir_version=3))
    assert [v.name for v in model.graph.inputs] == ["x"]
    assert set(model.graph.initializers) >= {"s", "b", "m", "v", "w"}
    assert model.ir_version >= 10


def test_a_newer_opset_stays() -> None:
    assert load(text_model("g (float[2] x) => (float[2] y) {y = Relu(x)}", 23)).opset_imports[""] == 23


def test_ai_onnx_is_the_default_domain() -> None:
    proto = text_model("g (float[2] x) => (float[2] y) {y = Relu(x)}", 21)
    proto.opset_import[0].domain = proto.graph.node[0].domain = "ai.onnx"
    model = load(proto)
    assert model.opset_imports == {"": 21}
    assert [node.domain for node in model.graph] == [""]


def test_a_scale_that_enlarges_and_shrinks_by_a_fraction_is_refused() -> None:
    text = "g (float[1,1,6,9] x) => (float[1,1,12,3] y) <float[4] s = {1.0,1.0,2.0,0.4}> {y = Resize(x, s)}"
    with pytest.raises(ModelError, match=r"^node 'y' \(Resize\): enlarges one axis and shrinks another"):
        load(text_model(text, 10))


def test_an_operator_that_cannot_be_upgraded_is_named() -> None:
    text = "g (float[2,4] x, float[K] s) => (float[A,B] y) {z = Relu(x) y = Upsample(z, s)}"
    model = text_model(text.replace("Upsample(z, s)", "Scan<body = b () => () {}>(z, s)"), 8)
    with pytest.raises(ModelError, match=r"^node 'y' \(Scan\): cannot be upgraded from opset 8 to 21 \("):
        load(model)


def test_too_old() -> None:
    with pytest.raises(ModelError, match="has opset 6, older than 7"):
        load(text_model("g (float[2] x) => (float[2] y) {y = Relu(x)}", 6))
