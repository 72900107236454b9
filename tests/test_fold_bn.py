"""fold-bn: every linear operator, before and after, grouped and transposed; what must not fold, with its reason."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from float_graphs import apply, batch_norm, by_ort, graph, ops, random, reasons

from mulshift.ir import Array, Interpreter, load, origin
from mulshift.passes.canonicalize import Canonicalize
from mulshift.passes.fold_bn import FoldBn

X = {"x": random((2, 4, 6, 5), 1)}
BN = "BatchNormalization(h, s, o, m, v)"

AFTER: dict[str, tuple[str, dict[str, Array], list[str]]] = {
    "conv": ("h = Conv(x, w)", {"w": random((6, 4, 3, 3))}, ["Conv"]),
    "conv bias pads": (
        "h = Conv<pads=[1,1,1,1], strides=[2,1]>(x, w, c)",
        {"w": random((6, 4, 3, 3)), "c": random((6,), 3)},
        ["Conv"],
    ),
    "grouped conv": ("h = Conv<group=2>(x, w)", {"w": random((6, 2, 3, 3))}, ["Conv"]),
    "depthwise": ("h = Conv<group=4>(x, w)", {"w": random((8, 1, 2, 2))}, ["Conv"]),
    "conv transpose": ("h = ConvTranspose<strides=[2,2]>(x, w)", {"w": random((4, 6, 3, 3))}, ["ConvTranspose"]),
    "grouped conv transpose": (
        "h = ConvTranspose<group=2>(x, w, c)",
        {"w": random((4, 3, 3, 3)), "c": random((6,), 3)},
        ["ConvTranspose"],
    ),
}


@pytest.mark.parametrize("name", AFTER)
def test_folds_into_what_is_before(name: str) -> None:
    """Numbers hold, one node stays, its origin names both."""
    body, weights, expected = AFTER[name]
    channels = 8 if name == "depthwise" else 6
    text = f"g (float[N,4,6,5] x) => (float[N,C,H,W] y) {{ {body} y = {BN} }}"
    model = graph(text, {**weights, **batch_norm(channels)})
    apply(FoldBn(), model, X)
    assert ops(model) == expected
    assert model.graph.outputs[0].name == "y"
    assert len(origin(model.graph.node(0))) == 2
    assert set(model.graph.initializers) == {"w", *(["c"] if "c" in weights else ["w.bias"])}


GEMMS = {
    "plain": ("alpha=1.0", (5, 3), None),
    "transB": ("transB=1", (3, 5), (3,)),
    "alpha beta": ("alpha=0.5, beta=2.0", (5, 3), (1, 3)),
    "scalar C": ("beta=0.25", (5, 3), ()),
    "full C": ("beta=1.0", (5, 3), (2, 3)),
    "transA": ("transA=1", (2, 3), (3,)),
}


@pytest.mark.parametrize("name", GEMMS)
@pytest.mark.parametrize("before", [True, False])
def test_gemm_forms(name: str, before: bool) -> None:
    """transA, transB, alpha, beta and each shape of C, BatchNormalization on either side."""
    attributes, shape, c = GEMMS[name]
    weights = {"w": random(shape)} | ({} if c is None else {"c": random(c, 4)})
    arguments = ", ".join(["t", *weights])
    first, gemm = ("t = BatchNormalization(x, s, o, m, v)", f"y = Gemm<{attributes}>({arguments})")
    if not before:
        first, gemm = f"h = Gemm<{attributes}>({arguments.replace('t', 'x', 1)})", f"y = {BN}"
    text = f"g (float[2,5] x) => (float[A,B] y) {{ {first} {gemm} }}"
    model = graph(text, {**weights, **batch_norm(5 if before else 3)})
    step = apply(FoldBn(), model, {"x": random((2, 5), 1)})
    if before and name == "transA":  # channels of x are its columns, and transA sums over its rows
        assert ops(model) == ["Mul", "Add", "Gemm"]
        assert "does not follow the channels" in reasons(step)
    else:
        assert ops(model) == ["Gemm"]


def test_matmul_and_add() -> None:
    """The scale goes into the weights, the rest stays one Add."""
    text = """g (float[N,7,4] x) => (float[N,7,6] y) {
        h = MatMul(x, w)  i = Add(c, h)  j = Mul(i, a)  y = Sub(j, b) }"""
    weights = {"w": random((4, 6)), "c": random((6,), 2), "a": random((6,), 3), "b": random((1, 6), 4)}
    model = graph(text, weights)
    apply(FoldBn(), model, {"x": random((2, 7, 4), 1)})
    assert ops(model) == ["MatMul", "Add"]


def test_before_matmul() -> None:
    """The shift becomes an Add behind the MatMul, and the output keeps its name."""
    text = "g (float[N,7,4] x) => (float[N,7,6] y) { i = Mul(x, a)  j = Add(i, b)  y = MatMul(j, w) }"
    model = graph(text, {"w": random((4, 6)), "a": random((4,), 3), "b": random((4,), 4)})
    apply(FoldBn(), model, {"x": random((2, 7, 4), 1)})
    assert ops(model) == ["MatMul", "Add"]
    assert model.graph.outputs[0].name == "y"


@pytest.mark.parametrize("body", ["Conv<group=2>(h, w)", "Conv<strides=[2,2]>(h, w)"])
def test_before_conv_without_padding(body: str) -> None:
    """`W (a y + b)`."""
    text = f"g (float[N,4,6,5] x) => (float[N,6,P,Q] y) {{ h = BatchNormalization(x, s, o, m, v) y = {body} }}"
    model = graph(text, {"w": random((6, 2 if "group" in body else 4, 3, 3)), **batch_norm(4)})
    apply(FoldBn(), model, X)
    assert ops(model) == ["Conv"]


def test_before_conv_with_padding() -> None:
    """A shift would meet the zeros at the border; a scale alone does not."""
    text = """g (float[N,4,6,5] x) => (float[N,6,6,5] y) {
        h = BatchNormalization(x, s, o, m, v)  y = Conv<pads=[1,1,1,1]>(h, w) }"""
    weights = {"w": random((6, 4, 3, 3)), **batch_norm(4)}
    model = graph(text, weights)
    step = apply(FoldBn(), model, X)
    assert ops(model) == ["Mul", "Add", "Conv"]
    assert "meets zeros at the border" in reasons(step)
    zero = graph(text, {**weights, "o": np.zeros(4, np.float32), "m": np.zeros(4, np.float32)})
    apply(FoldBn(), zero, X)
    assert ops(zero) == ["Conv"]


def test_before_conv_transpose() -> None:
    """Only a scale can pass a ConvTranspose."""
    text = "g (float[N,4,6,5] x) => (float[N,6,P,Q] y) { h = Mul(x, a)  y = ConvTranspose<group=2>(h, w) }"
    model = graph(text, {"w": random((4, 3, 3, 3)), "a": random((4, 1, 1), 3)})
    apply(FoldBn(), model, X)
    assert ops(model) == ["ConvTranspose"]


MOVED = {
    "flatten before gemm": (
        "h = BatchNormalization(x, s, o, m, v) f = Flatten(h) y = Gemm(f, w)",
        {"w": random((120, 3)), **batch_norm(4)},
        ["Flatten", "Gemm"],
    ),
    "conv, reshape, bn": (
        "c = Conv(x, w) r = Reshape(c, t) h = Transpose<perm=[0,2,1]>(r) i = Transpose<perm=[0,2,1]>(h)"
        " y = BatchNormalization(i, s, o, m, v)",
        {"w": random((6, 4, 3, 3)), "t": np.array([0, 6, -1]), **batch_norm(6)},
        ["Conv", "Reshape", "Transpose", "Transpose"],
    ),
    "conv to tokens": (
        "c = Conv(x, w) r = Reshape(c, t) h = Transpose<perm=[0,2,1]>(r) i = Mul(h, a) y = Add(i, b)",
        {"w": random((6, 4, 3, 3)), "t": np.array([0, 6, -1]), "a": random((6,), 2), "b": random((6,), 3)},
        ["Conv", "Reshape", "Transpose"],
    ),
    "transposed, matmul": (
        "h = BatchNormalization(x, s, o, m, v) u = Transpose<perm=[0,2,3,1]>(h) y = MatMul(u, w)",
        {"w": random((4, 6)), **batch_norm(4)},
        ["Transpose", "MatMul", "Add"],
    ),
}


@pytest.mark.parametrize("name", MOVED)
def test_across_movers(name: str) -> None:
    """Reshape, Flatten and Transpose with the channels followed."""
    body, weights, expected = MOVED[name]
    model = graph(f"g (float[N,4,6,5] x) => (float y) {{ {body} }}", weights)
    apply(FoldBn(), model, X)
    assert ops(model) == expected


def test_activations_are_left_whole() -> None:
    """The 3 and the 6 of a HardSwish fold into nothing, though a Conv stands on either side."""
    text = """g (float[N,4,6,5] x) => (float[A,B,C,D] y) {
        h = Conv(x, w) a = Add(h, three) b = Clip(a, zero, six) d = Mul(h, b) e = Div(d, six) y = Conv(e, u) }"""
    numbers = {"three": np.float32(3), "zero": np.float32(0), "six": np.float32(6)}
    weights = {"w": random((6, 4, 3, 3)), "u": random((2, 6, 1, 1)), **{k: np.asarray(v) for k, v in numbers.items()}}
    model = graph(text, weights)
    step = apply(FoldBn(), model, X)
    assert not step.log.changed


def test_shared_weight_is_copied() -> None:
    """The other reader keeps the old numbers."""
    text = f"g (float[N,4,6,5] x) => (float[N,6,P,Q] y, float[N,6,P,Q] z) {{ h = Conv(x, w) y = {BN} z = Conv(x, w) }}"
    model = graph(text, {"w": random((6, 4, 3, 3)), **batch_norm(6)})
    apply(FoldBn(), model, X)
    assert ops(model) == ["Conv", "Conv"]
    assert np.array_equal(model.graph.initializers["w"].const_value.numpy(), random((6, 4, 3, 3)))


LEFT = {
    "read elsewhere": ("h = Conv(x, w) y = BatchNormalization(h, s, o, m, v) z = Relu(h)", "read by others"),
    "graph output": ("z = Conv(x, w) y = BatchNormalization(z, s, o, m, v)", "read by others"),
    "alone": (
        "z = Relu(x) h = Relu(x) k = Concat<axis=1>(h, h) l = BatchNormalization(k, s, o, m, v) y = Relu(l)",
        "no linear",
    ),
    "computed weights": (
        "u = Mul(w, q) h = Conv(x, u) y = BatchNormalization(h, s, o, m, v) z = Relu(x)",
        "not constant",
    ),
}


@pytest.mark.parametrize("name", LEFT)
def test_what_stays_becomes_mul_and_add(name: str) -> None:
    """And says why."""
    body, why = LEFT[name]
    extra = ", float[1] q" if "q" in body.split() or "(w, q)" in body else ""
    text = f"g (float[N,4,6,5] x{extra}) => (float[A,B,C,D] y, float[E,F,G,H] z) {{ {body} }}"
    model = graph(text, {"w": random((8, 4, 3, 3)), **batch_norm(8)})
    feeds = X | ({"q": random((1,), 9)} if extra else {})
    step = apply(FoldBn(), model, feeds)
    assert "BatchNormalization" not in ops(model)
    assert {"Mul", "Add"} <= set(ops(model))
    assert why in reasons(step)
    assert [v.name for v in model.graph.outputs] == ["y", "z"]


NOT_AFFINE = [
    ("y = Add(h, t)", {"t": random((6, 4, 3), 2)}),  # varies over positions
    ("y = Mul(h, t)", {"t": random((3, 1, 6, 1, 1), 2)}),  # makes another rank
    ("y = Div(t, h)", {"t": random((6, 1, 1), 2)}),  # the constant is divided
    ("y = Mul(h, h)", {}),
]


@pytest.mark.parametrize("row", range(len(NOT_AFFINE)))
def test_near_misses(row: int) -> None:
    """Constants that are no channel's scale are left alone."""
    body, weights = NOT_AFFINE[row]
    model = graph(
        f"g (float[N,4,6,5] x) => (float y) {{ h = Conv(x, w) {body} }}", {"w": random((6, 4, 3, 3)), **weights}
    )
    step = apply(FoldBn(), model, X)
    assert len(ops(model)) == 2
    assert not step.log.changed


def test_training_mode_is_refused() -> None:
    """It uses the batch's statistics."""
    text = """g (float[N,4,6,5] x) => (float y) { h = Conv(x, w)
        y, p, q = BatchNormalization<training_mode=1>(h, s, o, m, v) }"""
    model = graph(text, {"w": random((6, 4, 3, 3)), **batch_norm(6)})
    step = FoldBn()
    step(model)
    assert ops(model) == ["Conv", "BatchNormalization"]
    assert "training mode" in reasons(step)


def test_composes_with_others() -> None:
    """In a Sequential of onnx_ir."""
    text = f"g (float[N,4,6,5] x) => (float y) {{ h = Conv(x, w) y = {BN} }}"
    model = graph(text, {"w": random((6, 4, 3, 3)), **batch_norm(6)})
    expected = by_ort(model, X)[0]
    result = ir.passes.Sequential(Canonicalize(), FoldBn(), Canonicalize())(model)
    assert result.modified
    assert ops(model) == ["Conv"]
    np.testing.assert_allclose(
        by_ort(model, X)[0], expected, rtol=0, atol=1e-4
    )  # a sum of 36 float32 products, reordered


@pytest.mark.parametrize("which", ["efflite", "cifar_resnet"])
def test_real_models(which: str, fixtures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not one BatchNormalization is left, and the outputs agree."""
    torch = pytest.importorskip("torch")
    monkeypatch.syspath_prepend(str(fixtures / "loaders"))
    loader = pytest.importorskip(which)
    try:
        module = loader.load(1)[0]
    except (ImportError, OSError, IndexError) as e:
        pytest.skip(f"{which} is not installed: {e}")
    finally:
        sys.modules.pop(which, None)
    size = 224 if which == "efflite" else 32
    x = random((1, 3, size, size), 5, -2, 2)
    model = load(module, (torch.from_numpy(x),))
    name = str(model.graph.inputs[0].name)
    expected = module(torch.from_numpy(x)).detach().numpy()
    ir.passes.Sequential(Canonicalize(), FoldBn())(model)
    assert "BatchNormalization" not in ops(model)
    assert {"Mul", "Sub", "Div"}.isdisjoint(ops(model))
    got = next(iter(Interpreter(model).run({name: x}).values())).numpy()
    # Largest output 1e-4: float32 carries 6e-8 a step, about 50 layers of up to 1000 products each amplify it.
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-4 * float(np.abs(expected).max()))
