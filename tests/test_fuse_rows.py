"""fuse-kernels: products of rows with a power of two each, and which of them stay accumulators."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import qdq_graphs as g
from kernel_graphs import fuse, ops

from mulshift.passes.calibrate import Calibrate
from mulshift.passes.insert_fake_quant import InsertFakeQuant
from mulshift.passes.to_integer import ToInteger

SIZES = {"w": (16, 12), "v": (16, 12), "u": (12, 8), "s": (16, 16), "g": (16,), "o": (16,)}


def _feeds() -> dict[str, Any]:
    """Tokens of many sizes."""
    x = np.random.default_rng(5).standard_normal((2, 3, 16)) * 2.0 ** np.arange(-3, 3).reshape(2, 3, 1)
    return {"x": x.astype(np.float32)}


def _integer(body: str, activations: str = "per-token") -> ir.Model:
    constants = {name: g.normal(*SIZES[name], seed=i) for i, name in enumerate(SIZES)}
    constants = {name: value for name, value in constants.items() if f", {name})" in body or f", {name}," in body}
    model = g.graph(f"(float[2,3,16] x) => (float[2,3,8] y) {{ {body} y = Relu(m) }}", constants)
    Calibrate(samples=[_feeds()])(model)
    InsertFakeQuant(activations=activations)(model)
    ToInteger(float_islands="forbid")(model)
    return model


FUSED: dict[str, tuple[str, list[str]]] = {
    "one": ("a = MatMul(x, w) b = Relu(a) m = MatMul(b, u)", ["GemmPackedRows", "GemmPackedRows"]),
    "two that share their rows": (
        "a = MatMul(x, w) b = MatMul(x, v) c = Add(a, b) m = MatMul(c, u)",
        ["GemmPackedRows", "GemmPackedRowsAdd", "GemmPackedRows"],
    ),
    "a residual": ("a = MatMul(x, w) t = Tanh(a) c = Add(a, t) m = MatMul(c, u)", ["GemmPackedRows", "GemmPackedRows"]),
}


@pytest.mark.parametrize("name", FUSED)
def test_products_take_the_shift_of_their_rows(name: str) -> None:
    body, expected = FUSED[name]
    found, _ = fuse(_integer(body), _feeds())
    assert [op for op in ops(found) if op.startswith("Gemm")] == expected
    assert "Sub" not in ops(found)


NORMS: dict[str, tuple[str, list[str]]] = {
    "for two products": (
        "n = RMSNormalization(x, g) a = MatMul(n, w) b = MatMul(n, v) c = Add(a, b) m = MatMul(c, u)",
        ["RmsNormRowQuantize", "RowQuantize"],
    ),
    "of a mean": (
        "n = LayerNormalization(x, g, o) a = MatMul(n, w) m = MatMul(a, u)",
        ["LayerNormRowQuantize", "RowQuantize"],
    ),
    "read by others too": (
        "n = RMSNormalization(x, g) a = MatMul(n, s) c = Add(a, n) d = MatMul(c, w) m = MatMul(d, u)",
        ["RmsNorm", "RowQuantize", "RowQuantize", "RowQuantize"],
    ),
}


@pytest.mark.parametrize("name", NORMS)
def test_norms_make_rows_where_nothing_else_reads_them(name: str) -> None:
    body, expected = NORMS[name]
    found, _ = fuse(_integer(body), _feeds())
    assert [op for op in ops(found) if "Norm" in op or op == "RowQuantize"] == expected


def _read_twice(product: ir.Node, requantize: ir.Node) -> None:
    product.graph.outputs.append(product.outputs[0])  # type: ignore[union-attr]


def _other_rows(product: ir.Node, requantize: ir.Node) -> None:
    """k of another RowQuantize, of the same shape."""
    rows = product.inputs[0].producer()  # type: ignore[union-attr]
    assert rows is not None
    copy = ir.node("RowQuantize", rows.inputs, {"x_zero_point": 0}, domain="mulshift", num_outputs=2, name="copy")
    for old, new in zip(rows.outputs, copy.outputs, strict=True):
        new.name, new.type, new.shape = f"{old.name}.copy", old.type, old.shape
    product.graph.insert_before(product, copy)  # type: ignore[union-attr]
    requantize.inputs[2].producer().replace_input_with(1, copy.outputs[1])  # type: ignore[union-attr]


def _small_c(product: ir.Node, requantize: ir.Node) -> None:
    """c - 9 is below 2: a row might leave nothing."""
    shifts = requantize.inputs[2].producer()  # type: ignore[union-attr]
    assert shifts is not None and shifts.inputs[0] is not None
    shifts.inputs[0].const_value = ir.tensor(np.asarray(10, np.int32), name=shifts.inputs[0].name)


@pytest.mark.parametrize("change", [_read_twice, _other_rows, _small_c])
def test_what_stays(change: Callable[[ir.Node, ir.Node], None]) -> None:
    integer = _integer("a = MatMul(x, w) b = Relu(a) m = MatMul(b, u)")
    product = next(n for n in integer.graph if n.op_type == "GemmAccumulate")
    requantize = next(n for n in integer.graph if n.op_type == "Requantize")
    change(product, requantize)
    found, _ = fuse(integer, _feeds())
    assert [op for op in ops(found) if op.startswith("Gemm")] == ["GemmPackedAccumulate", "GemmPackedRows"]
