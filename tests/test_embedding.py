"""Embeddings: tables with one scale a row in 8 bits, gathered and requantized; and the tables that keep one scale."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from float_graphs import by_ort, graph, random, reasons

from mulshift.ir import Array, Interpreter, Level, UsageError, constant, levels, set_level
from mulshift.ir.levels import float_nodes
from mulshift.passes.calibrate import Calibrate
from mulshift.passes.insert_fake_quant import LARGE_TABLE, InsertFakeQuant
from mulshift.passes.integer.embedding import row_dyadics
from mulshift.passes.to_integer import ToInteger

ROWS, WIDTH = 2500, 32
TABLE = random((ROWS, WIDTH), 1) * np.exp(random((ROWS, 1), 2, -4, 0))
WEIGHTS = {
    "t": TABLE.astype(np.float32),
    "w": random((WIDTH, 8), 3),
    "p": random((5, WIDTH), 4),
    "zero": np.asarray([0]),
}
IDS = {"ids": np.random.default_rng(0).integers(0, ROWS, (2, 5))}
SAMPLES = [{"ids": np.random.default_rng(i).integers(0, ROWS, (2, 5))} for i in range(8)]
PLAIN = "e = Gather(t, ids) s = Add(e, p) y = MatMul(s, w)"
TIED = "e = Gather(t, ids) s = Add(e, p) h = Transpose<perm=[1,0]>(t) y = MatMul(s, h)"
TWICE = "e = Gather(t, ids) f = Gather(t, ids) m = Mul(e, f) s = Add(m, p) y = MatMul(s, w)"
COLUMNS = (
    "e = Gather<axis=1>(t, zero) f = Gather(t, ids) s = Add(f, p) a = MatMul(s, w) c = ReduceMean<keepdims=0>(e)"
    " y = Add(a, c)"
)


def _model(body: str, **changes: Array) -> ir.Model:
    words = set(body.replace("(", " ").replace(",", " ").replace(")", " ").split())
    last = 8 if "h)" not in body else ROWS
    text = f"g (int64[N,5] ids) => (float[N,5,{last}] y) {{ {body} }}"
    return graph(text, {k: v for k, v in (WEIGHTS | changes).items() if k in words})


def _quantized(body: str, **options: Any) -> tuple[ir.Model, InsertFakeQuant]:
    built = _model(body)
    Calibrate(samples=SAMPLES)(built)
    step = InsertFakeQuant(**options)
    step(built)
    return built, step


def _table(model: ir.Model) -> tuple[list[int], list[int]]:
    """Shapes of the scales of the tables that Gather reads in a QDQ graph."""
    scales = [n.inputs[0].producer().inputs[1] for n in model.graph if n.op_type == "Gather"]  # type: ignore[union-attr]
    return [list(constant(s).shape) for s in scales], [n.op_type for n in model.graph].count("QuantizeLinear")  # type: ignore


@pytest.mark.parametrize("bits", [16, 8])
def test_rows(bits: int) -> None:
    built, step = _quantized(PLAIN, residual_bits=bits)
    assert _table(built)[0] == [[ROWS]]
    assert any(note.what == f"table 't' s8, {ROWS} scales along axis 0" for note in step.log.changed)
    quantized = built.clone()
    ToInteger()(built)
    assert float_nodes(built) == [] and levels.check(built) == []
    ops = [n.op_type for n in built.graph]
    assert ops.count("Gather") == 2 and "QuantizeLinear" not in ops
    rows, ratios = (constant(n.inputs[0]) for n in built.graph if n.op_type == "Gather")
    assert rows is not None and rows.dtype == np.int8 and rows.shape == (ROWS, WIDTH) and np.abs(rows).max() == 127
    assert ratios is not None and ratios.dtype == np.int32 and ratios.shape == (ROWS, 1) and ratios.min() >= 0
    assert TABLE.shape not in [
        list(v.shape or ()) for v in built.graph.initializers.values() if v.dtype == ir.DataType.FLOAT
    ]
    requantize = next(n for n in built.graph if n.op_type == "Requantize")
    assert requantize.inputs[1].producer().op_type == "Gather"  # type: ignore[union-attr]
    assert int(requantize.metadata_props["mulshift.accumulator_bound"]) == 127
    assert requantize.metadata_props["mulshift.width"] == "narrow"
    for sample in SAMPLES:
        wanted, got = (by_ort(m, sample)[0] for m in (quantized, built))
        (real,) = by_ort(_model(PLAIN), sample)
        # The accumulator's own rounding aside, both are the same rounded values: a step where b / 2^c is not the ratio.
        assert np.abs(got - wanted).max() < 0.02 * np.abs(real).max()
        assert np.array_equal(next(iter(Interpreter(built).run(sample).values())).numpy(), got)


def test_the_kernels_verify_it() -> None:
    """The lowered form, by the kernel library and by bodies, gives the integers of the specification."""
    from mulshift.backends import lower
    from mulshift.backends.verify import verify_integer

    for body in (PLAIN, TWICE):
        built, _ = _quantized(body)
        ToInteger()(built)
        verify_integer(lower(built, "onnxruntime"), built, SAMPLES[:2])


def test_it_compiles(tmp_path: Path) -> None:
    """From floats to an artifact and its report."""
    import mulshift

    recipe = {
        "name": "rows",
        "description": "the embedding alone",
        "passes": [{"pass": p} for p in ("canonicalize", "calibrate", "insert-fake-quant", "to-integer")],
    }
    mulshift.compile(_model(PLAIN), SAMPLES, recipe=recipe, output=tmp_path / "made")
    session = mulshift.session(tmp_path / "made" / "model.onnx")
    got, wanted = session.run(None, IDS)[0], by_ort(_model(PLAIN), IDS)[0]
    assert np.abs(got - wanted).max() < 0.1 * np.abs(wanted).max()  # u8 sums of rows that differ in size


def test_tensor() -> None:
    built, _ = _quantized(PLAIN, embedding="tensor")
    assert _table(built)[0] == [[]]
    ToInteger()(built)
    (gather,) = [n for n in built.graph if n.op_type == "Gather"]
    table = constant(gather.inputs[0])
    assert table is not None and table.dtype == np.uint8, "what its reader asks for"


def test_rows_are_closer_than_one_scale_of_8_bits() -> None:
    """Rows far smaller than the largest keep their bits."""
    error = {}
    for embedding in ("rows", "tensor"):
        built, _ = _quantized(PLAIN, embedding=embedding, residual_bits=16 if embedding == "rows" else 8)
        real, got = (by_ort(m, SAMPLES[0])[0] for m in (_model(PLAIN), built))
        error[embedding] = float(((got - real) ** 2).sum())
    assert error["rows"] < error["tensor"]


def test_a_tied_head_keeps_one_scale() -> None:
    built, step = _quantized(TIED)
    assert _table(built)[0] == [[]]
    assert "one scale for all rows of 't', which others read too" in reasons(step)


def test_a_gather_of_columns_keeps_one_scale() -> None:
    built, step = _quantized(COLUMNS)
    assert _table(built)[0] == [[], []]
    assert "which others read too" in reasons(step)


def test_two_gathers_share_their_rows() -> None:
    built, _ = _quantized(TWICE)
    assert _table(built)[0] == [[ROWS], [ROWS]]
    ToInteger()(built)
    assert float_nodes(built) == []
    assert (
        sum(
            v.dtype == ir.DataType.INT8 and list(v.shape or ()) == [ROWS, WIDTH]
            for v in built.graph.initializers.values()
        )
        == 1
    )
    assert np.array_equal(next(iter(Interpreter(built).run(IDS).values())).numpy(), by_ort(built, IDS)[0])


def test_small_tables_and_other_targets_keep_one_scale() -> None:
    rows = LARGE_TABLE // WIDTH
    for size, scales in ((rows, []), (rows + 1, [rows + 1])):
        built = _model(PLAIN, t=WEIGHTS["t"][:size])
        feeds = [{"ids": f["ids"] % size} for f in SAMPLES]
        Calibrate(samples=feeds)(built)
        InsertFakeQuant()(built)
        assert _table(built)[0] == [scales]
    assert _table(_quantized(PLAIN, target="qdq")[0])[0] == [[]]


def test_a_wrong_option() -> None:
    with pytest.raises(UsageError, match="embedding is 'row'"):
        _quantized(PLAIN, embedding="row")


@pytest.mark.parametrize("largest", [1e-6, 0.01, 1.0, 129.0, 4000.0, 1e6])
def test_row_dyadics(largest: float) -> None:
    """Every row is off by less than the free part of a step, whatever its own ratio, or by 2^-30 of it."""
    ratio = largest * np.exp(-np.arange(50) / 3.0)
    ratio[7] = 0
    b, c, width = row_dyadics(ratio, 127, 2.0**-6)
    error = np.abs(b / 2.0 ** float(c) - ratio) * 127
    assert error.max() <= (2.0**-6 if width == "narrow" else 127 * 2.0**-30 * max(1, largest))
    assert (b >= 0).all() and 2 <= int(c) <= 62
    if width == "narrow":
        assert int(b.max()) * 127 + 2 ** (int(c) - 1) < 2**31
    assert (width == "wide") == (largest > 4000)
    assert row_dyadics(ratio, 127, -1)[2] == "wide"


@pytest.mark.parametrize(("dtype", "zero", "fits"), [(np.uint8, 128, True), (np.uint8, 0, False), (np.int8, 0, True)])
def test_rows_that_came_as_integers(dtype: Any, zero: int, fits: bool) -> None:
    """Of an imported model: less their zero points they are s8, or the Gather stays float."""
    rng = np.random.default_rng(0)
    weights = {
        "t": (rng.integers(-127, 128, (9, 8)) + zero).clip(0 if dtype == np.uint8 else -128).astype(dtype),
        "s": random((9,), 2, 0.01, 0.1),
        "z": np.full(9, zero, dtype),
        "o": np.float32(0.05),
        "oz": np.uint8(120),
    }
    if not fits:
        weights["t"][0, 0] = 255
    text = """g (int64[N,5] ids) => (float[N,5,8] y) {
      d = DequantizeLinear<axis=0>(t, s, z) e = Gather(d, ids) q = QuantizeLinear(e, o, oz)
      y = DequantizeLinear(q, o, oz) }"""
    built = graph(text, weights)
    set_level(built, Level.QDQ)
    ids = {"ids": rng.integers(0, 9, (2, 5))}
    (wanted,) = by_ort(built, ids)
    ToInteger()(built)
    assert bool(float_nodes(built)) is not fits
    assert np.abs(by_ort(built, ids)[0] - wanted).max() <= 0.051, "a step where a half was rounded to even"


def test_rows_of_zeros_and_negative_indices() -> None:
    table = WEIGHTS["t"].copy()
    table[:3] = 0
    built = _model(PLAIN, t=table)
    Calibrate(samples=SAMPLES)(built)
    InsertFakeQuant()(built)
    ToInteger()(built)
    ids = np.array([[0, 1, 2, -1, -ROWS]])
    got = by_ort(built, {"ids": ids})[0]
    assert np.array_equal(got, by_ort(built, {"ids": ids % ROWS})[0])
    assert np.array_equal(next(iter(Interpreter(built).run({"ids": ids}).values())).numpy(), got)
