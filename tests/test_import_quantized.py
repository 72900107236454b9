"""Models that come quantized: every style in, same numbers out on stock ONNX Runtime, legal at QDQ level."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from importing import random_feeds, run, text_model
from torch import Tensor, nn

from mulshift.ir import Array, Level, ModelError, UnsupportedError, constant, get_level, load, origin
from mulshift.ir.levels import check, require

NET = """g (float[N,3,8,8] x) => (float[N,6] y) {
    [conv1] c1 = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, w1, b1)
    [relu1] r1 = Relu(c1)
    [pool] p1 = MaxPool<kernel_shape=[2,2], strides=[2,2]>(r1)
    [conv2] c2 = Conv<kernel_shape=[1,1]>(p1, w2)
    [sig] s = Sigmoid(c2)
    [mul] m = Mul(s, c2)
    [add] a = Add(m, p1)
    [leaky] l = LeakyRelu(a)
    [cat] cc = Concat<axis=1>(l, p1)
    [avg] ap = AveragePool<kernel_shape=[2,2], strides=[2,2]>(cc)
    [gap] g0 = GlobalAveragePool(ap)
    [flat] f = Flatten(g0)
    [fc] h = Gemm<transB=1>(f, w3, b3)
    [mm] y = MatMul(h, w4)
}"""
SHAPES = {"w1": (8, 3, 3, 3), "b1": (8,), "w2": (8, 8, 1, 1), "w3": (10, 16), "b3": (10,), "w4": (10, 6)}


class Reader:
    """The calibration data that ONNX Runtime's tool asks for."""

    def __init__(self) -> None:
        rng = np.random.default_rng(1)
        self.left = [{"x": rng.standard_normal((4, 3, 8, 8)).astype(np.float32)} for _ in range(4)]

    def get_next(self) -> dict[str, Array] | None:
        return self.left.pop() if self.left else None


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    proto = text_model(NET, 13, ir_version=8)
    rng = np.random.default_rng(0)
    for name, shape in SHAPES.items():
        array = (rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    path = tmp_path_factory.mktemp("net") / "net.onnx"
    onnx.save(proto, path)
    return path


def images() -> dict[str, Array]:
    return {"x": np.random.default_rng(2).standard_normal((64, 3, 8, 8)).astype(np.float32)}


def statically(net: Path, target: Path, form: str, activation: str, per_channel: bool) -> Path:
    from onnxruntime import quantization as q

    q.quantize_static(
        str(net),
        str(target),
        Reader(),  # type: ignore[arg-type]
        quant_format=q.QuantFormat[form],
        activation_type=q.QuantType[activation],
        weight_type=q.QuantType.QInt8,
        per_channel=per_channel,
        reduce_range=True,  # 7-bit weights: without VNNI, ONNX Runtime's own kernels saturate sums of 8-bit products
    )
    return target


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("activation", ["QUInt8", "QInt8"])
@pytest.mark.parametrize("form", ["QDQ", "QOperator"])
@pytest.mark.filterwarnings("ignore")
def test_static_models_of_onnxruntime(net: Path, tmp_path: Path, form: str, activation: str, per_channel: bool) -> None:
    path = statically(net, tmp_path / "q.onnx", form, activation, per_channel)
    model = load(path)
    require(model)
    assert get_level(model) is Level.QDQ
    operators = Counter(node.op_type for node in model.graph)
    floats = Counter(node.op_type for node in load(net).graph if node.op_type != "Relu")
    assert floats <= operators  # Relu went into the clamp
    assert not [op for op in operators if op.startswith(("QLinear", "QGemm"))]
    feeds = images()
    before, after = run(path, feeds)[0], run(model, feeds, optimize=False)[0]
    step = float(constant(_output_scale(model)))  # type: ignore[arg-type]
    off = np.rint(np.abs(after - before) / step)
    # float products against integer ones: halves may round to the other side (ARITHMETIC.md section 7)
    assert off.max() <= 1
    assert (off > 0).mean() <= 0.01
    assert np.abs(after - run(net, feeds)[0]).max() > 0  # it was quantized at all


def _output_scale(model: ir.Model) -> ir.Value | None:
    node = model.graph.outputs[0].producer()
    assert node is not None and node.op_type == "DequantizeLinear"
    return node.inputs[1]


@pytest.mark.filterwarnings("ignore")
def test_names_and_origins_of_a_qoperator_model(net: Path, tmp_path: Path) -> None:
    model = load(statically(net, tmp_path / "q.onnx", "QOperator", "QUInt8", True))
    conv = next(node for node in model.graph if node.op_type == "Conv")
    assert [str(v.name) for v in conv.inputs if v is not None] == ["x.dq", "w1.dq", "b1.dq"]
    assert conv.outputs[0].name == "c1"
    assert origin(conv) == ("conv1_quant",)
    weight = conv.inputs[1].producer()  # type: ignore[union-attr]
    assert weight is not None and weight.attributes["axis"].value == 0
    bias = conv.inputs[2].producer()  # type: ignore[union-attr]
    assert bias is not None and bias.inputs[0].dtype == ir.DataType.INT32  # type: ignore[union-attr]
    scales = {k: constant(v) for k, v in model.graph.initializers.items()}
    expected = (scales["x_scale"] * scales["w1_scale"]).astype(np.float32)  # type: ignore[operator]
    assert np.array_equal(scales["b1_quantized.scale"], expected)  # type: ignore[arg-type]


W = "int8[4,3] w = {1,-2,3,-4,5,-6,7,-8,9,-10,11,-12}, float[3] ws = {0.1,0.2,0.3}, int8[3] wz = {0,0,0}, "
S = "float s = {0.05}, float t = {0.02}, uint8 z = {120}, uint8 y0 = {100}"
RARE: dict[str, str] = {
    "Gemm": "g (uint8[2,4] x) => (uint8[2,3] y) <int32[3] b = {100,-200,300}, "
    + W
    + S
    + """> {y = com.microsoft.QGemm<alpha=0.5>(x, s, z, w, ws, wz, b, s, y0)}""",
    "MatMul": "g (uint8[2,4] x) => (uint8[2,3] y) <" + W + S + """> {y = QLinearMatMul(x, s, z, w, ws, wz, s, y0)}""",
    "Softmax": "g (uint8[2,4] x) => (uint8[2,4] y) <float u = {0.00390625}, uint8 o = {0}, "
    + S
    + "> {y = com.microsoft.QLinearSoftmax<opset=13, axis=-1>(x, s, z, u, o)}",
    "Where": "g (bool[2,4] c, uint8[2,4] a, uint8[2,4] b) => (uint8[2,4] y) <"
    + S
    + "> {y = com.microsoft.QLinearWhere(c, a, s, z, b, t, y0, s, y0)}",
    "Mul": "g (uint8[2,4] a, uint8[2,4] b) => (uint8[2,4] y) <"
    + S
    + "> {y = com.microsoft.QLinearMul(a, s, z, b, t, y0, s, y0)}",
    "Concat": "g (uint8[2,4] a, uint8[2,4] b) => (uint8[4,4] y) <"
    + S
    + "> {y = com.microsoft.QLinearConcat<axis=0>(s, y0, a, s, z, b, t, y0)}",
    "LeakyRelu": "g (uint8[2,4] x) => (uint8[2,4] y) <"
    + S
    + "> {y = com.microsoft.QLinearLeakyRelu<alpha=0.1>(x, s, z, s, y0)}",
}


@pytest.mark.parametrize("op", RARE)
def test_operators_that_stand_alone(op: str) -> None:
    """Integers in, integers out: at most one step, where a half rounds to the other side."""
    proto = text_model(RARE[op], 17, extra=', "com.microsoft": 1')
    model = load(proto)
    require(model)
    assert op in {node.op_type for node in model.graph}
    feeds = random_feeds(model)
    before, after = run(proto, feeds)[0].astype(int), run(model, feeds, optimize=False)[0].astype(int)
    assert np.abs(after - before).max() <= 1
    assert len(np.unique(before)) > 3  # not all clamped


@pytest.mark.filterwarnings("ignore")
def test_dynamic_models_are_float_with_weights_on_their_grid(net: Path, tmp_path: Path) -> None:
    from onnxruntime import quantization as q

    path = tmp_path / "d.onnx"
    q.quantize_dynamic(str(net), str(path), per_channel=True, op_types_to_quantize=["Conv", "MatMul", "Gemm"])
    assert "DynamicQuantizeLinear" in {n.op_type for n in onnx.load(path).graph.node}
    model = load(path)
    assert get_level(model) is Level.FLOAT
    require(model)
    feeds = images()
    y, before, exact = (run(m, feeds)[0] for m in (model, path, net))
    assert 0 < np.abs(y - exact).max() < 0.03 * np.abs(exact).max()  # 8-bit weights
    assert np.abs(y - before).max() < 0.03 * np.abs(exact).max()  # and their activations were rounded besides


class Pt2e(nn.Module):
    """What a PT2E flow leaves: quantize and dequantize operators of torch, integer weights in a buffer."""

    def __init__(self) -> None:
        super().__init__()
        import torch.ao.quantization.fx._decomposed  # registers the operators

        generator = torch.Generator().manual_seed(0)
        self.register_buffer("w", torch.randint(-127, 128, (4, 3, 3, 3), dtype=torch.int8, generator=generator))
        self.bias = nn.Parameter(torch.randn(4, generator=generator))

    def forward(self, x: Tensor) -> Tensor:
        q = torch.ops.quantized_decomposed
        x = q.quantize_per_tensor(x, 0.02, 128, 0, 255, torch.uint8)
        x = q.dequantize_per_tensor(x, 0.02, 128, 0, 255, torch.uint8)
        scales, zeros = torch.full((4,), 0.01), torch.zeros(4, dtype=torch.int64)
        w = q.dequantize_per_channel(self.w, scales, zeros, 0, -127, 127, torch.int8)
        y = torch.relu(nn.functional.conv2d(x, w, self.bias))
        y = q.quantize_per_tensor(y, 0.03, -128, -128, 127, torch.int8)
        return q.dequantize_per_tensor(y, 0.03, -128, -128, 127, torch.int8)  # type: ignore[no-any-return]


def test_pt2e() -> None:
    module = Pt2e()
    x = torch.randn((2, 3, 8, 8), generator=torch.Generator().manual_seed(1))
    model = load(module, (x,))
    require(model)
    assert get_level(model) is Level.QDQ
    pair, conv = ["QuantizeLinear", "DequantizeLinear"], ["DequantizeLinear", "Conv", "Relu"]
    assert [node.op_type for node in model.graph] == [*pair, *conv, *pair]
    # not optimized: ONNX Runtime would fuse the pairs into kernels that saturate without VNNI
    off = np.abs(run(model, {"x": x.numpy()}, optimize=False)[0] - module(x).detach().numpy()) / 0.03
    assert np.rint(off).max() <= 1  # a half may round to the other side
    assert np.rint(off).mean() <= 1e-3


BREVITAS = """g (float[2,3,6,6] x) => (float[2,4,6,6] y)
    <float s = {0.05}, int8 z = {0}, int8 lo = {-8}, int8 hi = {7}, int8 wlo = {-7}, int8 whi = {7},
     float[4] ws = {0.1,0.2,0.3,0.4}, int8[4] wz = {0,0,0,0}> {
    xq = QuantizeLinear(x, s, z)
    xc = Clip(xq, lo, hi)
    xd = DequantizeLinear(xc, s, z)
    wq = QuantizeLinear<axis=0>(w, ws, wz)
    wc = Clip(wq, wlo, whi)
    wd = DequantizeLinear<axis=0>(wc, ws, wz)
    c = Conv(xd, wd)
    cq = QuantizeLinear(c, s, z)
    y = DequantizeLinear(cq, s, z)
}"""


def test_brevitas_clips_move_to_the_reals() -> None:
    proto = text_model(BREVITAS, 14)
    rng = np.random.default_rng(0)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(rng.normal(0, 1, (4, 3, 1, 1)).astype(np.float32), "w"))
    model = load(proto)
    require(model)
    operators = [node.op_type for node in model.graph]
    assert operators.count("Clip") == 1  # the weights' clip is in the weights
    clip = next(node for node in model.graph if node.op_type == "Clip")
    assert clip.inputs[0] is model.graph.inputs[0]
    feeds = random_feeds(model)
    # the very same integers enter the very same float convolution
    assert np.array_equal(run(model, feeds, optimize=False)[0], run(proto, feeds, optimize=False)[0])


PAIR = """g (float[2,4] x) => (float[2,4] y) <float s = {0.1}, uint8 z = {3}> {
    q = %s<%s>(x, s, z)
    y = %s(q, s, z)
}"""


def test_pairs_of_the_microsoft_domain() -> None:
    text = PAIR % ("com.microsoft.QuantizeLinear", "", "com.microsoft.DequantizeLinear")
    model = load(text_model(text.replace("<>", ""), 17, extra=', "com.microsoft": 1'))
    require(model)
    assert {node.domain for node in model.graph} == {""}
    feeds = {"x": np.linspace(-1, 3, 8, dtype=np.float32).reshape(2, 4)}
    assert len(np.unique(run(model, feeds)[0])) > 4


def test_movers_of_integers_get_a_frame() -> None:
    text = """g (float[2,4] x) => (float[4,2] y) <float s = {0.1}, uint8 z = {3}> {
        q = QuantizeLinear(x, s, z) [t] t = Transpose<perm=[1,0]>(q) y = DequantizeLinear(t, s, z)}"""
    proto = text_model(text)
    model = load(proto)
    require(model)
    pair = ["QuantizeLinear", "DequantizeLinear"]
    assert [node.op_type for node in model.graph] == [*pair, "Transpose", *pair]
    feeds = random_feeds(model)
    assert np.array_equal(run(model, feeds)[0], run(proto, feeds)[0])


@pytest.mark.parametrize("block", [0, 2])
def test_weights_alone_become_reals(block: int) -> None:
    """One scale a channel, or one a block of two rows."""
    text = """g (float[2,4] x) => (float[2,3] y) <int8[4,3] q = {1,2,3,4,5,6,7,8,9,10,11,12}, %s> {
        w = DequantizeLinear<axis=%d, block_size=%d>(q, s) y = MatMul(x, w)}"""
    scales = "float[2,3] s = {1,2,3,4,5,6}" if block else "float[3] s = {1,2,3}"
    proto = text_model(text % (scales, 0 if block else 1, block))
    model = load(proto)
    assert [node.op_type for node in model.graph] == ["MatMul"]
    assert get_level(model) is Level.FLOAT
    feeds = random_feeds(model)
    assert np.array_equal(run(model, feeds, optimize=False)[0], run(proto, feeds, optimize=False)[0])


REFUSED: dict[str, tuple[str, type[Exception], str]] = {
    "scale at run time": (
        """g (float[2] x, float s) => (float[2] y) <uint8 z = {0}>
        {q = QuantizeLinear(x, s, z) y = DequantizeLinear(q, s, z)}""",
        UnsupportedError,
        "its scale is computed at run time",
    ),
    "scale zero": (
        """g (float[2] x) => (float[2] y) <uint8 z = {0}, float s = {0}>
        {q = QuantizeLinear(x, s, z) y = DequantizeLinear(q, s, z)}""",
        ModelError,
        "has a scale that is not a positive number",
    ),
    "float8": (
        """g (float[2] x) => (float[2] y) <float s = {1}>
        {q = QuantizeLinear<output_dtype=17>(x, s) y = DequantizeLinear(q, s)}""",
        UnsupportedError,
        "is of type FLOAT8E4M3FN",
    ),
    "channels last": (
        """g (uint8[1,2,2,3] x) => (uint8[1,1,1,3] y) <float s = {1}, uint8 z = {0}>
        {y = com.microsoft.QLinearGlobalAveragePool<channels_last=1>(x, s, z, s, z)}""",
        UnsupportedError,
        "channels last",
    ),
    "dynamic": (
        """g (float[2,2] x) => (uint8[2,2] y) {y, s, z = DynamicQuantizeLinear(x)}""",
        UnsupportedError,
        "dynamic",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    text, kind, message = REFUSED[name]
    with pytest.raises(kind, match=message):
        load(text_model(text, extra=', "com.microsoft": 1'))


def test_a_second_reading_changes_nothing() -> None:
    text = """g (uint8[2,4] a, uint8[2,4] b) => (uint8[2,4] y) <float s = {0.1}, float t = {0.2}, uint8 z = {3}> {
        y = com.microsoft.QLinearAdd(a, s, z, b, t, z, t, z)}"""
    once = load(text_model(text, extra=', "com.microsoft": 1'))
    assert check(once) == []
    twice = load(once)
    serialized: list[Any] = [ir.serde.serialize_model(m) for m in (once, twice)]
    assert serialized[0] == serialized[1]
