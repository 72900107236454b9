"""fuse-kernels: what goes into the epilogue of a product, and what stays out."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
import qdq_graphs as g
from kernel_graphs import FIRST, X, fuse, ops, residual, weights

from mulshift.ir import ACTIVATION_S16

EPILOGUES: dict[str, tuple[str, list[str]]] = {
    "add": ("b = Conv(a, v) m = Add(b, a)", ["ConvNhwcAdd"]),
    "add, other way round": ("b = Conv(a, v) m = Add(a, b)", ["ConvNhwcAdd"]),
    "subtract": ("b = Conv(a, v) m = Sub(b, a)", ["ConvNhwcAdd"]),
    "subtract, other way round": ("b = Conv(a, v) m = Sub(a, b)", ["ConvNhwcAdd"]),
    "depthwise": ("b = Conv<group=8>(a, d) m = Add(b, a)", ["DepthwiseNhwcAdd"]),
    "two products": ("b = Conv(a, v) c = Conv(a, u) m = Add(b, c)", ["ConvNhwc", "ConvNhwcAdd"]),
    "the other operand comes later": (
        "b = Conv(a, v) s = Slice(a, z, e) t = Tanh(s) m = Add(b, t)",
        ["Slice", "Table", "ConvNhwcAdd"],
    ),
    "table": ("b = Conv(a, v) m = Sigmoid(b)", ["ConvNhwcTable"]),
    "add, table": ("b = Conv(a, v) s = Add(b, a) m = Tanh(s)", ["ConvNhwcAddTable"]),
    "table, add": ("b = Conv(a, v) s = Tanh(b) m = Add(s, a)", ["ConvNhwcTable", "Add"]),
    "requantize": ("b = Conv(a, v) s = Tanh(b) m = Max(b, s)", ["ConvNhwcRequantize", "Table", "Requantize", "Max"]),
    "broadcast": ("b = Conv(a, v) p = GlobalMaxPool(a) m = Add(b, p)", ["ConvNhwc", "ReduceMax", "Requantize", "Add"]),
    "broadcast by": ("p = GlobalAveragePool(a) b = Conv(p, v) m = Add(a, b)", ["ReduceMean", "ConvNhwc", "Add"]),
    "read twice": ("b = Conv(a, v) s = Add(b, a) m = Add(s, b)", ["ConvNhwc", "Add", "Add"]),
}


@pytest.mark.parametrize("name", EPILOGUES)
def test_epilogues(name: str) -> None:
    body, expected = EPILOGUES[name]
    given = weights(w=(8, 3, 3, 3), v=(8, 8, 1, 1), u=(8, 8, 1, 1), d=(8, 1, 1, 1), w2=(6, 8, 1, 1))
    given |= {"z": np.zeros(2, int), "e": np.array([1, 8])}
    found, _ = fuse(g.lower(g.qdq(g.graph(f"{FIRST} {body} y = Conv(m, w2) }}", given), X)), X)
    assert ops(found)[1:-2] == expected


def _scaled(bias: float = 0.0) -> ir.Model:
    """A function of words, times a number a channel, more or less."""
    given = {"w": g.normal(8, 40, seed=1), "w2": g.normal(40, 6, seed=2)}
    given |= {"s": np.linspace(0.3, 1.7, 40, dtype=np.float32), "o": np.full(40, bias, np.float32)}
    moved = "d = Add(c, o) y = MatMul(d, w2)" if bias else "y = MatMul(c, w2)"
    body = f"a = MatMul(x, w) b = Gelu(a) c = Mul(b, s) {moved}"
    model = g.graph(f"(float[3,8] x) => (float[3,6] y) {{ {body} }}", given)
    return g.lower(g.qdq(model, ROWS, specs={"b": ACTIVATION_S16}))


ROWS = {"x": g.normal(3, 8, seed=5)}


def test_a_scaling_of_words_is_a_rescaling() -> None:
    found, _ = fuse(_scaled(), ROWS)
    assert ops(found) == ["GemmPackedTableRescale", "GemmPackedAccumulate"]
    (node,) = [n for n in found.graph if n.op_type == "GemmPackedTableRescale"]
    assert [v.name for v in node.inputs[-2:]] == ["c.rescale_b", "c.rescale_c"]


def test_other_affines_are_not() -> None:
    assert "Affine" in ops(fuse(_scaled(bias=0.25), ROWS)[0])


def test_a_table_of_16_bit_integers_is_not_fused() -> None:
    given = weights(w=(8, 3, 3, 3), v=(8, 8, 1, 1), w2=(6, 8, 1, 1))
    model = g.graph(f"{FIRST} b = Conv(a, v) m = Sigmoid(b) y = Conv(m, w2) }}", given)
    integer = g.lower(g.qdq(model, X, specs={"b": ACTIVATION_S16}))
    (table,) = [n.inputs[1] for n in integer.graph if n.op_type == "Table"]
    assert table is not None and table.shape is not None and table.shape[0] == 65536
    assert ops(fuse(integer, X)[0])[1:3] == ["ConvNhwc", "Table"]


def test_a_graph_output_is_not_fused_away() -> None:
    integer = residual()
    integer.graph.outputs.append(next(v for n in integer.graph for v in n.outputs if v.name == "b"))
    found, _ = fuse(integer, X)
    assert ops(found)[1:-2] == ["ConvNhwc", "Transpose", "Add"]


def test_a_sum_with_itself_is_not_fused() -> None:
    integer = residual()
    add = next(n for n in integer.graph if n.op_type == "Add")
    add.replace_input_with(1, add.inputs[0])
    assert ops(fuse(integer, X)[0])[1:3] == ["ConvNhwc", "Add"]


def test_another_zero_point_is_not_fused() -> None:
    integer = residual()
    add = next(n for n in integer.graph if n.op_type == "Add")
    add.attributes["x_zero_point"] = ir.AttrInt64("x_zero_point", add.attributes["x_zero_point"].as_int() + 1)
    assert "ConvNhwcAdd" not in ops(fuse(integer, X)[0])


def test_unknown_sizes_may_broadcast() -> None:
    integer = residual()
    next(v for n in integer.graph for v in n.outputs if v.name == "b").shape = ir.Shape([1, 8, None, None])
    assert "ConvNhwcAdd" not in ops(fuse(integer, X)[0])
