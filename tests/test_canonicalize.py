"""canonicalize: what each step removes, what must stay, and that names, dimensions and origins survive."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from float_graphs import apply, by_ort, graph, ops, random, reasons

from mulshift.ir import Array, load, origin
from mulshift.passes.canonicalize import Canonicalize

X = {"x": random((2, 4, 6, 5), 1)}


def _canonical(body: str, weights: dict[str, Array] | None = None, inputs: str = "float[N,4,6,5] x") -> ir.Model:
    model = graph(f"g ({inputs}) => (float[A,B,C,D] y) {{ {body} }}", weights)
    apply(Canonicalize(), model, X, tolerance=1e-6)  # nothing but the order of a convolution's sums may change
    return model


GONE: dict[str, tuple[str, dict[str, Array], list[str]]] = {
    "dropout": ("h = Relu(x) y = Dropout(h)", {}, ["Relu"]),
    "identity, cast": ("a = Identity(x) b = Cast<to=1>(a) y = Relu(b)", {}, ["Relu"]),
    "transpose twice": (
        "a = Transpose<perm=[0,2,3,1]>(x) b = Transpose<perm=[0,3,1,2]>(a) y = Relu(b)",
        {},
        ["Relu"],
    ),
    "add 0": ("a = Add(x, z) b = Sub(a, z) y = Relu(b)", {"z": np.zeros((4, 1, 1), np.float32)}, ["Relu"]),
    "times 1": ("a = Mul(z, x) b = Div(a, z) y = Relu(b)", {"z": np.ones((1,), np.float32)}, ["Relu"]),
    "constants": ("a = Add(p, q) b = Exp(a) y = Mul(x, b)", {"p": random((5,)), "q": random((5,), 2)}, ["Mul"]),
    "twins": ("a = Relu(x) b = Relu(x) y = Add(a, b)", {}, ["Relu", "Add"]),
    "dead": ("a = Exp(x) y = Relu(x)", {}, ["Relu"]),
}


@pytest.mark.parametrize("name", GONE)
def test_what_does_nothing_goes(name: str) -> None:
    """One row a step."""
    body, weights, expected = GONE[name]
    assert ops(_canonical(body, weights)) == expected


KEPT: dict[str, tuple[str, dict[str, Array]]] = {
    "almost 0": ("a = Add(x, z) y = Relu(a)", {"z": np.full((1,), 1e-12, np.float32)}),
    "broadcasts": ("a = Add(p, z) y = Add(a, x)", {"z": np.zeros((2, 1, 1, 1), np.float32)}),
    "0 minus": ("y = Sub(z, x)", {"z": np.zeros((1,), np.float32)}),
}


@pytest.mark.parametrize("name", KEPT)
def test_what_does_something_stays(name: str) -> None:
    """An epsilon is not 0, and a 0 may make an axis."""
    body, weights = KEPT[name]
    model = graph(f"g (float[N,4,6,5] x, float[1,4,1,1] p) => (float[A,B,C,D] y) {{ {body} }}", weights)
    before = ops(model)
    apply(Canonicalize(), model, {**X, "p": random((1, 4, 1, 1), 3)})
    assert ops(model) == before


def test_training_dropout_stays() -> None:
    """It is random on purpose."""
    text = "g (float[N,4] x) => (float[N,4] y) { y = Dropout(x, r, t) }"
    model = graph(text, {"r": np.asarray(0.5, np.float32), "t": np.asarray(True)})
    Canonicalize()(model)
    assert ops(model) == ["Dropout"]


SHAPES: dict[str, tuple[str, dict[str, Array], list[int]]] = {
    "flatten, torch": (
        "s = Shape(x) n = Gather(s, i) u = Unsqueeze(n, o) t = Concat<axis=0>(u, m) r = Reshape(x, t)",
        {"i": np.asarray(0), "o": np.array([0]), "m": np.array([-1])},
        [0, -1],
    ),
    "rows": (
        "s = Shape<start=0, end=1>(x) k = Mul(s, f) t = Concat<axis=0>(k, d) r = Reshape(x, t)",
        {"f": np.array([4]), "d": np.array([30])},
        [-1, 30],
    ),
    "slice": (
        "s = Shape(x) b = Slice(s, o, i) t = Concat<axis=0>(b, d) r = Reshape(x, t)",
        {"o": np.array([0]), "i": np.array([2]), "d": np.array([30])},
        [0, 4, 30],
    ),
}


@pytest.mark.parametrize("name", SHAPES)
def test_computed_shapes_become_constant(name: str) -> None:
    """With the batch still dynamic: the result holds for another one."""
    body, weights, expected = SHAPES[name]
    model = graph(
        f"g (float[N,4,6,5] x) => (float[A] y) {{ {body} w = Relu(r) y = Reshape(w, flat) }}",
        weights | {"flat": np.array([-1])},
    )
    apply(Canonicalize(), model, X)
    found = next(node for node in model.graph if node.op_type == "Reshape")
    assert found.inputs[1].const_value.numpy().tolist() == expected
    assert "Shape" not in ops(model)
    assert len(by_ort(model, {"x": random((7, 4, 6, 5))})[0]) == 7 * 120


def test_two_unknown_dimensions_stay_computed() -> None:
    """And are reported."""
    text = """g (float[N,4,W,5] x) => (float[A,B,C] y) {
        s = Shape(x) a = Gather(s, i) b = Gather(s, j) t = Concat<axis=0>(b, a, m) y = Reshape(x, t) }"""
    model = graph(text, {"i": np.array([0]), "j": np.array([2]), "m": np.array([20])})
    step = apply(Canonicalize(), model, X)
    assert "Concat" in ops(model)
    assert "more than one unknown dimension" in reasons(step)


PADS: dict[str, tuple[str, dict[str, Array], list[str]]] = {
    "conv": (
        "a = Pad(x, p) y = Conv<pads=[1,0,0,0]>(a, w)",
        {"p": np.array([0, 0, 1, 2, 0, 0, 2, 1]), "w": random((3, 4, 3, 3))},
        ["Conv"],
    ),
    "conv, channels padded": (
        "a = Pad(x, p) y = Conv(a, w)",
        {"p": np.array([0, 1, 0, 0, 0, 0, 0, 0]), "w": random((3, 5, 3, 3))},
        ["Pad", "Conv"],
    ),
    "conv, ones": (
        "a = Pad(x, p, one) y = Conv(a, w)",
        {"p": np.array([0, 0, 1, 1, 0, 0, 1, 1]), "one": np.asarray(1, np.float32), "w": random((3, 4, 3, 3))},
        ["Pad", "Conv"],
    ),
    "max pool of relu": (
        "r = Relu(x) a = Pad(r, p) y = MaxPool<kernel_shape=[3,3], strides=[2,2]>(a)",
        {"p": np.array([0, 0, 1, 1, 0, 0, 1, 1])},
        ["Relu", "MaxPool"],
    ),
    "max pool of anything": (
        "a = Pad(x, p) y = MaxPool<kernel_shape=[3,3]>(a)",
        {"p": np.array([0, 0, 1, 1, 0, 0, 1, 1])},
        ["Pad", "MaxPool"],
    ),
    "max pool, lowest": (
        "a = Pad(x, p, low) y = MaxPool<kernel_shape=[3,3]>(a)",
        {"p": np.array([0, 0, 1, 1, 0, 0, 1, 1]), "low": np.asarray(-np.inf, np.float32)},
        ["MaxPool"],
    ),
    "average pool": (
        "a = Pad(x, p) y = AveragePool<kernel_shape=[3,2]>(a)",
        {"p": np.array([0, 0, 1, 1, 0, 0, 0, 1])},
        ["AveragePool"],
    ),
    "average pool, own padding": (
        "a = Pad(x, p) y = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1]>(a)",
        {"p": np.array([0, 0, 1, 1, 0, 0, 0, 1])},
        ["Pad", "AveragePool"],
    ),
    "average pool, wide": (
        "a = Pad(x, p) y = AveragePool<kernel_shape=[2,2]>(a)",
        {"p": np.array([0, 0, 2, 2, 0, 0, 2, 2])},
        ["Pad", "AveragePool"],
    ),
}


@pytest.mark.parametrize("name", PADS)
def test_pads(name: str) -> None:
    """Folded where the window's own padding does the same."""
    body, weights, expected = PADS[name]
    assert ops(_canonical(body, weights)) == expected


WINDOWS = ["strides=[2,2]", "strides=[1,1]"]


@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize("window", WINDOWS)
def test_auto_pad(mode: str, window: str) -> None:
    """Explicit padding gives the same numbers."""
    attributes = f'auto_pad="{mode}", {window}'
    conv = _canonical(f"y = Conv<{attributes}>(x, w)", {"w": random((3, 4, 3, 2))})
    pool = _canonical(f"y = MaxPool<{attributes}, kernel_shape=[3,2]>(x)")
    for model in (conv, pool):
        assert "auto_pad" not in model.graph.node(0).attributes


def test_dilated_auto_pad() -> None:
    """SAME keeps the size of a dilated Conv (ONNX Runtime refuses the original); of a pool, runtimes disagree."""
    attributes = 'auto_pad="SAME_UPPER", dilations=[2,2], strides=[2,1]'
    text = "g (float[N,4,6,5] x) => (float[A,B,C,D] y) { y = %s }"
    conv = graph(text % f"Conv<{attributes}>(x, w)", {"w": random((3, 4, 3, 2))})
    Canonicalize()(conv)
    assert by_ort(conv, X)[0].shape == (2, 3, 3, 5)
    pool, step = graph(text % f"MaxPool<{attributes}, kernel_shape=[3,2]>(x)"), Canonicalize()
    step(pool)
    assert "auto_pad" in pool.graph.node(0).attributes
    assert "runtimes differ" in reasons(step)


def test_auto_pad_of_unknown_size() -> None:
    """Stride 1 needs no size; stride 2 does."""
    text = 'g (float[N,4,H,5] x) => (float[A,B,C,D] y) {{ y = Conv<auto_pad="SAME_UPPER", strides=[{s},1]>(x, w) }}'
    one, two = (graph(text.format(s=s), {"w": random((3, 4, 3, 2))}) for s in (1, 2))
    apply(Canonicalize(), one, X)
    step = apply(Canonicalize(), two, X)
    assert "auto_pad" not in one.graph.node(0).attributes
    assert "depends on a size" in reasons(step)


def test_names_dimensions_and_origins_survive() -> None:
    """Inputs and outputs in their order, `batch` still a name, every node with an origin from the source."""
    text = """g (float[batch,4] x, float[batch,4] unused) =>
        (float[batch,4] b, float[batch,4] a, float[batch,4] c, float[batch,4] d) {
        [one] h = Identity(x) [two] a = Relu(h) [three] b = Mul(h, z) [four] c = Identity(a) [five] d = Relu(x) }"""
    model = graph(text, {"z": np.ones((1,), np.float32)})
    apply(Canonicalize(), model, {"x": random((2, 4)), "unused": random((2, 4))})
    assert [v.name for v in model.graph.inputs] == ["x", "unused"]
    assert [v.name for v in model.graph.outputs] == ["b", "a", "c", "d"]
    assert all(str(v.shape[0]) == "batch" for v in (*model.graph.inputs, *model.graph.outputs))
    assert {name for node in model.graph for name in origin(node)} <= {"one", "two", "three", "four", "five"}


def test_functions_are_inlined_but_ours() -> None:
    """With the caller's origin."""
    text = """<ir_version: 10, opset_import: ["" : 21, "f" : 1]>
        g (float[N,4] x) => (float[N,4] y) { [caller] y = f.Half(x) }
        <domain: "f", opset_import: ["" : 21]> Half (a) => (b) { c = Sigmoid(a) b = Tanh(c) }"""
    model = ir.from_onnx_text(text)
    ir.passes.Sequential(Canonicalize())(model)
    assert ops(model) == ["Sigmoid", "Tanh"]
    assert not model.functions
    assert {name for node in model.graph for name in origin(node)} == {"caller"}


def test_external_weights_stay_on_disk(tmp_path: Path) -> None:
    """What nothing computes on is not read, however small the graph gets."""
    text = "g (float[N,4,6,5] x) => (float[A,B,C,D] y) { a = Identity(x) y = Conv(a, w) }"
    path = tmp_path / "model.onnx"
    ir.save(graph(text, {"w": random((300, 4, 3, 3))}), path, external_data="model.data", size_threshold_bytes=0)
    model = load(str(path))
    Canonicalize()(model)
    assert ops(model) == ["Conv"]
    tensor = model.graph.initializers["w"].const_value
    assert isinstance(tensor, ir.ExternalTensor)
    assert tensor.raw is None or tensor._array is None  # not materialized


def test_fold_limit() -> None:
    """Larger constants are left to the runtime."""
    weights = {"p": random((5,)), "q": random((5,), 2)}
    model = graph("g (float[N,5] x) => (float[N,5] y) { a = Add(p, q) y = Mul(x, a) }", weights)
    Canonicalize(fold_limit=4)(model)
    assert ops(model) == ["Add", "Mul"]
    Canonicalize()(model)
    assert ops(model) == ["Mul"]


def test_a_rewritten_node_has_the_origins_of_all() -> None:
    """The Pad that a Conv swallowed is still told."""
    body, weights, _ = PADS["conv"]
    model = _canonical(body, weights)
    assert set(origin(model.graph.node(0))) == {"a", "y"}
