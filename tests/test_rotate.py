"""rotate: streams, heads and online transforms; what each operator passes; what is left alone, with its reason."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from float_graphs import apply, ops, reasons
from rotation_graphs import (
    BLOCKS,
    HEAD,
    WIDTH,
    error,
    feeds,
    model,
    normal,
    rms_block,
)

from mulshift.ir import Array, DataError, UsageError, constant, get_range, set_range
from mulshift.ir.text import show
from mulshift.passes.hadamard import hadamard, orthogonal
from mulshift.passes.rotate import Rotate
from mulshift.passes.rotation.weights import turned


def numbers(built: ir.Model) -> dict[str, Array]:
    """The initializers."""
    return {name: value.const_value.numpy() for name, value in built.graph.initializers.items() if value.const_value}


@pytest.mark.parametrize("options", [{}, {"online": True}, {"method": "random", "seed": 3}])
@pytest.mark.parametrize("name", BLOCKS)
def test_blocks_of_transformers(name: str, options: dict[str, Any]) -> None:
    """The stream and the heads are rotated; float64 shows that it is the same function, not nearly the same."""
    make, more = BLOCKS[name]
    wide = make(np.float64, **more)
    step = Rotate(**options)
    assert error(wide, step, feeds(wide, kind=np.float64)) < 1e-13  # float64 has 1e-16, sums of 48 and three layers
    assert [str(WIDTH) in n.what for n in step.log.changed[:2]] == [True, False]
    assert f"{HEAD} channels up to" in step.log.changed[1].what
    assert len(step.log.changed) == (3 if step.online else 2)
    narrow = make(**more)
    apply(Rotate(**options), narrow, feeds(narrow), tolerance=2e-6)  # float32 has 6e-8
    norms = [n for n in narrow.graph if n.op_type == "RMSNormalization"]
    assert len(norms) == 3 and "LayerNormalization" not in ops(narrow)
    assert all((constant(n.inputs[1]) == 1).all() for n in norms)  # type: ignore[union-attr]


def test_before_opset_23_the_norm_is_a_function() -> None:
    built = model(
        "g (float[2,8] x) => (float[2,3] y) { h = MatMul (x, a) n = LayerNormalization (h, g, b) y = MatMul (n, c) }",
        {"a": normal(8, 12), "c": normal(12, 3), "g": normal(12, seed=1), "b": normal(12, seed=2)},
        opset=21,
    )
    apply(Rotate(), built, {"x": normal(2, 8, seed=5)})
    assert [(n.domain, n.op_type) for n in built.graph][1] == ("mulshift.float", "RMSNormalization")
    assert ops(built) == ["MatMul", "RMSNormalization", "MatMul", "Add"]  # beta W is the bias


def test_formula() -> None:
    """`W_out P Q`, `Q^T diag(gamma) W_in`, `beta W_in`, as the papers have it."""
    a, c, g, b = normal(8, 12), normal(12, 3, seed=1), normal(12, seed=2), normal(12, seed=3)
    text = "g (float[2,8] x) => (float[2,3] y) { h = MatMul (x, a) n = LayerNormalization (h, g, b) y = MatMul (n, c) }"
    built = model(text, {"a": a, "c": c, "g": g, "b": b})
    Rotate(method="random", seed=4)(built)
    q, p = orthogonal(12, 4), np.eye(12) - 1 / 12
    found = numbers(built)
    for name, expected in (("a", a @ p @ q), ("c", q.T @ np.diag(g) @ c), ("c.bias", b @ c)):
        np.testing.assert_allclose(found[name], expected, rtol=1e-5, atol=1e-6)  # float32


CHAINS = {
    "MatMul": "r = MatMul (n, c)",
    "MatMul and Add": "r0 = MatMul (n, c) r = Add (r0, e)",
    "Gemm": "r = Gemm (n, c)",
    "Gemm with one number": "r = Gemm (n, c, one)",
}


@pytest.mark.parametrize("body", CHAINS.values(), ids=CHAINS)
def test_a_bias_that_one_region_gives_is_rotated_by_the_next(body: str) -> None:
    """beta W becomes the bias of c, whose output is rotated too."""
    text = f"""g (float[2,8] x) => (float[2,3] y) {{
        h = MatMul (x, a) n = LayerNormalization (h, g, b) {body} y = MatMul (r, d) }}"""
    weights = {"a": normal(8, 12), "c": normal(12, 4), "d": normal(4, 3), "g": normal(12), "b": normal(12, seed=1)}
    built = model(text, weights | {"e": normal(4, seed=2), "one": np.float32(2)})
    step = apply(Rotate(), built, {"x": normal(2, 8, seed=5)}, tolerance=4e-6)
    assert len(step.log.changed) == 2


PASSES_ON = {
    "add": "h = Add (p, q)",
    "difference": "h = Sub (p, q)",
    "constant": "h = Add (p, many)",
    "one number": "h = Add (p, one)",
    "constant first": "h = Sub (many, p)",
    "identity": "i = Identity (p) h = Neg (i)",
    "shapes": "i = Unsqueeze (p, two) j = Squeeze (i, two) k = Reshape (j, flat) h = Reshape (k, back)",
    "transpose": "i = Transpose <perm = [2, 0, 1]> (p) j = Transpose <perm = [1, 2, 0]> (i) h = Add (j, q)",
    "cut and joined": "i = Slice (p, one1, two, one1) j = Gather <axis = 1> (p, index) h = Concat <axis = 1> (i, j)",
    "expand": "i = Expand (p, wide) h = Reshape (i, merge)",
    "scale": "i = Mul (p, one) j = Mul (mask, i) h = Div (j, mask)",
    "choice": "m = Cast <to = 9> (mask) h = Where (m, p, many)",
    "mean": "i = ReduceMean <keepdims = 0> (p, axis1) k = Unsqueeze (i, axis1) h = Add (k, p)",
    "mix of tokens": "h = MatMul (mix, p)",
    "shape is read": "s = Shape (p) h = Reshape (p, s)",
    "norm": "h = RMSNormalization (p, gain)",
    "norm without gain": "i = RMSNormalization (p, even) h = Add (i, q)",
    "norm twice": "i = RMSNormalization (p, even) h = RMSNormalization (i, gain)",
    "norm and slice": "i = RMSNormalization (p, gain) j = Mul (i, mask) h = Gather <axis = 1> (j, index)",
    "layer norm": "i = LayerNormalization (p, gain, shift) h = Gather <axis = 1> (i, index)",
    "layer norm, mean": "i = LayerNormalization (p, gain, shift) h = ReduceMean <keepdims = 1> (i, axis1)",
    "embedding": "e = Gather (table, ids) h = Add (e, p)",
}
CONSTANTS: dict[str, Any] = {
    "a": normal(8, 12), "b": normal(8, 12, seed=1), "c": normal(12, 7, seed=2), "many": normal(5, 12, seed=3),
    "one": np.float32(0.7), "two": np.array([2]), "flat": np.array([-1, 12]), "back": np.array([2, 5, 12]),
    "one1": np.array([1]), "index": np.array([3, 0]), "wide": np.array([3, 2, 5, 12]),
    "merge": np.array([6, 5, 12]), "axis1": np.array([1]), "mix": normal(4, 5, seed=4), "gain": normal(12, seed=5) + 1,
    "even": np.full(12, 1.5, np.float32), "shift": normal(12, seed=6), "table": normal(9, 12, seed=7),
    "even.bias": np.zeros(12, np.float32), "ramp": normal(12, seed=8),
}  # fmt: skip
PAIR = "g (float[2,5,8] x, float[2,5,1] mask, int64[2,5] ids) => (float[A,B,7] y"
FED: dict[str, Array] = {
    "x": normal(2, 5, 8, seed=20), "mask": np.array([1, 0.5, 1, 2, 1] * 2, np.float32).reshape(2, 5, 1),
    "ids": np.arange(10).reshape(2, 5) % 9,
}  # fmt: skip


def between(body: str, more: str = "") -> ir.Model:
    """`p = x a`, `q = x b`, the body, `y = h c`."""
    return model(f"{PAIR}{more}) {{ p = MatMul (x, a) q = MatMul (x, b) {body} y = MatMul (h, c) }}", CONSTANTS)


@pytest.mark.parametrize("name", PASSES_ON)
def test_operators_that_pass_a_rotation_on(name: str) -> None:
    built = between(PASSES_ON[name])
    dead = [n for n in built.graph if n.op_type == "MatMul" and not n.outputs[0].uses() and n.outputs[0].name != "y"]
    built.graph.remove(dead, safe=True)
    step = apply(Rotate(), built, FED, tolerance=4e-6)
    assert [n.what.split(" rotated")[0] for n in step.log.changed] == ["12 channels up to 'y.node'"]


IMAGES = {
    "one by one": "h = Conv (x, w, s) y = Conv (h, v, t)",
    "bottlenecks": "p = Conv (x, w, s) r = Relu (x) q = Conv (r, u) h = Add (p, q) y = Conv <pads = [1,1,1,1]> (h, k)",
    "transposed": "h = ConvTranspose <strides = [2,2]> (x, d) y = ConvTranspose (h, f)",
    "head": "p = Conv (x, w, s) i = GlobalAveragePool (p) h = Flatten (i) y = Gemm <transB = 1, alpha = 0.5> (h, m, n)",
    "gemm": "i = Flatten (x) h = Gemm <beta = 0.5> (i, z, e) y = Gemm <transB = 1> (h, m, n)",
}
IMAGE_WEIGHTS: dict[str, Any] = {
    "w": normal(12, 4, 1, 1), "s": normal(12, seed=1), "v": normal(5, 12, 1, 1, seed=2), "t": normal(5, seed=3),
    "u": normal(12, 4, 1, 1, seed=4), "k": normal(5, 12, 3, 3, seed=5), "d": normal(4, 12, 2, 2, seed=6),
    "f": normal(12, 5, 3, 3, seed=7), "m": normal(5, 12, seed=8), "n": normal(5, seed=9),
    "z": normal(4 * 36, 12, seed=11), "e": np.float32(0.5),
}  # fmt: skip


@pytest.mark.parametrize("name", IMAGES)
def test_linear_operators_of_images(name: str) -> None:
    built = model(f"g (float[2,4,6,6] x) => (float y) {{ {IMAGES[name]} }}", IMAGE_WEIGHTS)
    step = apply(Rotate(), built, {"x": normal(2, 4, 6, 6, seed=30)}, tolerance=4e-6)
    assert "12 channels" in step.log.changed[0].what


LEFT = {
    "nonlinearity on the stream": ("i = Add (p, q) h = Relu (i)", "'h.node' (Relu)"),
    "graph output": ("z = Add (p, q) h = RMSNormalization (z, gain)", "'z' is a graph output"),
    "graph input": ("i = Add (p, w) h = Add (i, q)", "'w' is a graph input"),
    "scale by channel": ("i = Mul (p, ramp) h = Add (i, q)", "'i.node' (Mul) scales channel by channel"),
    "product": ("i = Mul (p, q) h = Add (i, q)", "'i.node' (Mul) scales channel by channel"),
    "choice by channel": ("m = Greater (p, q) i = Where (m, p, q) h = Add (i, q)", "'m.node' (Greater)"),
    "norm behind the sum": ("i = RMSNormalization (p, gain) h = Add (i, q)", "'i.node' scales channels differently"),
    "bias behind the sum": ("i = LayerNormalization (p, even, shift) h = Add (i, q)", "'i.node' adds a bias"),
    "mean is read": ("i = LayerNormalization (p, gain) j = Add (p, q) h = Concat <axis = 1> (i, j)", "'i.node' scales"),
    "mean is read by weights": ("h = LayerNormalization (p, gain) z = MatMul (p, c)", "'z.node' reads the mean"),
    "mean is read by RMS": (
        "h = LayerNormalization (p, gain) j = RMSNormalization (p, gain) z = MatMul (j, c)",
        "'j.node' reads the mean",
    ),
    "bias meets a mask": (
        "i = LayerNormalization (p, gain, shift) h = Mul (i, mask)",
        "the bias of 'i.node' does not pass 'h.node' (Mul)",
    ),
    "computed gain": ("g = Mul (w1, one) h = RMSNormalization (p, g)", "has a scale that is not constant"),
    "split channels": (
        "i = Reshape (p, halves) k = Transpose <perm = [0, 1, 3, 2]> (i) l = Reshape (k, back) h = Add (l, q)",
        "'l.node' (Reshape) does not keep the channels together",
    ),
    "cut channels": (
        "i = Slice (p, start, six, minus) j = Concat <axis = -1> (i, i) r = Add (p, q) h = Add (r, j)",
        "'i.node' (Slice) does not keep the channels together",
    ),
    "another reading of the elements": (
        "i = Reshape (p, swapped) k = Transpose <perm = [0, 2, 1]> (i) h = Add (k, q)",
        "'i.node' (Reshape) does not keep the channels together",
    ),
    "one number for all channels": ("i = Add (p, mask) h = Add (i, q)", "'i.node' (Add) adds one number to all"),
    "maximum": ("i = Add (p, q) h = ReduceMax (i, axis1)", "'h.node' (ReduceMax)"),
    "mean of channels": ("i = Add (p, q) s = ReduceMean (i, minus) h = Add (i, s)", "'s.node' (ReduceMean) does not"),
    "scores": (
        "i = Add (p, q) t = Transpose <perm = [0, 2, 1]> (i) s = MatMul (i, t) z = Softmax (s) h = Add (i, p)",
        "'s.node' (MatMul) multiplies it with an activation",
    ),
    "infinite constant": ("m = Cast <to = 9> (mask) i = Where (m, p, inf) h = Add (i, q)", "is not finite"),
}
MORE = {
    "start": np.array([0]), "six": np.array([6]), "halves": np.array([2, 5, 2, 6]), "minus": np.array([-1]),
    "inf": np.float32(-np.inf), "swapped": np.array([2, 12, 5]),
}  # fmt: skip


@pytest.mark.parametrize("name", LEFT)
def test_what_is_left_alone_with_a_reason(name: str) -> None:
    body, reason = LEFT[name]
    inputs = "float[2,5,8] x, float[2,5,1] mask, float[2,5,12] w, float[12] w1"
    output = ", float z" if "z = " in body else ""
    text = f"g ({inputs}) => (float y{output}) {{ p = MatMul (x, a) q = MatMul (x, b) {body} y = MatMul (h, c) }}"
    built = model(text, CONSTANTS | MORE)
    before, step = show(built), Rotate()
    assert not step(built).modified, step.log.changed
    assert show(built) == before
    assert reason in reasons(step)


def test_shared_weights_are_kept_for_others() -> None:
    text = """g (float[2,12] x) => (float[2,7] y, float[2,12] z) {
        p = MatMul (x, a) n = RMSNormalization (p, g) y = MatMul (n, c) e = MatMul (x, a) u = RMSNormalization (e, g)
        z = Mul (u, x) }"""
    a = normal(12, 12)
    built = model(text, {"a": a, "g": normal(12, seed=1), "c": normal(12, 7, seed=2)})
    apply(Rotate(), built, {"x": normal(2, 12, seed=3)}, tolerance=4e-6)
    assert np.array_equal(numbers(built)["a"], a)
    assert {"a", "a_1", "g", "g_1", "c"} == set(built.graph.initializers)


def test_weights_that_were_shared_alike_stay_shared() -> None:
    text = """g (float[2,12] x) => (float[2,7] y) {
        p = MatMul (x, a) r = Relu (x) q = MatMul (r, a) h = Add (p, q) y = MatMul (h, c) }"""
    built = model(text, {"a": normal(12, 12), "c": normal(12, 7, seed=2)})
    apply(Rotate(), built, {"x": normal(2, 12, seed=3)}, tolerance=4e-6)
    assert len(built.graph.initializers) == 2


def test_calibrated_ranges_of_what_is_rotated_are_dropped() -> None:
    built = between("h = Add (p, q)")
    for name in ("p", "h", "y"):
        set_range(next(v for n in built.graph for v in n.outputs if v.name == name), -1.0, 2.0)
    Rotate()(built)
    kept = {v.name for n in built.graph for v in n.outputs if get_range(v) is not None}
    assert kept == {"y"}


GOLDEN = r"""mulshift text 1
model {ir_version=10}
graph "g"(%x: f32[2,8]) -> (%y) {
  opset "" = 21
  opset "mulshift.float" = 1
  %c.bias = f32[4] [0.95787305, 0.54994416, 3.742861, 4.9191556]
  %c = f32[12,4] <sha256:be3e583d1aba>
  %a = f32[8,12] <sha256:89751633fe1a>
  %g = f32[12] <sha256:6ea78411bee8>
  %hadamard.4 = f32[4,4] <sha256:a50992f9be1c>
  %d = f32[4,3] <sha256:9fe2d63affd7>
  %h: f32[2,12] = MatMul(%x, %a) // h.node
    . %h mulshift.rotated = "Hadamard 12"
  %n: f32[2,12] = mulshift.float::RMSNormalization(%h, %g) {epsilon=1e-05} // n.node
    . mulshift.origin = "[\"n.node\"]"
    . %n mulshift.rotated = "Hadamard 12"
  %r.product: f32[2,4] = MatMul(%n, %c) // r.node
  %r: f32[2,4] = Add(%r.product, %c.bias) // r.node.bias
    . mulshift.origin = "[\"r.node\"]"
  %s: f32[2,4] = Relu(%r) // s.node
  %s.hadamard: f32[2,4] = mulshift.float::Hadamard(%s, %hadamard.4) // s.node.hadamard
    . mulshift.origin = "[\"s.node\"]"
    . %s.hadamard mulshift.rotated = "online 4"
  %y: f32[2,3] = MatMul(%s.hadamard, %d) // y.node
}
"""


def test_golden_text() -> None:
    text = """g (float[2,8] x) => (float[2,3] y) {
        h = MatMul (x, a) n = LayerNormalization (h, g, b) r = MatMul (n, c) s = Relu (r) y = MatMul (s, d) }"""
    weights = {"a": normal(8, 12), "c": normal(12, 4), "d": normal(4, 3), "g": normal(12), "b": normal(12, seed=1)}
    built = model(text, weights, opset=21)
    Rotate(online=True)(built)
    assert show(built, elide=True).split("function")[0] == GOLDEN


# Heads and online -------------------------------------------------------------------------------------------------


def test_heads_share_one_rotation() -> None:
    """`W_v blockdiag(Q)` and `blockdiag(Q)^T W_o`, with as many blocks as each has heads."""
    before, built = rms_block(), rms_block()
    Rotate(residual=False, method="random", seed=5)(built)
    q = orthogonal(HEAD, 5)
    old = numbers(before)
    found = numbers(built)
    np.testing.assert_allclose(found["wv"], old["wv"] @ np.kron(np.eye(2), q), atol=1e-6)  # float32
    np.testing.assert_allclose(found["wo"], np.kron(np.eye(4), q.T) @ old["wo"], atol=1e-6)
    assert np.array_equal(found["wq"], old["wq"])


def test_heads_without_a_projection_behind_get_an_online_transform() -> None:
    text = """g (float[2,5,8] x) => (float[2,5,7] y) {
        q = MatMul (x, a) k = MatMul (x, b) v0 = MatMul (x, e) v = Tanh (v0)
        t = Transpose <perm = [0, 2, 1]> (k) s = MatMul (q, t) p = Softmax (s) h = MatMul (p, v) y = MatMul (h, c) }"""
    built = model(text, CONSTANTS | {"e": normal(8, 12, seed=9)})
    step = apply(Rotate(online=True), built, {"x": normal(2, 5, 8, seed=3)}, tolerance=4e-6)
    assert ops(built)[-3:] == ["MatMul", "Hadamard", "MatMul"]
    assert "'v.node' (Tanh)" in reasons(step)


@pytest.mark.parametrize(("block", "order"), [(512, 40), (20, 20), (8, 8), (4, 4)])
def test_online_in_groups(block: int, order: int) -> None:
    """`x W = (x H) (H^T W)`, H of each group."""
    before, built = rms_block(), rms_block()
    apply(Rotate(residual=False, heads=False, online=True, block=block), built, feeds(built), tolerance=2e-6)
    h = hadamard(order)
    assert h is not None
    found, expected = numbers(built), np.kron(np.eye(40 // order), h).T @ numbers(before)["w3"]
    np.testing.assert_allclose(found["w3"], expected, atol=1e-6)  # float32
    np.testing.assert_allclose(found[f"hadamard.{order}"], h, atol=1e-7)


def test_online_is_shared_by_all_that_read_the_activation() -> None:
    text = "g (float[2,12] x) => (float[2,7] y, float[2,7] z) { r = Gelu (x) y = MatMul (r, c) z = MatMul (r, d) }"
    built = model(text, CONSTANTS | {"d": normal(12, 7, seed=9)})
    apply(Rotate(online=True), built, {"x": normal(2, 12, seed=3)}, tolerance=4e-6)
    assert ops(built) == ["Gelu", "Hadamard", "MatMul", "MatMul"]


@pytest.mark.parametrize("body", ["y = MatMul (x, c)", "r = Relu (x) s = Softmax (r) y = MatMul (s, c)"])
def test_online_only_behind_a_nonlinearity(body: str) -> None:
    built = model(f"g (float[2,12] x) => (float[2,7] y) {{ {body} }}", CONSTANTS)
    assert not Rotate(online=True)(built).modified


def test_online_without_a_matrix() -> None:
    built = model("g (float[2,7] x) => (float[2,3] y) { r = Relu (x) y = MatMul (r, c) }", {"c": normal(7, 3)})
    step = apply(Rotate(online=True), built, {"x": normal(2, 7, seed=3)})
    assert "no Hadamard matrix has an order that divides 7" in reasons(step)


# Options ----------------------------------------------------------------------------------------------------------


def test_parts_can_be_left_out() -> None:
    for residual, heads in ((True, False), (False, True), (False, False)):
        built = rms_block()
        assert Rotate(residual=residual, heads=heads)(built).modified == (residual or heads)


def test_second_run_says_why() -> None:
    built = rms_block()
    Rotate(online=True)(built)
    again = Rotate(online=True)
    assert not again(built).modified
    assert [n.what for n in again.log.skipped] == [
        "already rotated: Hadamard 48 = 4 x 12",
        "already rotated: Hadamard 8",
    ]


def test_wrong_options() -> None:
    with pytest.raises(UsageError, match="method is 'x'"):
        Rotate(method="x")
    with pytest.raises(UsageError, match="bits and weight_bits"):
        Rotate(bits=1)
    with pytest.raises(DataError, match="needs samples"):
        Rotate(method="adaptive")(rms_block())


def test_turned_keeps_the_type_and_the_axis() -> None:
    q = orthogonal(4, 0)
    w = normal(3, 8, 2)
    made = turned(w, 1, q)
    assert made.dtype == w.dtype and made.shape == w.shape
    np.testing.assert_allclose(made, np.einsum("aic,ij->ajc", w, np.kron(np.eye(2), q)), atol=1e-6)  # float32
