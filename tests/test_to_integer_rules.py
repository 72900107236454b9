"""to-integer, a row a rule: integers only, ONNX Runtime == Python on every tensor, within one step of the QDQ graph."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import qdq_graphs as g

from mulshift.ir import ACTIVATION_S8, ACTIVATION_S16, Array, QuantSpec, get_qparams

X4 = (2, 4, 6, 6)


@dataclass(frozen=True)
class Case:
    """One small graph: ONNX text of its nodes from x (and y) to out, what must appear, and how far it may be off."""

    nodes: str
    expect: tuple[str, ...]
    x: tuple[int, ...] = X4
    y: tuple[int, ...] | None = None
    constants: dict[str, Any] = field(default_factory=dict)
    steps: float = 1
    specs: dict[str, QuantSpec] = field(default_factory=dict)
    out: str = "float"
    skip: tuple[str, ...] = ()


def c(*shape: int, seed: int = 3) -> Array:
    return g.normal(*shape, seed=seed)


def i64(*numbers: int) -> Array:
    return np.asarray(numbers, np.int64)


CONV = "mulshift::Conv"
CASES: dict[str, Case] = {
    # products, a pair after each so that their Requantize is reached
    "conv-1d": Case(
        "h = Conv<strides=[2],pads=[1,2]>(x, w, b) out = Relu(h)",
        (CONV,),
        (2, 3, 9),
        None,
        {"w": c(4, 3, 3), "b": c(4)},
    ),
    "conv-3d": Case(
        "h = Conv<dilations=[1,2,1]>(x, w) out = Relu(h)", (CONV,), (1, 2, 4, 5, 4), None, {"w": c(3, 2, 2, 2, 3)}
    ),
    "conv-depthwise": Case(
        "h = Conv<group=4,pads=[1,1,1,1]>(x, w, b) out = Clip(h, zero, six)",
        (CONV,),
        X4,
        None,
        {"w": c(4, 1, 3, 3), "b": c(4), "zero": np.float32(0), "six": np.float32(1.5)},
    ),
    "conv-groups": Case("h = Conv<group=2>(x, w, b) out = Relu(h)", (CONV,), X4, None, {"w": c(6, 2, 3, 3), "b": c(6)}),
    "conv-same-upper": Case(
        'h = Conv<auto_pad="SAME_UPPER",strides=[2,2]>(x, w) out = Relu(h)', (CONV,), X4, None, {"w": c(3, 4, 3, 3)}
    ),
    "conv-same-lower": Case(
        'h = Conv<auto_pad="SAME_LOWER",strides=[1,2]>(x, w) out = Relu(h)', (CONV,), X4, None, {"w": c(3, 4, 2, 2)}
    ),
    "conv-of-s8": Case(
        "h = Conv(x, w) out = Relu(h)", (CONV,), X4, None, {"w": c(3, 4, 1, 1)}, specs={"x": ACTIVATION_S8}
    ),
    "conv-to-s16": Case(
        "h = Conv(x, w) out = Relu(h)", (CONV,), X4, None, {"w": c(3, 4, 1, 1)}, specs={"out": ACTIVATION_S16}, steps=2
    ),
    "conv-transpose": Case(
        "h = ConvTranspose<strides=[2,3],pads=[1,0,1,2],output_padding=[1,0]>(x, w, b) out = Relu(h)",
        (CONV, "Pad", "Slice"),
        X4,
        None,
        {"w": c(4, 3, 3, 3), "b": c(3)},
    ),
    "conv-transpose-cut": Case(
        "h = ConvTranspose<strides=[2,2],pads=[2,1,2,1]>(x, w) out = Relu(h)",
        (CONV, "Slice"),
        X4,
        None,
        {"w": c(4, 3, 2, 2)},
    ),
    "conv-transpose-1d": Case(
        "h = ConvTranspose<dilations=[2],group=2>(x, w) out = Relu(h)", (CONV,), (2, 4, 7), None, {"w": c(4, 3, 3)}
    ),
    "gemm": Case(
        "h = Gemm<transB=1,alpha=0.5,beta=2.0>(x, w, b) out = Relu(h)",
        ("mulshift::Gemm",),
        (3, 5),
        None,
        {"w": c(4, 5), "b": c(1, 4)},
    ),
    "gemm-trans-a": Case(
        "h = Gemm<transA=1,alpha=-1.5>(x, w) out = Relu(h)",
        ("Transpose", "mulshift::Gemm"),
        (5, 3),
        None,
        {"w": c(5, 4)},
    ),
    "gemm-scalar-bias": Case(
        "h = Gemm(x, w, b) out = Relu(h)", ("mulshift::Gemm",), (3, 5), None, {"w": c(5, 4), "b": c(1)}
    ),
    "matmul-and-bias": Case(
        "h = MatMul(x, w) k = Add(b, h) out = Relu(k)",
        ("mulshift::Gemm",),
        (2, 3, 5),
        None,
        {"w": c(5, 4), "b": c(4)},
        skip=("h",),
    ),
    "matmul-returned": Case(
        "h = MatMul(x, w) out = Add(h, b)",
        ("mulshift::GemmAccumulate",),
        (2, 3, 5),
        None,
        {"w": c(5, 4), "b": c(4)},
        skip=("h", "out"),
    ),
    "conv-and-bias": Case(
        "h = Conv(x, w) k = Add(h, b) out = Relu(k)",
        (CONV,),
        X4,
        None,
        {"w": c(3, 4, 1, 1), "b": c(3, 1, 1)},
        skip=("h",),
    ),
    "matmul-of-two": Case("out = MatMul(x, y)", ("mulshift::MatMul",), (2, 3, 4, 5), (2, 3, 5, 2)),
    "matmul-of-two-s8": Case(
        "out = MatMul(x, y)", ("mulshift::MatMul",), (3, 4, 5), (5, 2), specs={"y": ACTIVATION_S8}
    ),
    "matmul-transposed": Case(
        "t = Transpose<perm=[0,2,1]>(y) out = MatMul(x, t)",
        ("mulshift::MatMul",),
        (3, 4, 5),
        (3, 2, 5),
        specs={"y": ACTIVATION_S8},
        skip=("t",),
    ),
    # elementwise
    "add": Case("out = Add(x, y)", ("mulshift::Add",), X4, X4),
    "add-relu": Case("h = Add(x, y) out = Relu(h)", ("mulshift::Add",), X4, (4, 1, 6)),
    "add-s16": Case(
        "out = Add(x, y)", ("mulshift::Add",), X4, X4, specs={"x": ACTIVATION_S16, "out": ACTIVATION_S16}, steps=2
    ),
    "sub": Case("out = Sub(x, y)", ("mulshift::Add",), X4, (2, 4, 1, 1)),
    "mul": Case("out = Mul(x, y)", ("mulshift::Mul",), X4, X4),
    "mul-se": Case("out = Mul(x, y)", ("mulshift::Mul",), X4, (2, 4, 1, 1)),
    "mul-s16": Case(
        "out = Mul(x, y)", ("mulshift::Mul",), X4, X4, specs={"x": ACTIVATION_S16, "out": ACTIVATION_S16}, steps=2
    ),
    "add-channels": Case("out = Add(x, k)", ("mulshift::Affine",), constants={"k": c(4, 1, 1)}),
    "sub-from": Case("out = Sub(k, x)", ("mulshift::Affine",), constants={"k": c(1, 4, 1, 1)}),
    "mul-channels": Case("out = Mul(k, x)", ("mulshift::Affine",), constants={"k": c(4, 1, 1)}),
    "div-channels": Case(
        "h = Div(x, k) out = Relu(h)", ("mulshift::Affine",), constants={"k": np.abs(c(4, 1, 1)) + 0.5}
    ),
    "affine-chain": Case(
        "a = Mul(x, k) b = Add(a, t) out = Neg(b)",
        ("mulshift::Affine",),
        constants={"k": c(4, 1, 1), "t": c(6)},
        skip=("a", "b"),
    ),
    "affine-s16": Case(
        "out = Add(x, k)",
        ("mulshift::Affine",),
        constants={"k": c(4, 1, 1)},
        specs={"x": ACTIVATION_S16, "out": ACTIVATION_S16},
        steps=2,
    ),
    "batch-norm": Case(
        "out = BatchNormalization(x, s, b, m, v)",
        ("mulshift::Affine",),
        constants={"s": c(4), "b": c(4, seed=4), "m": c(4, seed=5), "v": np.abs(c(4)) + 0.1},
    ),
    "scalar-chain-is-a-table": Case(
        "a = Mul(x, k) b = Add(a, t) out = Pow(b, two)",
        ("mulshift::Table",),
        constants={"k": np.float32(0.7), "t": np.float32(0.3), "two": np.float32(2)},
        skip=("a", "b"),
    ),
    "silu-decomposed": Case("s = Sigmoid(x) out = Mul(x, s)", ("mulshift::Table",), skip=("s",)),
    "clip-alone": Case(
        "out = Clip(x, lo, hi)", ("mulshift::Requantize",), constants={"lo": np.float32(-0.5), "hi": np.float32(0.8)}
    ),
    "relu-alone": Case("out = Relu(x)", ("mulshift::Requantize",)),
    "relu-with-a-zero-point": Case("out = Relu(x)", ("mulshift::Requantize",), specs={"out": ACTIVATION_S8}),
    "conv-relu-with-a-zero-point": Case(
        "h = Conv(x, w) out = Relu(h)", (CONV,), constants={"w": c(3, 4, 1, 1)}, specs={"out": ACTIVATION_S8}
    ),
    "relu-s16": Case("out = Relu(x)", ("mulshift::Requantize",), specs={"x": ACTIVATION_S16}),
    "max-scalar": Case("out = Max(x, k)", ("mulshift::Requantize",), constants={"k": np.float32(0.2)}),
    "max-of-two": Case("out = Max(x, y)", ("Max",), X4, X4, steps=2),
    "min-of-two-s16": Case(
        "out = Min(x, y)",
        ("Min", "Cast"),
        X4,
        X4,
        specs={"x": ACTIVATION_S16, "y": ACTIVATION_S16, "out": ACTIVATION_S16},
        steps=2,
    ),
    "prelu-scalar": Case("out = PRelu(x, k)", ("mulshift::Table",), constants={"k": np.full(1, 0.2, np.float32)}),
    "prelu-channels": Case("out = PRelu(x, k)", ("mulshift::Affine", "mulshift::Add"), constants={"k": c(4, 1, 1)}),
    "where": Case(
        "t = Greater(x, k) out = Where(t, x, y)", ("Where", "mulshift::Table"), X4, X4, {"k": np.float32(0.1)}, steps=2
    ),
    "greater-of-two": Case("t = Greater(x, y) out = Where(t, x, y)", ("Where", "Greater"), X4, X4, steps=3),
    "where-one-tensor": Case(
        "t = Less(x, k) n = Neg(x) out = Where(t, n, x)",
        ("mulshift::Table",),
        constants={"k": np.float32(0.1)},
        skip=("n",),
    ),
    # pools and reductions
    "max-pool": Case("out = MaxPool<kernel_shape=[3,2],strides=[2,2],pads=[1,0,1,1]>(x)", ("MaxPool",)),
    "max-pool-ceil": Case("out = MaxPool<kernel_shape=[3,3],strides=[2,2],ceil_mode=1>(x)", ("MaxPool",)),
    "max-pool-negative": Case(
        "n = Abs(x) m = Neg(n) out = MaxPool<kernel_shape=[2,2],pads=[1,1,1,1]>(m)", ("MaxPool",), skip=("n",)
    ),
    "average-pool": Case("out = AveragePool<kernel_shape=[2,3],strides=[2,1]>(x)", (CONV,)),
    "average-pool-padded": Case(
        "out = AveragePool<kernel_shape=[3,3],pads=[1,1,1,1]>(x)", ("mulshift::ConvAccumulate",)
    ),
    "average-pool-counting": Case(
        "out = AveragePool<kernel_shape=[3,3],pads=[1,1,1,1],count_include_pad=1>(x)", (CONV,)
    ),
    "average-pool-ceil": Case(
        "out = AveragePool<kernel_shape=[3,3],strides=[2,2],ceil_mode=1>(x)", ("mulshift::ConvAccumulate",)
    ),
    "average-pool-1d": Case("out = AveragePool<kernel_shape=[4],strides=[3]>(x)", (CONV,), (2, 3, 11)),
    "global-average-pool": Case("out = GlobalAveragePool(x)", ("mulshift::ReduceMean",)),
    "global-max-pool": Case("out = GlobalMaxPool(x)", ("ReduceMax",)),
    "reduce-mean": Case("out = ReduceMean<keepdims=0>(x, a)", ("mulshift::ReduceMean",), constants={"a": i64(-1, 1)}),
    "reduce-sum": Case("out = ReduceSum(x, a)", ("mulshift::ReduceMean",), constants={"a": i64(2)}),
    "reduce-max": Case("out = ReduceMax(x, a)", ("ReduceMax",), constants={"a": i64(1)}, steps=2),
    "reduce-min-s16": Case(
        "out = ReduceMin(x, a)",
        ("ReduceMin", "Cast"),
        constants={"a": i64(1)},
        specs={"x": ACTIVATION_S16, "out": ACTIVATION_S16},
        steps=2,
    ),
    # movers: no pair after them, so nothing is rounded
    "reshape": Case("out = Reshape(x, s)", ("Reshape",), constants={"s": i64(2, -1)}, skip=("out",), steps=0),
    "transpose": Case("out = Transpose<perm=[0,2,3,1]>(x)", ("Transpose",), skip=("out",), steps=0),
    "flatten": Case("out = Flatten(x)", ("Flatten",), skip=("out",), steps=0),
    "squeeze": Case(
        "u = Unsqueeze(x, a) out = Squeeze(u, a)",
        ("Unsqueeze", "Squeeze"),
        constants={"a": i64(1)},
        skip=("u", "out"),
        steps=0,
    ),
    "slice": Case(
        "out = Slice(x, s, e, a, t)",
        ("Slice",),
        constants={"s": i64(4), "e": i64(0), "a": i64(2), "t": i64(-2)},
        skip=("out",),
        steps=0,
    ),
    "split": Case(
        "a, b = Split<axis=1,num_outputs=2>(x) out = Concat<axis=1>(b, a)",
        ("Split", "Concat"),
        skip=("a", "b", "out"),
        steps=0,
    ),
    "gather": Case("out = Gather<axis=1>(x, n)", ("Gather",), constants={"n": i64(2, 0)}, skip=("out",), steps=0),
    "expand": Case(
        "u = Unsqueeze(x, a) out = Expand(u, s)",
        ("Expand",),
        constants={"a": i64(0), "s": i64(3, 1, 1, 1, 1)},
        skip=("u", "out"),
        steps=0,
    ),
    "tile": Case("out = Tile(x, s)", ("Tile",), constants={"s": i64(1, 2, 1, 1)}, skip=("out",), steps=0),
    "depth-to-space": Case(
        "u = DepthToSpace<blocksize=2>(x) out = SpaceToDepth<blocksize=3>(u)",
        ("DepthToSpace", "SpaceToDepth"),
        skip=("u", "out"),
        steps=0,
    ),
    "pad-zero": Case("out = Pad(x, p)", ("Pad",), constants={"p": i64(0, 0, 1, 0, 0, 0, 0, 2)}, skip=("out",), steps=0),
    "pad-value": Case(
        "out = Pad(x, p, v)",
        ("Pad",),
        constants={"p": i64(0, 0, 1, 0, 0, 0, 0, 2), "v": np.float32(0.5)},
        skip=("out",),
    ),
    "pad-reflect": Case(
        'out = Pad<mode="reflect">(x, p)',
        ("Pad",),
        constants={"p": i64(0, 0, 1, 0, 0, 0, 0, 2)},
        skip=("out",),
        steps=0,
    ),
    "pad-edge-s16": Case(
        'out = Pad<mode="edge">(x, p)',
        ("Cast", "Pad"),
        constants={"p": i64(0, 0, 1, 0, 0, 0, 0, 2)},
        skip=("out",),
        specs={"x": ACTIVATION_S16},
        steps=0,
    ),
    "resize-nearest": Case(
        'out = Resize<mode="nearest",coordinate_transformation_mode="asymmetric",nearest_mode="floor">(x, , k)',
        ("Resize",),
        constants={"k": np.asarray([1, 1, 2, 1.5], np.float32)},
        skip=("out",),
        steps=0,
    ),
    "resize-nearest-s16": Case(
        'out = Resize<mode="nearest">(x, , k)',
        ("Resize", "Cast"),
        constants={"k": np.asarray([1, 1, 2, 2], np.float32)},
        skip=("out",),
        specs={"x": ACTIVATION_S16},
        steps=0,
    ),
    "trilu": Case("out = Trilu(x)", ("Trilu", "Cast"), skip=("out",), steps=0),
    "concat-shared": Case(
        "a = MaxPool<kernel_shape=[1,1]>(x) out = Concat<axis=1>(a, x)", ("Concat",), skip=("a", "out"), steps=0
    ),
    "concat": Case("out = Concat<axis=1>(x, y)", ("mulshift::Requantize", "Concat"), X4, (2, 3, 6, 6), steps=2),
    "mover-before-pair": Case(
        "h = Conv(x, w) r = Reshape(h, s) out = Relu(r)",
        (CONV, "Reshape"),
        constants={"w": c(3, 4, 1, 1), "s": i64(2, -1)},
        skip=("h", "r"),
    ),
    "identity-dropout": Case(
        "h = Identity(x) d = Dropout(h) out = Relu(d)", ("mulshift::Requantize",), skip=("h", "d")
    ),
    # interpolation
    "resize-linear": Case(
        'out = Resize<mode="linear">(x, , k)',
        ("mulshift::Lerp", "mulshift::Requantize"),
        constants={"k": np.asarray([1, 1, 2, 2], np.float32)},
    ),
    "resize-align-corners": Case(
        'out = Resize<mode="linear",coordinate_transformation_mode="align_corners">(x, , , n)',
        ("mulshift::Lerp",),
        constants={"n": i64(2, 4, 11, 4)},
    ),
    "resize-asymmetric": Case(
        'out = Resize<mode="linear",coordinate_transformation_mode="asymmetric">(x, , k)',
        ("mulshift::Lerp",),
        constants={"k": np.asarray([1, 1, 1.5, 0.5], np.float32)},
    ),
    "resize-one-axis": Case(
        'out = Resize<mode="linear",coordinate_transformation_mode="pytorch_half_pixel">(x, , k)',
        ("mulshift::Lerp",),
        (2, 3, 9),
        None,
        {"k": np.asarray([1, 1, 2.5], np.float32)},
    ),
    # integers out
    "arg-max": Case("out = ArgMax<axis=1>(x)", ("ArgMax",), out="int64", steps=0),
    "arg-min-s16": Case(
        "out = ArgMin<axis=1,keepdims=0>(x)", ("Cast", "ArgMin"), out="int64", specs={"x": ACTIVATION_S16}, steps=0
    ),
    "top-k": Case("out, n = TopK<axis=1>(x, k)", ("TopK",), constants={"k": i64(2)}, skip=("out",), steps=0),
    "top-k-indices": Case(
        "v, out = TopK<axis=-1>(x, k)", ("TopK",), constants={"k": i64(2)}, skip=("v",), out="int64", steps=0
    ),
}


def model_of(case: Case) -> tuple[Any, dict[str, Array]]:
    feeds = {"x": g.normal(*case.x)} | ({"y": g.normal(*case.y, seed=1)} if case.y else {})
    inputs = ", ".join(f"float[{','.join(map(str, a.shape))}] {k}" for k, a in feeds.items())
    float_model = g.graph(f"({inputs}) => ({case.out} out) {{ {case.nodes} }}", case.constants)
    return g.qdq(float_model, feeds, case.specs, case.skip), feeds


@pytest.mark.parametrize("name", CASES)
def test_rule(name: str) -> None:
    case = CASES[name]
    model, feeds = model_of(case)
    integer = g.check(model, feeds, case.steps)
    assert set(case.expect) <= set(g.operators(integer)), g.operators(integer)


UNARY = (
    "Abs Acos Asinh Atan Ceil Celu Cos Elu Erf Exp Floor HardSigmoid HardSwish LeakyRelu Mish Neg Round Selu Sigmoid"
    " Sign Sin Softplus Softsign Tan Tanh ThresholdedRelu Gelu"
).split()


@pytest.mark.parametrize("op", UNARY)
def test_unary_functions_become_tables(op: str) -> None:
    feeds = {"x": np.clip(g.normal(2, 50), -1, 1)}
    model = g.qdq(g.graph(f"(float[2,50] x) => (float out) {{ out = {op}(x) }}"), feeds)
    # Jumps (Floor, Sign, Round) fall on the same side: the table sees the same dequantized input.
    integer = g.check(model, feeds, steps=1)
    assert g.operators(integer) == ["QuantizeLinear", "mulshift::Table", "DequantizeLinear"]


@pytest.mark.parametrize("op", ["Log", "Sqrt", "Reciprocal"])
def test_functions_of_positive_numbers_become_tables(op: str) -> None:
    feeds = {"x": np.abs(g.normal(2, 50)) + 0.5}
    model = g.qdq(g.graph(f"(float[2,50] x) => (float out) {{ out = {op}(x) }}"), feeds)
    assert "mulshift::Table" in g.operators(g.check(model, feeds))


def test_a_table_is_exact_to_half_a_step() -> None:
    feeds = {"x": 3 * g.normal(2, 50)}
    integer = g.lower(g.qdq(g.graph("(float[2,50] x) => (float out) { out = Sigmoid(x) }"), feeds))
    (node,) = [n for n in integer.graph if n.op_type == "Table"]
    x, y = get_qparams(node.inputs[0]), get_qparams(node.outputs[0])
    assert x is not None and y is not None
    real = 1 / (1 + np.exp(-(np.arange(256) - int(x.zero_point)) * np.float64(x.scale)))
    steps = np.clip(real / np.float64(y.scale) + int(y.zero_point), 0, 255)
    # 2^-20: the exponential of torch and of numpy differ in their last bits.
    assert np.abs(node.inputs[1].const_value.numpy() - steps).max() <= 0.5 + 2**-20
