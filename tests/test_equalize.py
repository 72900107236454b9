"""equalize: the same function, ranges of a channel equal on both sides, and what is left alone says why."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
import pytest
import qdq_graphs as g

from mulshift.ir import Array, DataError, Interpreter, UsageError, get_range, set_range
from mulshift.ir.text import show
from mulshift.passes.channel_pairs import find_pair, input_rows, output_rows
from mulshift.passes.equalize import Equalize
from mulshift.passes.linear_weights import LINEAR, weight_of


def uneven(*shape: int, axis: int = 0, seed: int = 0) -> Array:
    """Noise whose slices along an axis differ in size by up to 2^8."""
    rng = np.random.default_rng(seed + 100)
    size = np.exp2(rng.uniform(-4, 4, shape[axis])).reshape([-1 if i == axis else 1 for i in range(len(shape))])
    return (g.normal(*shape, seed=seed) * size).astype(np.float32)


X = g.normal(2, 4, 8, 8, seed=50)
IMAGE = "(float[2,4,8,8] x) => (float y) "
W, B, V = uneven(6, 4, 3, 3, seed=1), g.normal(6, seed=2), uneven(5, 6, 3, 3, axis=1, seed=3)
SIX = {"zero": np.float32(0), "six": np.float32(6), "big": np.float32(1e6)}
CONSTANTS = {"w": W, "b": B, "v": V, **SIX, "slope": np.abs(g.normal(6, 1, 1, seed=9))}
MIDDLES = {
    "relu": "Relu(h)",
    "leaky": "LeakyRelu<alpha=0.2>(h)",
    "prelu": "PRelu(h, slope)",
    "pool": "MaxPool<kernel_shape=[2,2],strides=[2,2]>(h)",
    "average": "AveragePool<kernel_shape=[3,3],pads=[1,1,1,1],count_include_pad=1>(h)",
    "clip-below": "Clip(h, zero)",
}
FIRE = {
    **{name: (f"h = Conv(x, w, b) m = {op} y = Conv(m, v)", {}) for name, op in MIDDLES.items()},
    "straight": ("h = Conv(x, w, b) y = Conv(h, v)", {}),
    "no-bias": ("h = Conv(x, w) m = Relu(h) y = Conv(m, v)", {}),
    "depthwise": (
        "h = Conv(x, w, b) m = Relu(h) d = Conv<group=6,pads=[1,1,1,1]>(m, k, b) n = Relu(d) y = Conv(n, v)",
        {"k": uneven(6, 1, 3, 3, seed=4)},
    ),
    "groups": (
        "h = Conv<group=2>(x, u, b) m = Relu(h) y = Conv<group=3>(m, k)",
        {"u": uneven(6, 2, 3, 3, seed=5), "k": uneven(9, 2, 1, 1, axis=1, seed=6)},
    ),
    "transposed": (
        "h = ConvTranspose<group=2>(x, u, b) m = Relu(h) y = ConvTranspose<group=3>(m, k)",
        {"u": uneven(4, 3, 3, 3, axis=1, seed=5), "k": uneven(6, 2, 2, 2, seed=6)},
    ),
    "head": (
        "h = Conv(x, w, b) m = Relu(h) p = GlobalAveragePool(m) f = Flatten(p) y = Gemm<transB=1>(f, k, c)",
        {"k": uneven(7, 6, axis=1, seed=7), "c": g.normal(7, seed=8)},
    ),
    "mean": (
        "h = Conv(x, w, b) m = Relu(h) f = ReduceMean<keepdims=0>(m, axes) y = Gemm<alpha=0.5>(f, k, c)",
        {"k": uneven(6, 7, seed=7), "c": g.normal(1, 7, seed=8), "axes": np.asarray([2, 3])},
    ),
}  # fmt: skip
DENSE = {
    "gemm": "h = Gemm<beta=0.5>(x, w, b) m = Relu(h) n = Gemm<transB=1>(m, v, c) y = Relu(n)",
    "matmul": "h = MatMul(x, w) m = LeakyRelu(h) y = MatMul(m, t)",
}
DENSE_CONSTANTS = {
    "w": uneven(4, 6, axis=1, seed=1), "b": g.normal(2, 6, seed=2), "v": uneven(5, 6, axis=1, seed=3),
    "t": uneven(6, 5, seed=4), "c": g.normal(5, seed=5),
}  # fmt: skip


def model(name: str) -> tuple[ir.Model, dict[str, Array]]:
    if name in DENSE:
        return g.graph(f"(float[2,4] x) => (float y) {{ {DENSE[name]} }}", DENSE_CONSTANTS), {"x": X[:, :, 0, 0]}
    text, more = FIRE[name]
    return g.graph(IMAGE + f"{{ {text} }}", {**CONSTANTS, **more}), {"x": X}


def outputs(m: ir.Model, feeds: Mapping[str, Array]) -> tuple[Array, Array]:
    return Interpreter(m).run(dict(feeds))["y"].numpy(), g.ort_values(m, feeds)["y"]


@pytest.mark.parametrize("by", ["weights", "ranges"])
@pytest.mark.parametrize("name", [*FIRE, *DENSE])
def test_same_function_and_second_run_changes_nothing(name: str, by: str) -> None:
    m, feeds = model(name)
    expected = outputs(m, feeds)[1]
    made = Equalize(by=by, samples=[feeds])
    assert made(m).modified
    assert max(abs(w).max() for w in weights(m)) < 100
    for found in outputs(m, feeds):
        # weights are rounded to float32 once more, channels of very different size are summed
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=2e-6 * float(np.abs(expected).max()))
    text = show(m)
    assert not Equalize(by=by, samples=[feeds])(m).modified
    assert show(m) == text


def weights(m: ir.Model) -> list[Array]:
    return [w for n in m.graph if n.op_type in LINEAR and (w := weight_of(n)) is not None]


@pytest.mark.parametrize("name", [*FIRE, *DENSE])
def test_ranges_of_a_channel_are_equal_on_both_sides(name: str) -> None:
    m, _ = model(name)
    Equalize()(m)
    pairs = [find_pair(m.graph, n, lambda v, b: False) for n in m.graph if n.op_type in LINEAR]
    found = [p for p in pairs if not isinstance(p, str)]
    assert len(found) == (2 if name == "depthwise" else 1)
    for p in found:
        r1 = np.abs(output_rows(p.first, weight_of(p.first))).max(axis=1)  # type: ignore[arg-type]
        r2 = np.abs(input_rows(p.second, weight_of(p.second))).max(axis=1)  # type: ignore[arg-type]
        np.testing.assert_allclose(r1, r2, rtol=4e-3)  # the iteration ends at scales within 1e-3 of 1


def test_formula() -> None:
    """One pair: W1' = W1 / s, b' = b / s, W2' = W2 * s with s = sqrt(r1 / r2), exactly as the paper has it."""
    m, _ = model("relu")
    Equalize()(m)
    s = np.sqrt(np.abs(W).max(axis=(1, 2, 3)).astype(np.float64) / np.abs(V).max(axis=(0, 2, 3)))
    found = {k: v.const_value.numpy() for k, v in m.graph.initializers.items() if v.const_value is not None}
    np.testing.assert_allclose(found["w"], W / s.reshape(-1, 1, 1, 1), rtol=1e-6)  # float32
    np.testing.assert_allclose(found["b"], B / s, rtol=1e-6)
    np.testing.assert_allclose(found["v"], V * s.reshape(1, -1, 1, 1), rtol=1e-6)


def test_by_ranges_balances_activations_with_weights() -> None:
    m, feeds = model("relu")
    Equalize(by="ranges", samples=[feeds])(m)
    seen = np.abs(g.ort_values(m, feeds)["m"]).max(axis=(0, 2, 3))
    second = m.graph.node(2)
    np.testing.assert_allclose(seen, np.abs(input_rows(second, weight_of(second))).max(axis=1), rtol=1e-4)  # type: ignore[arg-type]  # float32 sums


def test_dead_channels_stay() -> None:
    w, v = W.copy(), V.copy()
    w[2], v[:, 4] = 0, 0
    m = g.graph(IMAGE + "{ h = Conv(x, w, b) m = Relu(h) y = Conv(m, v) }", {**CONSTANTS, "w": w, "v": v})
    expected = outputs(m, {"x": X})[1]
    Equalize()(m)
    bias = m.graph.initializers["b"].const_value
    assert bias is not None
    assert np.array_equal(bias.numpy()[[2, 4]], B[[2, 4]])
    assert not np.isclose(bias.numpy()[[0, 1, 3, 5]], B[[0, 1, 3, 5]]).any()
    np.testing.assert_allclose(outputs(m, {"x": X})[0], expected, rtol=1e-5, atol=2e-6 * float(np.abs(expected).max()))


NEAR = {
    "shared weights": ("h = Conv(x, w, b) m = Relu(h) y = Conv(m, v) z = Conv(x, w)", "its weights are shared"),
    "two readers": ("h = Conv(x, w, b) m = Relu(h) y = Conv(m, v) z = Abs(m)", "'m' has 2 readers"),
    "graph output": ("h = Conv(x, w, b) z = Relu(h) y = Conv(z, v)", "its output is a graph output"),
    "not homogeneous": ("h = Conv(x, w, b) m = Sigmoid(h) y = Conv(m, v) z = Abs(x)", "scales do not pass"),
    "clip above": ("h = Conv(x, w, b) m = Clip(h, zero, six) y = Conv(m, v) z = Abs(x)", "'Clip_1' clips at 6"),
    "residual": ("h = Conv(x, w, b) m = Add(h, h) y = Conv(m, v) z = Abs(x)", "scales do not pass"),
    "spatial flatten": ("h = Conv(x, w, b) m = Flatten(h) y = Gemm(m, k) z = Abs(x)", "scales do not pass"),
}


@pytest.mark.parametrize("name", NEAR)
def test_near_misses_are_left_alone_with_a_reason(name: str) -> None:
    text, reason = NEAR[name]
    m = g.graph(f"(float[2,4,8,8] x) => (float y, float z) {{ {text} }}", {**CONSTANTS, "k": g.normal(6 * 36, 3)})
    before, made = show(m), Equalize()
    assert not made(m).modified
    assert show(m) == before
    assert any(reason in note.what for note in made.log.skipped), made.log.skipped


@pytest.mark.parametrize(("high", "seen", "fires"), [("six", 5.5, True), ("six", 6.0, False), ("big", None, False)])
def test_clip_becomes_relu_where_nothing_reaches_its_bound(high: str, seen: float | None, fires: bool) -> None:
    text = f"{{ h = Conv(x, w, b) m = Clip(h, zero, {high}) y = Conv(m, v) }}"
    m = g.graph(IMAGE + text, CONSTANTS)
    h = m.graph.node(0).outputs[0]
    if seen is not None:
        set_range(h, -3.0, seen)
    small = {"x": X / 1e3}
    expected = outputs(m, small)[1]
    assert not Equalize()(m.clone()).modified
    assert Equalize(clip="if-inactive")(m).modified == fires
    assert g.operators(m)[1] == ("Relu" if fires else "Clip")
    if fires:
        assert get_range(h) is None  # it has changed with the scale
        scale = float(np.abs(expected).max())
        np.testing.assert_allclose(outputs(m, small)[1], expected, rtol=1e-5, atol=2e-6 * scale)
        assert outputs(m, small)[1].shape == expected.shape
        assert "six" not in m.graph.initializers


def test_wrong_options() -> None:
    with pytest.raises(UsageError, match="by is 'x'"):
        Equalize(by="x")
    with pytest.raises(UsageError, match="clip is 'x'"):
        Equalize(clip="x")
    with pytest.raises(DataError, match="needs samples"):
        Equalize(by="ranges")(model("relu")[0])
