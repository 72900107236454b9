"""Pairs with blocks and few bits: what they state, and that NumPy, the interpreter and ONNX Runtime agree on it."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from float_graphs import by_ort, graph, random

from mulshift.ir import (
    Array,
    Interpreter,
    Level,
    QParams,
    QuantSpec,
    equal,
    levels,
    parse,
    set_level,
    show,
    weight_spec,
)
from mulshift.passes.groups import group_qparams
from mulshift.passes.pairs import PairInserter, pair_qparams
from mulshift.passes.twins import fake_quantized, float_numbers, replace_initializer


def paired(w: Array, q: QParams) -> tuple[ir.Model, ir.Node]:
    """`y = x + dequantize(quantize(w))` and the DequantizeLinear."""
    shape = ",".join(map(str, w.shape))
    m = graph(f"g (float[{shape}] x) => (float[{shape}] y) {{ y = Add (x, w) }}", {"w": w})
    made = PairInserter(m.graph).insert(m.graph.initializers["w"], q, [(m.graph[0], 1)], "w")
    node = made.producer()
    assert node is not None
    return m, node


@pytest.mark.parametrize(("shape", "axis", "group"), [((6, 64), 1, 32), ((50, 3), 0, 16), ((4, 10, 3, 3), 1, 4)])
@pytest.mark.parametrize("bits", [4, 3, 2])
def test_blocks_are_stated_and_mean_the_same_everywhere(
    shape: tuple[int, ...], axis: int, group: int, bits: int
) -> None:
    blocks = list(shape)
    blocks[axis] = -(-shape[axis] // group)
    scale = random(tuple(blocks), 1, low=0.1, high=1.0)
    q = QParams(scale, np.zeros(blocks), weight_spec(bits, axis, group))
    w = q.dequantize(np.random.default_rng(2).integers(q.spec.qmin, q.spec.qmax + 1, shape))
    m, node = paired(w, q)
    assert pair_qparams(node) == q
    zeros = {"x": np.zeros(shape, np.float32)}
    numbers = fake_quantized(node)
    assert numbers is not None
    np.testing.assert_array_equal(numbers, w)
    np.testing.assert_array_equal(Interpreter(m).run(zeros)["y"], w)
    np.testing.assert_array_equal(by_ort(m, zeros)[0], w)


def test_few_bits_survive_a_file() -> None:
    w = np.asarray([[0.5, -0.5], [2.0, -2.0]], np.float32)
    q = QParams(np.asarray([0.5, 2.0]), np.zeros(2), weight_spec(1))
    m, _ = paired(w, q)
    again = ir.from_proto(ir.to_proto(m))
    node = next(n for n in again.graph if n.op_type == "DequantizeLinear")
    assert pair_qparams(node) == q
    np.testing.assert_array_equal(q.quantize(w), [[1, -1], [1, -1]])


def test_text_and_level_know_blocks_of_4_bits() -> None:
    w = random((4, 10), 3)
    m, _ = paired(w, group_qparams(w, 0, 1, 4, 3, "mse"))
    set_level(m, Level.QDQ)
    assert levels.check(m) == []
    assert equal(m, parse(show(m)))
    assert "block_size=4" in show(m) and "s4[4,10]" in show(m).replace(" ", "")


@pytest.mark.parametrize(("bits", "low", "high"), [(8, -127, 127), (4, -7, 7), (3, -3, 3), (2, -1, 1), (1, -1, 1)])
def test_the_integers_of_a_weight(bits: int, low: int, high: int) -> None:
    spec = weight_spec(bits)
    assert (spec.qmin, spec.qmax) == (low, high)


def test_an_imported_int4_may_take_its_lowest_value() -> None:
    assert QuantSpec(4, signed=True, symmetric=False).qmin == -8


def test_the_floats_before_a_pass_changed_them() -> None:
    w = random((2, 3), 1)
    m, _ = paired(w, QParams(np.asarray([1.0, 1.0]), np.zeros(2), weight_spec(4)))
    old = m.graph.initializers["w"]
    once = replace_initializer(m.graph, old, "w.once", np.rint(w))
    twice = replace_initializer(m.graph, once, "w.twice", np.rint(w) + 1)
    for value in (old, once, twice):
        numbers = float_numbers(value)
        assert numbers is not None
        np.testing.assert_array_equal(numbers, w)
