"""smooth: the same function, less rounding error in every region, and what is left alone says why."""

from __future__ import annotations

import re

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import qdq_graphs as g
from float_graphs import by_ort

from mulshift.ir import Array, DataError, Interpreter, UsageError, get_range, set_range
from mulshift.ir.float_functions import domain_of
from mulshift.ir.text import show
from mulshift.passes import PASSES
from mulshift.passes.channel_flow import reshaped_tag
from mulshift.passes.smooth import Smooth
from mulshift.passes.smooth_measure import ROWS, Measure, Seen, choose
from mulshift.passes.smooth_regions import Operand

C, HEADS, DIM = 16, 4, 4


def outliers(*shape: int, axis: int = -1, seed: int = 0, size: float = 40.0) -> Array:
    """Noise with two large slices along an axis."""
    array = g.normal(*shape, seed=seed)
    np.moveaxis(array, axis, 0)[[2, 9]] *= size
    return array


X = g.normal(2, 24, C, seed=1)
SAMPLES = [{"x": g.normal(2, 24, C, seed=10 + i)} for i in range(3)]
W, V, U = g.normal(C, C, seed=2), g.normal(C, C, seed=3), g.normal(C, C, seed=4)
CONSTANTS = {
    "w": W, "v": V, "u": U, "big": outliers(C, C, seed=5), "b": g.normal(C, seed=6),
    "few": outliers(C, C, seed=7)[:, :8],
    "scale": outliers(C, seed=8), "o": outliers(C, seed=9), "tiny": np.float32(0.01),
    "cut": np.asarray([0, 0, HEADS, DIM]), "cut2": np.asarray([0, 0, 2, DIM]), "join": np.asarray([0, 0, C]),
    "one": np.asarray([2]), "wide": np.asarray([2, 2, 2, 24, DIM]), "flat": np.asarray([2, HEADS, 24, DIM]),
    "cos": g.normal(24, DIM, seed=30), "sin": g.normal(24, DIM, seed=31),
    "p0": np.asarray([0]), "p2": np.asarray([2]), "p4": np.asarray([4]), "last": np.asarray([-1]),
}  # fmt: skip
SPLIT = "{0}r = Reshape({0}, cut) {0}h = Transpose<perm=[0,2,1,3]>({0}r) "
SHARED = (
    "{0}r = Reshape({0}, cut2) {0}t = Transpose<perm=[0,2,1,3]>({0}r) {0}u = Unsqueeze({0}t, one) "
    "{0}e = Expand({0}u, wide) {0}h = Reshape({0}e, flat) "
)
ATTEND = (
    "keys = Transpose<perm=[0,1,3,2]>(kh) a0 = MatMul(qh, keys) a = Mul(a0, tiny) p = Softmax(a) m = MatMul(p, vh) "
    "mt = Transpose<perm=[0,2,1,3]>(m) mj = Reshape(mt, join) y = MatMul(mj, w)"
)
TURN = (
    "{0}c = Mul({0}, cos) {0}s1 = Slice({0}, p0, p2, last) {0}s2 = Slice({0}, p2, p4, last) {0}n = Neg({0}s2) "
    "{0}j = Concat<axis=-1>({0}n, {0}s1) {0}s = Mul({0}j, sin) {1} = Add({0}c, {0}s) "
)
PROJECT = "q = MatMul(x, u) k = MatMul(x, w) v0 = MatMul(x, big) vv = Add(v0, b) "
FIRE = {
    "norm": ("n = LayerNormalization(x, scale, o) q = MatMul(n, w) k = MatMul(n, v) y = Concat<axis=-1>(q, k)", "norm"),
    "norm without bias": ("n = LayerNormalization(x, scale) y = MatMul(n, w)", "norm"),
    "one token": ("n = LayerNormalization(x, scale, o) t = Gather<axis=1>(n, p0) y = MatMul(t, w)", "norm"),
    "linear": ("h = MatMul(x, big) hb = Add(b, h) r = Relu(hb) y = MatMul(r, w)", "linear"),
    "gated": ("a = MatMul(x, u) s = Sigmoid(a) h = MatMul(x, big) m = Mul(s, h) y = MatMul(m, w)", "gated"),
    "values": (
        PROJECT + SPLIT.format("q") + SPLIT.format("k") + SPLIT.format("vv").replace("vvh", "vh") + ATTEND, "values",
    ),
    "shared heads": (
        "q = MatMul(x, u) k = MatMul(x, few) vv = MatMul(x, few) "
        + SPLIT.format("q") + SHARED.format("k") + SHARED.format("vv").replace("vvh", "vh") + ATTEND, "values",
    ),
    "scores": (
        "q = MatMul(x, big) k = MatMul(x, w) a0 = Add(k, b) kk = Identity(a0) " + SPLIT.format("q")
        + SPLIT.format("kk").replace("kkh", "kh") + "keys = Transpose<perm=[0,1,3,2]>(kh) y = MatMul(qh, keys)",
        "scores",
    ),
    "rotary": (
        "q = MatMul(x, big) k = MatMul(x, w) " + SPLIT.format("q") + SPLIT.format("k") + TURN.format("qh", "qq")
        + TURN.format("kh", "kk") + "keys = Transpose<perm=[0,1,3,2]>(kk) y = MatMul(qq, keys)", "scores",
    ),
    "rotary, shared keys": (
        "q = MatMul(x, big) k = MatMul(x, few) " + SPLIT.format("q") + SHARED.format("k") + TURN.format("qh", "qq")
        + TURN.format("kh", "kk") + "keys = Transpose<perm=[0,1,3,2]>(kk) y = MatMul(qq, keys)", "scores",
    ),
}  # fmt: skip


def model(text: str, outputs: str = "float y") -> ir.Model:
    return g.graph(f"(float[2,24,{C}] x) => ({outputs}) {{ {text} }}", CONSTANTS)


def same(m: ir.Model, expected: Array) -> None:
    for found in (Interpreter(m).run({"x": X})["y"].numpy(), by_ort(m, {"x": X})[0]):
        # scaled weights are rounded to float32 once more, sums of channels of very different size are reordered
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * float(np.abs(expected).max()))


def decibels(made: Smooth, kind: str) -> list[tuple[float, float]]:
    """(before, after) of each region of a kind that was scaled."""
    notes = [re.search(rf"^{kind}: .*, (\S+) to (\S+) dB", n.what) for n in made.log.changed]
    return [(float(n[1]), float(n[2])) for n in notes if n is not None]


@pytest.mark.parametrize("name", FIRE)
def test_same_function_less_error_and_second_run_changes_nothing(name: str) -> None:
    text, kind = FIRE[name]
    m = model(text)
    expected = by_ort(m, {"x": X})[0]
    made = Smooth(samples=SAMPLES)
    assert made(m).modified
    found = decibels(made, kind)
    assert found, made.log
    assert all(after > before for before, after in found)
    same(m, expected)
    once = show(m)
    again = Smooth(samples=SAMPLES)
    assert not again(m).modified, again.log.changed
    assert show(m) == once


def test_a_planted_outlier_gains_clearly() -> None:
    """Two channels of 16, 40 times the rest: 8 bits a tensor leave the others 1.6 of them."""
    made = Smooth(samples=SAMPLES)
    made(model(FIRE["norm"][0]))
    ((before, after),) = decibels(made, "norm")
    assert after - before >= 6, (before, after)


def test_formula() -> None:
    """One strength: s_j = max|x_j|^alpha / max|W_j|^(1 - alpha) up to a common factor, exactly as the paper has it."""
    m = model("n = LayerNormalization(x, scale, o) y = MatMul(n, w)")
    x = np.abs(np.concatenate([g.ort_values(m, s)["n"].reshape(-1, C) for s in SAMPLES])).max(axis=0).astype(np.float64)
    Smooth(samples=SAMPLES, alphas=[0.5])(m)
    s = np.sqrt(x / np.abs(W).max(axis=1))
    found = {k: v.const_value.numpy() for k, v in m.graph.initializers.items() if v.const_value is not None}
    ratio = found["w"] / W / s[:, None]
    np.testing.assert_allclose(ratio, ratio[0, 0], rtol=1e-5)  # float32
    np.testing.assert_allclose(found["scale"] * found["w"][:, 0], CONSTANTS["scale"] * W[:, 0], rtol=1e-5)
    np.testing.assert_allclose(found["o"] * found["w"][:, 0], CONSTANTS["o"] * W[:, 0], rtol=1e-5)


NEAR = {
    "nonlinearity": ("h = MatMul(x, big) m = Tanh(h) y = MatMul(m, w) z = Abs(x)", "(Tanh)"),
    "gate": ("h = MatMul(x, big) s = Sigmoid(h) m = Mul(s, x) y = MatMul(m, w) z = Abs(x)", "(Sigmoid)"),
    "graph output": ("z = MatMul(x, big) y = MatMul(z, w)", "'z' is a graph output"),
    "square": ("h = MatMul(x, big) m = Mul(h, h) y = MatMul(m, w) z = Abs(x)", "is not linear in it"),
    "keys alone": (
        "q = Sigmoid(x) k = MatMul(x, big) kt = Transpose<perm=[0,2,1]>(k) y = MatMul(q, kt) z = Abs(x)",
        "cannot take the scales back",
    ),
}  # fmt: skip


READ_BY_OTHERS = {
    "post-norm residual": "n = LayerNormalization(x, scale, o) h = MatMul(n, w) y = Add(h, n) z = Abs(x)",
    "other reader": "n = LayerNormalization(x, scale, o) y = MatMul(n, w) z = Sigmoid(n)",
    "graph output": "z = LayerNormalization(x, scale, o) y = MatMul(z, w)",
}


@pytest.mark.parametrize("name", READ_BY_OTHERS)
def test_a_norm_that_others_read_too_gets_a_product_before_its_linear_readers(name: str) -> None:
    m = model(READ_BY_OTHERS[name], "float y, float z")
    expected = Interpreter(m).run(SAMPLES[0])
    made = Smooth(samples=SAMPLES)
    assert made(m).modified
    assert [n.op_type for n in m.graph].count("Mul") == 1
    assert all(after > before for before, after in decibels(made, "scale"))
    for key, tensor in Interpreter(m).run(SAMPLES[0]).items():
        largest = float(expected[key].abs().max())
        assert float((tensor - expected[key]).abs().max()) < 1e-5 * largest  # float32 sums of 16 products
    once = show(m)
    Smooth(samples=SAMPLES)(m)
    assert [n.op_type for n in m.graph].count("Mul") == 1, once


def test_a_product_by_ones_does_not_stay() -> None:
    """Channels of one size, in the activation and in the weights: no strength helps."""
    text = "n = LayerNormalization(x, ones) y = MatMul(n, eye) z = Sigmoid(n)"
    constants = {"ones": np.ones(C, np.float32), "eye": np.eye(C, dtype=np.float32)}
    m = g.graph(f"(float[2,24,{C}] x) => (float y, float z) {{ {text} }}", constants)
    x = np.where(np.arange(C) % 2, 1.0, -1.0) * np.where(np.arange(48) % 2, 1.0, -1.0)[:, None]
    before = show(m)
    assert not Smooth(samples=[{"x": x.reshape(2, 24, C).astype(np.float32)}])(m).modified
    assert show(m) == before


@pytest.mark.parametrize("name", NEAR)
def test_near_misses_are_left_alone_with_a_reason(name: str) -> None:
    text, reason = NEAR[name]
    m = model(text, "float y, float z")
    before, made = show(m), Smooth(samples=SAMPLES)
    assert not made(m).modified
    assert show(m) == before
    assert any(reason in note.what for note in made.log.skipped), made.log.skipped


@pytest.mark.parametrize(("gain", "fires"), [(0.0, False), (0.01, False), (0.05, True)])
def test_a_strength_must_be_clearly_better(gain: float, fires: bool) -> None:
    x = np.asarray([1.0, 2.0, 0.0])
    chosen = choose(Measure(lambda s: 1.0 if (s == 1).all() else 1.0 - gain, x, np.ones(3)), [0.5])
    assert chosen.strengths == ((0.5,) if fires else ())
    np.testing.assert_allclose(chosen.s, [2**-0.25, 2**0.25, 1.0] if fires else 1.0)  # a channel without range stays


def test_others_keep_shared_weights_and_ranges_of_what_is_scaled_are_dropped() -> None:
    text = "n = LayerNormalization(x, scale, o) h = MatMul(n, w) i = MatMul(x, w) j = Mul(x, scale) y = Sum(h, i, j)"
    m = model(text)
    expected = by_ort(m, {"x": X})[0]
    for node in m.graph:
        set_range(node.outputs[0], -1.0, 1.0)
    assert Smooth(samples=SAMPLES)(m).modified
    same(m, expected)
    kept = [m.graph.initializers[k].const_value for k in ("w", "scale")]
    assert all(
        np.array_equal(k.numpy(), CONSTANTS[n]) for k, n in zip(kept, ("w", "scale"), strict=True) if k is not None
    )
    assert {str(v.name) for n in m.graph for v in n.outputs if get_range(v) is None} == {"n"}


def test_golden() -> None:
    m = model("n = LayerNormalization(x, scale, o) h = MatMul(n, w) i = MatMul(x, w) y = Add(h, i)")
    made = Smooth(samples=SAMPLES)
    made(m)
    assert [(n.op_type, [v.name for v in n.inputs if v is not None]) for n in m.graph] == [
        ("LayerNormalization", ["x", "scale", "o"]),
        ("MatMul", ["n", "w_1"]),
        ("MatMul", ["x", "w"]),
        ("Add", ["h", "i"]),
    ]
    (note,) = made.log.changed
    assert re.fullmatch(
        r"norm: alpha \S+, \S+ to \S+ dB, 16 scales from \S+ to \S+, undone in 'MatMul_1'", note.what
    ), note.what


def fused() -> ir.Model:
    """Attention and rotary embedding as one node each, as fuse leaves them."""
    text = f"""<ir_version: 10, opset_import: ["" : 21, "mulshift.float" : 1]>
    g (float[2,24,{C}] x) => (float[2,24,{C}] y) {{
      q = MatMul(x, big) k = MatMul(x, w) v0 = MatMul(x, big2)
      qr = Reshape(q, cut) kr = Reshape(k, cut) vr = Reshape(v0, cut)
      qt = mulshift.float.RotaryEmbedding(qr, c3, s3) kt = mulshift.float.RotaryEmbedding(kr, c3, s3)
      m = mulshift.float.Attention(qt, kt, vr)
      mj = Reshape(m, join) y = MatMul(mj, u)
    }}"""
    proto = onnx.parser.parse_model(text)
    more = {
        "big": CONSTANTS["big"] / 100,
        "big2": CONSTANTS["big"],
        "c3": CONSTANTS["cos"][:, None, : DIM // 2],
        "s3": CONSTANTS["sin"][:, None, : DIM // 2],
    }
    for name, array in {**CONSTANTS, **more}.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    m = ir.from_proto(proto)
    for name in ("Attention", "RotaryEmbedding"):
        domain_of(m, name)
    shapes = {key: [2, 24, HEADS, DIM] for key in ("qr", "kr", "vr", "qt", "kt", "m")}
    for i, node in enumerate(m.graph):
        node.name = f"{node.op_type}_{i}"
        out = node.outputs[0]
        out.shape, out.dtype = ir.Shape(shapes.get(str(out.name), [2, 24, C])), ir.DataType.FLOAT
    return m


def test_fused_attention_and_rotary() -> None:
    m = fused()
    expected = by_ort(m, {"x": X})[0]
    made = Smooth(samples=SAMPLES)
    assert made(m).modified
    assert decibels(made, "values") and decibels(made, "scores"), made.log
    same(m, expected)
    assert not Smooth(samples=SAMPLES)(m).modified


def test_options_and_data() -> None:
    assert PASSES["smooth"] is Smooth
    with pytest.raises(UsageError, match="alphas"):
        Smooth(alphas=[2.0])
    with pytest.raises(UsageError, match="count"):
        Smooth(count=0)
    with pytest.raises(DataError, match="needs samples"):
        Smooth()(model(FIRE["norm"][0]))


def test_progress_ends_at_its_total() -> None:
    told: list[tuple[int, int | None]] = []
    Smooth(samples=SAMPLES, progress=lambda done, total: told.append((done, total)))(model(FIRE["norm"][0]))
    assert told == [(i, 4) for i in range(1, 5)]


def test_rows_are_bounded_even_and_hold_the_extremes() -> None:
    import torch

    value = ir.Value(name="v")
    seen = Seen(Operand(value, (2,), np.arange(2)))
    tensors = torch.arange(40_000, dtype=torch.float32).reshape(10, 1, 2000, 2)
    for t in tensors:
        seen.update(t)
    rows = seen.rows
    assert ROWS / 2 <= len(rows) <= ROWS + 2
    assert (rows.min(), rows.max()) == (0, 39_999)
    assert np.diff(np.sort(rows[:-2, 0])).max() < 4 * 40_000 / len(rows)
    assert seen.largest().tolist() == [39_998, 39_999]


@pytest.mark.parametrize(
    ("source", "target", "found"),
    [
        ((1, "s", 6), (1, "s", 2, 3), True),
        ((1, 3, "s", 2), (1, 3, 1, "s", 2), True),
        (("b", "s", 6), ("b", None, 2, 3), False),
        ((2, "s", 3), ("s", 6), False),
    ],
)
def test_shapes_known_well_enough(
    source: tuple[int | str, ...], target: tuple[int | str | None, ...], found: bool
) -> None:
    tag = np.arange(int(source[-1])).reshape((1,) * (len(source) - 1) + (-1,))
    moved = reshaped_tag(tag, source, target)
    assert (moved is not None) == found
    assert moved is None or np.unique(moved).size == tag.size
