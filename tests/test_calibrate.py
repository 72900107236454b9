"""calibrate: ranges on every float activation, in constant memory, and one clear line for bad data."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from float_graphs import graph, random

from mulshift.ir import DataError, Feeds, Interpreter, UsageError, get_range
from mulshift.passes.calibrate import Calibrate, get_extremes
from mulshift.passes.observers import METHODS

TEXT = """
g (float[N, 3, 6, 6] x, int64[1] k) => (float[N, 4, 6, 6] y, int64[1] n)
{
  h = Conv <pads = [1, 1, 1, 1]> (x, w)
  r = Relu (h)
  y = Mul (r, r)
  n = Add (k, k)
}
"""


def model() -> ir.Model:
    return graph(TEXT, {"w": random((4, 3, 3, 3))})


def samples(count: int = 3) -> list[Feeds]:
    return [{"x": random((2, 3, 6, 6), seed), "k": np.asarray([seed])} for seed in range(count)]


def values(m: ir.Model) -> dict[str, ir.Value]:
    found = [*m.graph.inputs, *(v for n in m.graph for v in n.outputs)]
    return {str(v.name): v for v in found}


def calibrated(**options: Any) -> dict[str, tuple[float, float] | None]:
    m = model()
    Calibrate(**{"samples": samples()} | options)(m)
    return {name: get_range(v) for name, v in values(m).items()}


def test_min_max_is_that_of_every_float_value() -> None:
    m = model()
    low: dict[str, float] = {}
    high: dict[str, float] = {}

    def observe(value: ir.Value, tensor: torch.Tensor) -> None:
        if tensor.is_floating_point():
            low[str(value.name)] = min(low.get(str(value.name), np.inf), float(tensor.min()))
            high[str(value.name)] = max(high.get(str(value.name), -np.inf), float(tensor.max()))

    for feeds in samples():
        Interpreter(m).run(feeds, observe)
    assert Calibrate(samples=samples())(m).modified
    for name, value in values(m).items():
        expected = (low[name], high[name]) if name in low else None
        assert get_range(value) == expected, name
        assert get_extremes(value) == expected, name
    assert set(low) == {"x", "h", "r", "y"}


def test_it_changes_no_number_and_a_second_run_nothing() -> None:
    m = model()
    before = Interpreter(m).run(samples()[0])["y"]
    Calibrate(samples=samples(), method="mse")(m)
    assert torch.equal(Interpreter(m).run(samples()[0])["y"], before)
    assert not Calibrate(samples=samples(), method="mse")(m).modified


@pytest.mark.parametrize("method", sorted(METHODS))
def test_ranges_lie_in_the_extremes_which_stay(method: str) -> None:
    m = model()
    Calibrate(samples=samples(), method=method)(m)
    for name in ("x", "h", "r", "y"):
        found, extremes = get_range(values(m)[name]), get_extremes(values(m)[name])
        assert found is not None
        assert extremes is not None
        assert extremes[0] <= found[0] < found[1] <= extremes[1]


def test_percent_is_taken() -> None:
    narrow, wide = (calibrated(method="percentile", percent=p)["h"] for p in (80.0, 100.0))
    assert narrow is not None
    assert wide is not None
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


@pytest.mark.parametrize("key", ["Conv", "node_h", "h"])
def test_a_method_can_be_chosen_by_operator_node_and_value(key: str) -> None:
    m = model()
    values(m)["h"].producer().name = "node_h"  # type: ignore[union-attr]
    Calibrate(samples=samples(), method="min-max", overrides={key: "percentile"}, percent=80.0)(m)
    found, base = get_range(values(m)["h"]), calibrated()
    assert found != base["h"]
    assert get_range(values(m)["r"]) == base["r"]


def test_inputs_have_a_key_too() -> None:
    assert calibrated(overrides={"inputs": "percentile"}, percent=80.0)["x"] != calibrated()["x"]


def test_it_keeps_no_sample() -> None:
    alive: list[weakref.ref[Any]] = []

    def stream() -> Iterator[Feeds]:
        for seed in range(8):
            array = random((2, 3, 6, 6), seed)
            alive.append(weakref.ref(array))
            feeds = {"x": array, "k": np.asarray([0])}
            del array
            yield feeds
            del feeds
            assert sum(r() is not None for r in alive) <= 1

    m = model()
    Calibrate(samples=stream(), method="mse")(m)
    assert len(alive) == 8


def test_progress_tells_how_far_it_is() -> None:
    seen: list[tuple[int, int | None]] = []
    calibrated(progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]
    seen.clear()
    calibrated(samples=iter(samples()), progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, None), (2, None), (3, None)]


def bad(**changed: Any) -> list[Feeds]:
    return [samples()[0], {k: v for k, v in {**samples()[1], **changed}.items() if v is not None}]


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ([], "holds no sample"),
        (bad(x=None), "has the names ['k']"),
        (bad(z=np.zeros(1)), "has the names ['k', 'x', 'z']"),
        (bad(x=random((2, 3, 6, 6)).astype(np.float64)), "'x' has type float64"),
        (bad(x=random((3, 6, 6))), "'x' has shape [3, 6, 6]"),
        (bad(x=random((2, 4, 6, 6))), "'x' has shape [2, 4, 6, 6]"),
        (bad(x=np.full((1, 3, 6, 6), np.nan, np.float32)), "'x' holds NaN"),
        (bad(x=np.full((1, 3, 6, 6), np.inf, np.float32)), "'x' holds NaN or infinity"),
        ([np.zeros(3)], "is a ndarray, not a mapping"),
    ],
)
def test_bad_data_gets_one_line(data: list[Any], told: str) -> None:
    with pytest.raises(DataError) as e:
        calibrated(samples=data)
    assert told in str(e.value)
    assert "\n" not in str(e.value)
    if "names" in told or "type" in told or "shape" in told:
        assert "the model expects 'x' float32 [N, 3, 6, 6], 'k' int64 [1]" in str(e.value)


def test_a_value_that_becomes_infinite_is_told_with_its_node() -> None:
    m = graph("g (float[2] x) => (float[2] y) { h = Exp (x) y = Neg (h) }")
    with pytest.raises(DataError, match=r"node '.*' \(Exp.*'h' becomes NaN or infinite"):
        Calibrate(samples=[{"x": np.asarray([1.0, 1000.0], np.float32)}])(m)


@pytest.mark.parametrize(
    "options", [{"method": "guess"}, {"overrides": {"Conv": "guess"}}, {"percent": 10.0}, {"bins": 1000}, {"bins": 2}]
)
def test_unknown_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        calibrated(**options)
