"""reduce_range: weights whose neighbours' products vpmaddubsw adds in 16 bits stay within +-64, through every pass."""

from __future__ import annotations

import numpy as np
import pytest
from float_graphs import graph, random

from mulshift.ir import Array, Feeds, constant
from mulshift.passes.calibrate import Calibrate
from mulshift.passes.insert_fake_quant import InsertFakeQuant
from mulshift.passes.narrow_scales import NarrowScales
from mulshift.passes.round_weights import RoundWeights
from mulshift.passes.scales import reduce_range, weight_qparams
from mulshift.passes.to_integer import ToInteger

NET = """
g (float[N, 8, 6, 6] x) => (float[N, 5] y)
{
  a = Conv <strides = [2, 2]> (x, w1)
  b = Relu (a)
  c = Conv <pads = [1, 1, 1, 1]> (b, w2)
  d = Conv <group = 8> (c, w3)
  p = GlobalAveragePool (d)
  f = Flatten (p)
  y = Gemm (f, w4)
}
"""
WEIGHTS = {
    "w1": random((8, 8, 2, 2), 1),
    "w2": random((8, 8, 3, 3), 2),
    "w3": random((8, 1, 2, 2), 3),
    "w4": random((8, 5), 4),
}


def integers(reduce_range: bool) -> dict[str, Array]:
    """The weights of the integer graph by the name of the float ones."""
    m = graph(NET, WEIGHTS)
    data: list[Feeds] = [{"x": random((4, 8, 6, 6), k)} for k in range(3)]
    steps = [
        Calibrate(samples=data),
        InsertFakeQuant(reduce_range=reduce_range),
        NarrowScales(),
        RoundWeights(samples=data),
        ToInteger(),
    ]
    for step in steps:
        step(m)
    found = [constant(n.inputs[1]) for n in m.graph if n.op_type in ("Conv", "Gemm", "GemmAccumulate")]
    return dict(zip(WEIGHTS, (w for w in found if w is not None), strict=True))


def test_products_stay_within_64() -> None:
    w = integers(reduce_range=True)
    for name in ("w1", "w4"):
        assert 60 < int(np.abs(w[name].astype(int)).max()) <= 64, name


@pytest.mark.parametrize("name", ["w2", "w3"])
def test_winograd_and_other_depthwise_windows_keep_eight_bits(name: str) -> None:
    assert int(np.abs(integers(reduce_range=True)[name].astype(int)).max()) > 100


def test_without_it_all_keep_eight_bits() -> None:
    for name, w in integers(reduce_range=False).items():
        assert int(np.abs(w.astype(int)).max()) > 100, name


def test_columns_of_depthwise_windows_add_up_in_16_bits() -> None:
    """No sum of one sign of the outer rows, or of the middle one, leaves 128; small windows keep their eight bits."""
    windows = random((8, 1, 3, 3), 5)
    windows[3] = np.abs(windows[3])
    windows[5], windows[5, 0, 1, 1] = 0, 1
    fine = weight_qparams(windows, 0, 8, "max")
    q = reduce_range(fine, windows, 0, windows=True)
    w = np.rint(windows / q.scale.reshape(-1, 1, 1, 1)).astype(int)[:, 0]
    for rows in (w[:, ::2], w[:, 1:2]):
        for sign in (1, -1):
            assert int(np.maximum(sign * rows, 0).sum(axis=(1, 2)).max()) <= 128
    assert (np.abs(w).max(axis=(1, 2)) > 32).all()
    assert w[5, 1, 1] == 120 and (q.scale >= fine.scale).all()


@pytest.mark.parametrize("sign", [0, 1, -1])
def test_slots_of_windows_of_five_rows_add_up_in_16_bits(sign: int) -> None:
    """As the kernel puts rows of a column beside each other, for the upper and the lower of two windows."""
    windows = random((64, 1, 5, 5), 6)
    windows = sign * np.abs(windows) if sign else windows
    windows[5], windows[5, 0, 2, 2] = 0, 1
    fine = weight_qparams(windows, 0, 8, "max")
    q = reduce_range(fine, windows, 0, windows=True)
    w = np.rint(windows / q.scale.reshape(-1, 1, 1, 1)).astype(int)[:, 0]
    for lower in (0, 1):
        magnitudes = np.zeros((2, 64), int)
        for slot in range(15):
            column, row = divmod(slot, 3)
            meet = [w[:, r - lower, column] for r in (row, row + 3) if 0 <= r - lower < 5]
            for one_sign in (1, -1):
                assert int(sum(np.maximum(one_sign * v, 0) for v in meet).max()) <= 128
            magnitudes[slot % 2] += sum(np.abs(v) for v in meet)
        assert int(magnitudes.max()) <= 255
    assert (np.abs(w).max(axis=(1, 2)) > 16).all()
    assert w[5, 2, 2] == 125 and (q.scale >= fine.scale).all()


TRANSPOSED = """
g (float[N, 8, 6, 6] x) => (float[N, 4, 6, 6] y)
{
  t = ConvTranspose <group = 8, pads = [1, 1, 1, 1]> (x, w1)
  c = Conv <pads = [1, 1, 1, 1]> (t, w2)
  y = Conv <pads = [1, 1, 1, 1], group = 4> (c, w3)
}
"""
ONE_CHANNEL = """
g (float[N, 1, 6, 6] x) => (float[N, 4, 6, 6] y)
{
  y = Conv <pads = [1, 1, 1, 1]> (x, w1)
}
"""


@pytest.mark.parametrize(
    ("text", "shapes", "scales"),
    [
        (TRANSPOSED, {"w1": (8, 1, 3, 3), "w2": (4, 8, 3, 3), "w3": (4, 1, 3, 3)}, {"w1": 1, "w2": 4, "w3": 4}),
        (ONE_CHANNEL, {"w1": (4, 1, 3, 3)}, {"w1": 4}),
    ],
)
def test_only_depthwise_convolutions_have_windows(
    text: str, shapes: dict[str, tuple[int, ...]], scales: dict[str, int]
) -> None:
    """Same shape of weights, other axes or other products: as many scales as channels, and no bits lost for nothing."""
    m = graph(text, {name: random(shape, k) for k, (name, shape) in enumerate(shapes.items())})
    channels = 8 if text is TRANSPOSED else 1
    Calibrate(samples=[{"x": random((4, channels, 6, 6), k)} for k in range(3)])(m)
    InsertFakeQuant(reduce_range=True)(m)
    found = {}
    for node in m.graph:
        scale = constant(node.inputs[1]) if node.op_type == "QuantizeLinear" else None
        name = str(node.inputs[0].name) if node.inputs and node.inputs[0] is not None else ""
        if scale is not None and name in shapes:
            found[name] = scale.size
            if text is ONE_CHANNEL:
                weight = constant(node.inputs[0])
                assert weight is not None
                assert int(np.rint(np.abs(weight).max(axis=(1, 2, 3)) / scale).min()) > 100
    assert found == scales
