"""Which product gets which bits: metadata, patterns, defaults; what values are read in 4 bits; what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from float_graphs import graph, random
from qdq_graphs import lower
from test_insert_fake_quant import lines

from mulshift.ir import Array, Feeds, UsageError, set_range
from mulshift.passes.base import Log
from mulshift.passes.calibrate import Calibrate, get_range_of_bits
from mulshift.passes.insert_fake_quant import InsertFakeQuant
from mulshift.passes.narrow_scales import NarrowScales
from mulshift.passes.pairs import pair_qparams
from mulshift.passes.precision import Precision, set_precision
from mulshift.passes.round_weights import RoundWeights

CHAIN = """
g (float[1,8,6,6] x) => (float[1,8,6,6] y)
{
  a = Conv (x, wa)
  ra = Relu (a)
  b = Conv (ra, wb)
  rb = Relu (b)
  c = Conv (ra, wc)
  s = Add (rb, c)
  y = Conv (s, wy)
}
"""
WEIGHTS = {f"w{k}": random((8, 8, 1, 1), i) for i, k in enumerate("abcy")}
FEEDS = {"x": random((1, 8, 6, 6), 9)}


def calibrated(text: str = CHAIN, weights: dict[str, Array] = WEIGHTS, feeds: Feeds = FEEDS) -> ir.Model:
    m = graph(text, weights)
    Calibrate(samples=[feeds], low_bits=[4])(m)
    return m


def inserted(m: ir.Model, **options: Any) -> Log:
    step = InsertFakeQuant(**options)
    step(m)
    return step.log


def bits(m: ir.Model) -> dict[str, str]:
    """Product -> "w4a8" as the graph has it."""
    found = {}
    for node in m.graph:
        made = [v.producer() for v in node.inputs[:2] if v is not None]
        if node.op_type not in ("Conv", "MatMul") or None in made:
            continue
        x, w = (pair_qparams(n) for n in made if n is not None)
        assert x is not None and w is not None
        found[str(node.name)] = str(Precision(w.spec.bits, x.spec.bits, w.spec.group or 0))
    return found


def test_metadata_before_patterns_before_defaults() -> None:
    m = calibrated()
    set_precision(next(n for n in m.graph if n.name == "b"), Precision(3, 4))
    log = inserted(m, precision={"[bc]": "w2g4a8", "?": "w4a4"}, weight_bits=8)
    assert bits(m) == {"a": "w4a4", "b": "w3a4", "c": "w2g4a8", "y": "w4a4"}
    assert not [n for n in log.skipped if "graph output" not in n.what]
    m = calibrated()
    inserted(m, weight_bits=2, group=4, activation_bits=4, precision={"y": "w8a8"})
    assert bits(m) == {"a": "w2g4a4", "b": "w2g4a4", "c": "w2g4a4", "y": "w8a8"}


def test_readers_of_one_value_each_get_their_bits() -> None:
    m = calibrated()
    inserted(m, precision={"b": "w8a4"}, residual_bits=8)
    assert [line for line in lines(m) if line.startswith(("ra ->", "ra.dq", "b =", "c ="))] == [
        "ra -> uint8 ra.scale",
        "ra.dq -> uint4 ra.u4.scale",
        "b = Conv(ra.u4.dq, wb.dq)",
        "c = Conv(ra.dq, wc.dq)",
    ]
    m = calibrated()
    inserted(m, precision={"[bc]": "w8a4"})
    assert [line for line in lines(m) if line.startswith("ra ->")] == ["ra -> uint4 ra.scale"]
    lower(m, float_islands="forbid")


MOVED = """
g (float[1,8,6,6] x) => (float[1,8,3,3] y)
{ r = Relu (x) m = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (r) y = Conv (m, wa) }
"""


def test_movers_carry_4_bits_except_for_other_runtimes() -> None:
    m = calibrated(MOVED, {"wa": WEIGHTS["wa"]})
    inserted(m, activation_bits=4)
    assert [line for line in lines(m) if "uint" in line] == [
        "x -> uint8 x.scale",
        "r -> uint4 r.scale",
        "m -> uint4 r.scale",
    ]
    m = calibrated(MOVED, {"wa": WEIGHTS["wa"]})
    inserted(m, activation_bits=4, target="qdq")
    assert [line for line in lines(m) if "uint" in line] == [
        "x -> uint8 x.scale",
        "r -> uint8 r.scale",
        "m -> uint8 r.scale",
        "m.dq -> uint4 m.u4.scale",
        "y.float -> uint8 y.scale",
    ]


def test_an_activation_of_4_bits_is_clipped_where_calibration_says() -> None:
    x = np.random.default_rng(0).standard_normal((1, 8, 40, 40)).astype(np.float32)
    m = calibrated(
        "g (float[1,8,40,40] x) => (float[1,8,40,40] y) { y = Conv (x, wa) }", {"wa": WEIGHTS["wa"]}, {"x": x}
    )
    low, high = get_range_of_bits(m.graph.inputs[0], 4) or (0.0, 0.0)
    assert 2.0 < -low < 3.2 and 2.0 < high < 3.2 < x.max()  # of a normal distribution 2.7 (Max 1960)
    inserted(m, activation_bits=4)
    q = pair_qparams(
        next(n for n in m.graph if n.op_type == "DequantizeLinear" and n.inputs[0].dtype == ir.DataType.UINT4)
    )  # type: ignore[union-attr]
    assert q is not None and abs(float(q.scale) - (high - low) / 15) < 1e-6
    assert get_range_of_bits(m.graph.inputs[0], 3) is None


def test_without_it_the_range_is_that_of_8_bits() -> None:
    m = graph(CHAIN, WEIGHTS)
    Calibrate(samples=[FEEDS])(m)
    set_range(m.graph.inputs[0], -1.5, 1.5)
    inserted(m, activation_bits=4)
    q = pair_qparams(next(n for n in m.graph if n.op_type == "DequantizeLinear"))
    assert q is not None and abs(float(q.scale) - 3 / 15) < 1e-6


def test_what_cannot_be_is_told() -> None:
    text = "g (float[1,8,6,6] x) => (float[1,8,6,6] y) { d = Conv <group = 8> (x, w1) e = Relu (d) y = Conv (e, w2) }"
    m = calibrated(text, {"w1": random((8, 1, 1, 1), 1), "w2": random((8, 8, 1, 1), 2)})
    log = inserted(m, weight_bits=4, group=4, precision={"y": "w8g4a8"})
    told = {n.where.split("'")[1]: n.what for n in log.skipped if n.where.startswith("node")}
    assert told["d"].startswith("1 inputs are no more than a group of 4")
    assert told["y"].startswith("8-bit weights have no groups")
    image = "g (uint8[1,8,6,6] x) => (float[1,8,6,6] y) { c = Cast <to = 1> (x) y = Conv (c, wa) }"
    pixels = np.random.default_rng(1).integers(0, 256, (1, 8, 6, 6)).astype(np.uint8)
    m = calibrated(image, {"wa": WEIGHTS["wa"]}, {"x": pixels})
    assert any("no 4-bit pair: it is an image" in n.what for n in inserted(m, activation_bits=4).skipped)


def test_tuning_tells_what_it_leaves() -> None:
    m = calibrated()
    inserted(m, precision={"a": "w4g4a8", "b": "w1a8"}, weight_bits=4)
    step = RoundWeights(samples=[FEEDS])
    step(m)
    told = {n.where.split("'")[1]: n.what for n in step.log.skipped}
    assert "groups" in told["a"] and "signs" in told["b"]
    assert {n.where.split("'")[1] for n in step.log.changed} == {"c", "y"}


def test_narrow_scales_keeps_groups_multiples() -> None:
    m = calibrated()
    inserted(m, weight_bits=4, group=4)
    step = NarrowScales()
    step(m)
    assert {n.where.split("'")[1] for n in step.log.changed} == {"b", "c"}  # a's are as they should be
    lower(m, float_islands="forbid")  # groups without a common scale would be float
    widths = {n.metadata_props["mulshift.width"] for n in lower(m).graph if n.name in ("a", "b", "c")}
    assert widths == {"narrow"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight_bits": 5}, "weight_bits is 5"),
        ({"activation_bits": 2}, "activation_bits is 2"),
        ({"group": -1}, "group is -1"),
        ({"precision": {"nothing*": "w4a8"}}, r"no product by constants is called 'nothing\*'"),
        ({"precision": {"a": "w4"}}, "'w4' is none"),
        ({"weight_range": "best"}, "weight_range is 'best'"),
    ],
)
def test_errors_are_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        inserted(calibrated(), **options)


def test_ranges_of_fewer_bits_than_there_are() -> None:
    with pytest.raises(UsageError, match="low_bits"):
        Calibrate(samples=[FEEDS], low_bits=[8])(graph(CHAIN, WEIGHTS))
