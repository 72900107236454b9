"""to-integer on whole small graphs: it fires, names and metadata hold, the numbers are those of the specification."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
import qdq_graphs as g

from mulshift.ir import (
    AccumulatorOverflowError,
    UnsupportedError,
    UsageError,
    get_qparams,
    levels,
    origin,
)
from mulshift.passes import PASSES
from mulshift.passes.to_integer import ToInteger

RESIDUAL = """(float[1,3,8,8] x) => (float[1,4] y) {
  c = Conv <pads = [1,1,1,1], strides = [2,2]> (x, w, b)
  r = Relu (c)
  d = Conv (r, w2, b2)
  s = Add (d, r)
  p = GlobalAveragePool (s)
  f = Flatten (p)
  y = Gemm (f, w3, b3)
}"""
FEEDS = {"x": g.normal(1, 3, 8, 8, seed=9)}


def residual() -> ir.Model:
    shapes = {"w": (4, 3, 3, 3), "b": (4,), "w2": (4, 4, 1, 1), "b2": (4,), "w3": (4, 4), "b3": (4,)}
    return g.qdq(g.graph(RESIDUAL, {k: g.normal(*s, seed=len(k)) for k, s in shapes.items()}), FEEDS)


def test_a_residual_network_is_integer_between_its_borders() -> None:
    # Four operators, each within half a step of the QDQ rounding: three steps of the accumulator (see g.check).
    integer = g.check(residual(), FEEDS, steps=3)
    assert g.operators(integer) == [
        "QuantizeLinear",
        "mulshift::Conv",
        "mulshift::Conv",
        "mulshift::Add",
        "mulshift::ReduceMean",
        "Flatten",
        "mulshift::GemmAccumulate",
        "DequantizeLinear",
    ]


def test_values_keep_their_names_and_nodes_their_origins() -> None:
    integer = g.lower(residual())
    names = [v.name for n in integer.graph for v in n.outputs]
    assert names == ["x.q", "r", "d", "s", "p", "f", "y.q", "y"]
    assert [n.name for n in integer.graph][1:4] == ["Conv_0", "Conv_2", "Add_3"]
    assert origin(integer.graph[1]) == ("Conv_0", "Relu_1")
    assert set(integer.graph.initializers) >= {"x.scale", "x.zero_point", "d.weight", "d.bias", "d.b", "d.c"}


def test_every_tensor_has_qparams_and_every_accumulator_a_proof() -> None:
    integer = g.lower(residual())
    assert levels.check(integer) == []
    for node in integer.graph:
        if node.op_type != "DequantizeLinear":
            assert get_qparams(node.outputs[0]) is not None, node.name
        if node.domain == "mulshift":
            assert 0 < int(node.metadata_props["mulshift.accumulator_bound"]) < 2**31
            requantizes = node.op_type != "GemmAccumulate"
            assert (node.metadata_props.get("mulshift.width") in ("narrow", "wide")) == requantizes


def test_a_second_run_changes_nothing() -> None:
    integer = g.lower(residual())
    before = ir.to_proto(integer).SerializeToString(deterministic=True)
    assert not ToInteger()(integer).modified
    assert ir.to_proto(integer).SerializeToString(deterministic=True) == before


def test_it_is_in_the_table() -> None:
    assert PASSES["to-integer"] is ToInteger


def test_an_unknown_policy_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="float_islands 'maybe'"):
        ToInteger(float_islands="maybe")  # type: ignore[arg-type]


ISLAND = """(float[1,4] x) => (float[1,4] y) {
  h = MatMul (x, w)
  s = LogSoftmax (h)
  y = MatMul (s, w2)
}"""


def island() -> ir.Model:
    return g.qdq(g.graph(ISLAND, {"w": g.normal(4, 4), "w2": g.normal(4, 4, seed=1)}), {"x": g.normal(1, 4)})


def test_what_has_no_integer_form_stays_float_and_says_why() -> None:
    integer = g.check(island(), {"x": g.normal(1, 4)}, steps=3, islands=1)
    (softmax,) = [n for n in integer.graph if n.op_type == "LogSoftmax"]
    assert softmax.metadata_props["mulshift.float_reason"] == "no integer form of LogSoftmax"
    assert softmax.inputs[0].producer().op_type == "DequantizeLinear"
    assert [n.op_type for n in softmax.outputs[0].consumers()] == ["QuantizeLinear"]


def test_float_islands_are_forbidden_on_request() -> None:
    with pytest.raises(UnsupportedError, match=r"LogSoftmax.*no integer form of LogSoftmax.*float-islands report"):
        g.lower(island(), float_islands="forbid")


def test_an_accumulator_that_may_overflow_is_an_error_with_its_node() -> None:
    text = "(float[1,8] x) => (float[1,2] y) { y = Gemm (x, w, b) }"
    model = g.graph(text, {"w": np.full((8, 2), 1e-9, np.float32), "b": np.full(2, 5, np.float32)})
    with pytest.raises(AccumulatorOverflowError, match=r"Gemm_0.*bias of channel 0"):
        g.lower(g.qdq(model, {"x": g.normal(1, 8)}))
