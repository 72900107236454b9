"""Rotary embeddings as exporters write them: tables of positions, one node, and integers from end to end."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from float_graphs import apply, by_ort, graph, ops, random, reasons

from mulshift.ir import Array, Interpreter, levels, origin
from mulshift.ir.levels import float_nodes
from mulshift.passes.calibrate import Calibrate
from mulshift.passes.canonicalize import Canonicalize
from mulshift.passes.fuse import Fuse
from mulshift.passes.insert_fake_quant import InsertFakeQuant
from mulshift.passes.to_integer import ToInteger

HEADS, DIM, WIDTH = 3, 8, 24
X = {"x": random((2, 5, WIDTH), 3, -2, 2)}


def _i(*numbers: int) -> Array:
    return np.asarray(numbers, np.int64)


WEIGHTS: dict[str, Any] = {
    "zero": np.asarray(0), "one": np.asarray(1), "first": _i(0), "last": _i(-1), "second": _i(1), "three": _i(3),
    "start": _i(0), "half": _i(DIM // 2), "end": _i(2**63 - 1), "minus_half": _i(-DIM // 2), "step": _i(1),
    "frequencies": np.float32(100.0 ** (-np.arange(DIM // 2) / (DIM // 2))).reshape(1, 1, DIM // 2),
    "wq": random((WIDTH, WIDTH), 1), "wk": random((WIDTH, WIDTH), 2), "wv": random((WIDTH, WIDTH), 4),
    "scale": np.float32(DIM**-0.25), "heads": _i(0, 0, HEADS, DIM), "flat": _i(0, 0, WIDTH),
    "scaled": np.float32(1.5), "width": _i(DIM // 2, DIM // 2),
}  # fmt: skip

POSITIONS = """
  size = Shape<start=1,end=2>(x) s0 = Squeeze(size) ids = Range(zero, s0, one)
  row = Unsqueeze(ids, first) column = Unsqueeze(row, last) p = Cast<to=1>(column)
  angles = Mul(p, frequencies) both = Concat<axis=-1>(angles, angles)
  c = Cos(both) s = Sin(both) cos = Unsqueeze(c, second) sin = Unsqueeze(s, second)
"""
SLICES = """
  {q}1 = Slice({q}, start, half, three, step) {q}2 = Slice({q}, half, end, three)
  {q}n = Neg({q}2) {q}r = Concat<axis=-1>({q}n, {q}1)
  {q}c = Mul({q}, cos) {q}s = Mul({q}r, sin) {q}t = Add({q}c, {q}s)
"""
SPLIT = """
  {q}1, {q}2 = Split<axis=-1>({q}, width)
  {q}n = Neg({q}2) {q}r = Concat<axis=3>({q}n, {q}1)
  {q}s = Mul(sin, {q}r) {q}c = Mul(cos, {q}) {q}t = Add({q}s, {q}c)
"""
ENDS = SLICES.replace("Slice({q}, half, end, three)", "Slice({q}, minus_half, end, last)")
FORMS = {"slices": SLICES, "split": SPLIT, "from the end": ENDS}


def _heads(q: str) -> str:
    return f" {q}0 = MatMul(x, w{q}) {q}4 = Reshape({q}0, heads) {q} = Transpose<perm=[0,2,1,3]>({q}4)"


def _one(form: str, positions: str = POSITIONS, y: str = "qt") -> str:
    """Of x the queries alone, turned."""
    rest = f" t = Transpose<perm=[0,2,1,3]>({y}) y = Reshape(t, flat)"
    text = positions + _heads("q") + form.replace("{q}", "q") + rest
    return f"g (float[B,S,{WIDTH}] x) => (float[B,S,{WIDTH}] y) {{ {text} }}"


def _model(text: str) -> ir.Model:
    words = set(text.replace("(", " ").replace(",", " ").replace(")", " ").split())
    built = graph(text, {k: v for k, v in WEIGHTS.items() if k in words})
    Canonicalize()(built)
    return built


# It fires ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_it_is_one_node(form: str) -> None:
    """Two tables of half the width, nothing left of the angles; the transposes around it are gone; the numbers hold."""
    built = _model(_one(FORMS[form]))
    names = {n for node in built.graph if node.op_type in ("Add", "Cos", "Sin") for n in origin(node)}
    step = apply(Fuse(), built, X)
    assert (
        ops(built)
        == (
            "Shape Squeeze Range Unsqueeze Unsqueeze Squeeze Squeeze MatMul Reshape Gather Unsqueeze Gather Unsqueeze "
            "RotaryEmbedding Reshape"
        ).split()
    )
    tables = [v.shape for k, v in built.graph.initializers.items() if k.endswith(".half")]
    assert [list(t or ()) for t in tables] == [[8192, DIM // 2]] * 2
    assert names <= {n for node in built.graph for n in origin(node)}
    assert [note.what for note in step.log.changed] == ["a table of 8192 positions"] * 2 + ["RotaryEmbedding"]


def test_tables_are_the_cosines_that_the_model_computes() -> None:
    built = _model(_one(SLICES))
    angles = np.arange(8192, dtype=np.float32)[:, None] * WEIGHTS["frequencies"][0]
    Fuse()(built)
    table = next(v for k, v in built.graph.initializers.items() if k.endswith(".half"))
    # float32 angles of up to 8191, each cosine within a unit in the last place of another library's
    np.testing.assert_allclose(table.const_value.numpy(), np.cos(angles), rtol=0, atol=2e-7)  # type: ignore[union-attr]


def test_a_position_beyond_the_table_is_an_error() -> None:
    """Of ONNX Runtime, with the node's name."""
    built = _model(_one(SLICES))
    Fuse(positions=5)(built)
    by_ort(built, X)
    with pytest.raises(Exception, match=r"qt/Gather.*indices element out of data bounds"):
        by_ort(built, {"x": random((2, 6, WIDTH))})


def test_constant_cosines_need_no_positions() -> None:
    text = _one(SLICES, " cos = Identity(cc) sin = Identity(ss)")
    angles = np.arange(5)[:, None] * np.tile(WEIGHTS["frequencies"].reshape(-1), 2)
    tables = {"cc": np.cos(angles).astype(np.float32), "ss": np.sin(angles).astype(np.float32)}
    built = graph(text, {k: v for k, v in WEIGHTS.items() if k in text} | tables)
    Canonicalize()(built)
    apply(Fuse(), built, X)
    assert ops(built) == ["MatMul", "Reshape", "RotaryEmbedding", "Reshape"]
    (exact,) = by_ort(built, X)
    Calibrate(samples=[X])(built)
    InsertFakeQuant()(built)
    ToInteger(float_islands="forbid")(built)
    (got,) = by_ort(built, X)
    assert np.abs(got - exact).max() < 4 * 2 * np.abs(exact).max() / 255  # x in 8 bits, weights in 8, a turn in 16


# It leaves these alone --------------------------------------------------------------------------------------------

PLUS = "{q}n = Neg({q}2) {q}r = Concat<axis=-1>({q}n, {q}1)"
NEAR = {
    "both positive": SLICES.replace(PLUS, "{q}r = Concat<axis=-1>({q}2, {q}1)"),
    "halves in order": SLICES.replace(PLUS, "{q}n = Neg({q}1) {q}r = Concat<axis=-1>({q}n, {q}2)"),
    "first half negated": SLICES.replace(PLUS, "{q}n = Neg({q}1) {q}r = Concat<axis=-1>({q}2, {q}n)"),
    "of another tensor": SLICES.replace("{q}c = Mul({q}, cos)", "{q}o = Abs({q}) {q}c = Mul({q}o, cos)"),
    "difference": SLICES.replace("{q}t = Add", "{q}t = Sub"),
}


@pytest.mark.parametrize("name", NEAR)
def test_near_misses(name: str) -> None:
    built = _model(_one(NEAR[name]))
    apply(Fuse(), built, X)
    assert "RotaryEmbedding" not in ops(built)


def test_unequal_halves_of_the_tables() -> None:
    positions = POSITIONS.replace("(angles, angles)", "(angles, more)").replace(
        " both =", " more = Mul(angles, scaled) both ="
    )
    built = _model(_one(SLICES, positions))
    step = apply(Fuse(), built, X)
    assert "RotaryEmbedding" not in ops(built) and "Cos" not in ops(built)
    assert "are no table with equal halves" in reasons(step)


def test_another_rank() -> None:
    text = f"""g (float[B,S,{DIM}] q) => (float[B,S,{DIM}] y) {{
      {POSITIONS.replace("(x)", "(q)")}
      {SLICES.replace("three", "last").replace("{q}", "q").replace("cos)", "c)").replace("sin)", "s)")}
      y = Identity(qt) }}"""
    built = _model(text)
    step = apply(Fuse(), built, {"q": random((2, 5, DIM))})
    assert "RotaryEmbedding" not in ops(built)
    assert "other than [batch, heads, positions, even]" in reasons(step)


def test_a_second_reader_keeps_what_it_reads() -> None:
    """The cosines are a graph output too."""
    text = _one(SLICES).replace(f"(float[B,S,{WIDTH}] y)", f"(float[B,S,{WIDTH}] y, float[1,T,{DIM}] c)")
    built = _model(text)
    apply(Fuse(), built, X)
    assert "RotaryEmbedding" in ops(built) and ops(built).count("Gather") == 3


# Positions alone --------------------------------------------------------------------------------------------------


def _positions(body: str, inputs: str = "int64[N,S] ids", shape: str = "N,S,8") -> ir.Model:
    constants = {"f": random((8,), 5, 0.01, 1), "m": random((3, 1), 6), "last": _i(-1), "two": np.float32(2)}
    text = f"g ({inputs}) => (float[{shape}] y) {{ {body} }}"
    words = text.replace("(", " ").replace(",", " ").replace(")", " ").split()
    return graph(text, {k: v for k, v in constants.items() if k in words})


IDS = {"ids": np.array([[0, 1, 2], [7, 3, 8191]])}


def test_sinusoidal_positions_are_a_table() -> None:
    built = _positions("u = Unsqueeze(ids, last) p = Cast<to=1>(u) a = Mul(p, f) d = Div(a, two) y = Sin(d)")
    # Another order of the same float32 products: angles of up to 8191 have a unit of 5e-4 in the last place
    apply(Fuse(), built, IDS, tolerance=1e-3)
    assert ops(built) == ["Unsqueeze", "Squeeze", "Gather"]


POSITION_MISSES = {
    "of floats": (
        "u = Unsqueeze(x, last) a = Mul(u, f) y = Cos(a)",
        "float[N,S] x",
        {"x": random((2, 3))},
        "no function of integer positions",
    ),
    "of two positions": (
        "u = Unsqueeze(ids, last) p = Cast<to=1>(u) w = Unsqueeze(more, last) r = Cast<to=1>(w) a = Add(p, r)"
        " b = Mul(a, f) y = Cos(b)",
        "int64[N,S] ids, int64[N,S] more",
        IDS | {"more": IDS["ids"]},
        "no function of integer positions",
    ),
    "no last axis": (
        "p = Cast<to=1>(ids) a = Mul(p, two) c = Cos(a) y = Unsqueeze(c, last)",
        "int64[N,S] ids",
        IDS,
        "no function of integer positions",
    ),
    "constants of other axes": (
        "u = Unsqueeze(ids, last) p = Cast<to=1>(u) a = Mul(p, m) b = Mul(a, f) y = Cos(b)",
        "int64[N,3] ids",
        IDS,
        "vary over other axes",
    ),
    "another operator": (
        "u = Unsqueeze(ids, last) p = Cast<to=1>(u) s = Sqrt(p) a = Mul(s, f) y = Cos(a)",
        "int64[N,S] ids",
        IDS,
        "no function of integer positions",
    ),
}


@pytest.mark.parametrize("name", POSITION_MISSES)
def test_cosines_that_are_no_table(name: str) -> None:
    body, inputs, feeds, said = POSITION_MISSES[name]
    built = _positions(body, inputs, "N,S,1" if name == "no last axis" else "N,3,8" if "axes" in name else "N,S,8")
    step = apply(Fuse(), built, feeds, tolerance=1e-3)  # angles of up to 8191 in float32
    assert "Cos" in ops(built) and "Gather" not in ops(built)
    assert said in reasons(step)


# To integers ------------------------------------------------------------------------------------------------------

BLOCK = f"""g (float[B,S,{WIDTH}] x) => (float[B,S,{WIDTH}] y) {{
  {POSITIONS}
  {_heads("q")} {_heads("k")} {_heads("v")}
  {SLICES.replace("{q}", "q")} {SLICES.replace("{q}", "k")}
  qa = Mul(qt, scale) ka = Mul(kt, scale) kx = Transpose<perm=[0,1,3,2]>(ka)
  scores = MatMul(qa, kx) shares = Softmax(scores) mixed = MatMul(shares, v)
  t = Transpose<perm=[0,2,1,3]>(mixed) y = Reshape(t, flat)
}}"""
SAMPLES = [{"x": random((2, 5, WIDTH), 10 + i, -2, 2)} for i in range(8)]


def _integer(bits: int) -> tuple[ir.Model, ir.Model]:
    """The fused float model, and the integer one."""
    built = _model(BLOCK)
    for value in built.graph.initializers.values():
        if value.name in ("wq", "wk", "wv"):
            value.const_value = ir.tensor(value.const_value.numpy() / 4, name=value.name)  # type: ignore[union-attr]
    Fuse(positions=64)(built)
    fused = built.clone()
    Calibrate(samples=SAMPLES)(built)
    InsertFakeQuant(residual_bits=bits)(built)
    ToInteger()(built)
    return fused, built


@pytest.mark.parametrize(("bits", "steps"), [(16, 4), (8, 6)])
def test_a_block_is_integer(bits: int, steps: float) -> None:
    """Off by a few steps of the output's 8 bits: q, k, v, two turned, the shares and the output are each rounded.

    With 8-bit residuals the cosines have 8 bits as well.
    """
    fused, integer = _integer(bits)
    assert ops(fused).count("RotaryEmbedding") == 2 and "Attention" in ops(fused)
    assert float_nodes(integer) == [] and levels.check(integer) == []
    turned = [n for n in integer.graph if n.op_type == "RotaryEmbedding"]
    assert [n.domain for n in turned] == ["mulshift"] * 2
    for node in turned:
        assert int(node.metadata_props["mulshift.accumulator_bound"]) < 2**31
        assert node.metadata_props["mulshift.width"] in ("narrow", "wide")
    for sample in SAMPLES:
        (wanted,), (got,) = by_ort(fused, sample), by_ort(integer, sample)
        step = 2 * np.abs(wanted).max() / 255
        assert np.abs(got - wanted).max() < steps * step
        run = Interpreter(integer).run(sample)
        assert np.array_equal(next(iter(run.values())).numpy(), got), "the body and the reference"


def test_the_kernels_verify_it() -> None:
    """The lowered form gives the integers of the specification."""
    from mulshift.backends import lower
    from mulshift.backends.verify import verify_integer

    _, integer = _integer(16)
    verify_integer(lower(integer, "onnxruntime"), integer, SAMPLES[:2])


def test_cosines_of_tables_need_no_clamp() -> None:
    """One Requantize at most, of the sines to the scale of the cosines."""
    _, integer = _integer(16)
    turned = [n for n in integer.graph if n.op_type == "RotaryEmbedding"]
    for node in turned:
        cos = node.inputs[1].producer()  # type: ignore[union-attr]
        assert cos is not None and cos.op_type == "Unsqueeze"


def test_positions_beyond_those_calibrated() -> None:
    """The tables keep their own ranges: a longer sequence turns further, not wrongly."""
    fused, integer = _integer(16)
    longer = {"x": random((1, 60, WIDTH), 5, -1, 1)}
    (wanted,), (got,) = by_ort(fused, longer), by_ort(integer, longer)
    assert np.abs(got - wanted).max() < 4 * 2 * np.abs(wanted).max() / 255 + 0.02  # averages of 60 keys are small
