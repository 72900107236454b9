"""Where the extremes of an activation lie: what is noted and shown, and when position 0 is left out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from float_graphs import graph, random

import mulshift
from mulshift.ir import Array, Feeds, UsageError, get_range
from mulshift.passes.calibrate import Calibrate, get_extremes
from mulshift.passes.outliers import OUTLIERS, OutlierRatios, Outliers, worst_outliers

TEXT = "g (float[1, 12, 6] x) => (float[1, 12, 4] y) { h = Relu (x) y = MatMul (h, w) }"


def sample(sink: float, seed: int = 0, rows: int = 12) -> Array:
    """Noise in [-1, 1]; one element of position 0 is `sink`."""
    x = random((1, rows, 6), seed)
    x[0, 1, 0], x[0, 0, 2] = 1.0, sink
    return x


def calibrated(feeds: list[Feeds], **options: Any) -> tuple[ir.Model, Calibrate]:
    m = graph(TEXT, {"w": random((6, 4), 9)})
    step = Calibrate(samples=feeds, **options)
    step(m)
    return m, step


def ratios(m: ir.Model, name: str) -> dict[str, float | None]:
    values = {str(v.name): v for v in [*m.graph.inputs, *(v for n in m.graph for v in n.outputs)]}
    return dict(json.loads(values[name].metadata_props[OUTLIERS]))


def test_statistic_equals_that_of_all_tensors_together() -> None:
    tensors = [torch.from_numpy(random((2, 3, n, 5), n)) for n in (4, 7, 9)]
    seen = Outliers()
    for t in tensors:
        seen.update(t)
    first = torch.cat([t[..., 0, :].reshape(-1) for t in tensors]).abs().max()
    rest = torch.cat([t[..., 1:, :].reshape(-1) for t in tensors]).abs().max()
    largest = torch.cat([t.reshape(-1, 5) for t in tensors]).abs().amax(0).double().numpy()
    assert seen.position == float(first) / float(rest)
    assert seen.channel == largest.max() / np.median(largest)


@pytest.mark.parametrize("shape", [(6,), (4, 1, 6), (1, 6), ()])
def test_a_single_position_is_none(shape: tuple[int, ...]) -> None:
    seen = Outliers()
    seen.update(torch.ones(shape))
    assert (seen.position, seen.channel) == (None, None)


def test_channels_of_varying_number_have_no_ratio() -> None:
    seen = Outliers()
    for n in (3, 5, 5):
        seen.update(torch.ones(2, n, n))
    assert (seen.position, seen.channel) == (1.0, None)


def test_position_0_is_noted_and_a_range_stays() -> None:
    feeds = [{"x": sample(153.0)}, {"x": sample(1.0, 1)}]
    m, step = calibrated(feeds)
    assert ratios(m, "x")["position"] == pytest.approx(153, rel=1e-3)  # 4 digits are kept
    assert ratios(m, "x")["channel"] == pytest.approx(153, rel=0.2)  # the median channel reaches nearly 1
    notes = {n.where: n.what for n in step.log.changed}
    assert notes["x"].endswith("(min-max), position 0 is 153x the rest")
    x = m.graph.inputs[0]
    assert get_range(x) == get_extremes(x)
    before = dict(x.metadata_props)
    assert not Calibrate(samples=feeds)(m).modified
    assert dict(x.metadata_props) == before


def test_flat_values_are_not_mentioned() -> None:
    _, step = calibrated([{"x": sample(1.0)}])
    assert not any("position 0" in n.what for n in step.log.changed)


def few_and_many(sink: float, rest: int) -> Outliers:
    seen = Outliers(counted=True)
    x = torch.from_numpy(random((1, rest, 6), 3))
    x[0, 1, 0], x[0, 0] = 1.0, 0.0
    x[0, 0, 2] = sink
    seen.update(x)
    return seen


def test_position_0_is_left_out_only_where_that_lowers_the_error() -> None:
    """Rounding costs 6 rest (20 / 255)^2 / 12 on the others, clipping (20 - 1)^2 once: even at about 120000 rows."""
    assert few_and_many(20.0, 2_000).without_first(-1.0, 20.0) is None
    found = few_and_many(20.0, 200_000).without_first(-1.0, 20.0)
    assert found is not None
    assert found == pytest.approx((-1.0, 1.0), abs=1e-3)


@pytest.mark.parametrize(("rows", "apart"), [(12, False), (150_000, True)])
def test_apart(rows: int, apart: bool) -> None:
    text = "g (float[1, n, 6] x) => (float[1, n, 6] y) { y = Relu (x) }"
    m = graph(text)
    x = sample(20.0, rows=rows)
    x[0, 0, [0, 1, 3, 4, 5]] = 0.0
    step = Calibrate(samples=[{"x": x}], first_token="apart")
    step(m)
    found = get_range(m.graph.inputs[0])
    assert found is not None
    assert found[1] == pytest.approx(1.0 if apart else 20.0)
    assert get_extremes(m.graph.inputs[0]) == (float(x.min()), 20.0)
    assert any("left out" in n.what for n in step.log.changed) == apart
    percentile = Calibrate(samples=[{"x": x}], first_token="apart", method="percentile", percent=100.0)
    percentile(m)
    assert not any("left out" in n.what for n in percentile.log.changed)


def test_worst_first() -> None:
    m, _ = calibrated([{"x": sample(50.0)}])
    found = worst_outliers(m)
    assert found[0].name in ("x", "h")
    assert [f.worst for f in found] == sorted((f.worst for f in found), reverse=True)
    assert worst_outliers(m, least=1000.0) == ()
    assert len(worst_outliers(m, least=1.0, most=1)) == 1
    assert OutlierRatios("v", None, 3.0).worst == 3.0


def test_inspect_and_report_show_them(tmp_path: Path) -> None:
    m = graph(TEXT, {"w": random((6, 4), 9)})
    made = mulshift.compile(m, [{"x": sample(153.0)}], recipe="int8-fast", output=tmp_path / "a")
    (row, *_) = made.report.outliers
    assert row.name in ("x", "h")
    assert row.position == pytest.approx(153, rel=1e-3)
    assert mulshift.inspect(tmp_path / "a").outliers[0] == OutlierRatios(row.name, row.position, row.channel)
    assert mulshift.inspect(calibrated([{"x": sample(153.0)}])[0]).outliers


def test_inspect_prints_a_section(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from mulshift.cli import run_command

    ir.save(calibrated([{"x": sample(153.0)}])[0], tmp_path / "net.onnx")
    assert run_command(["inspect", str(tmp_path / "net.onnx")]) == 0
    shown = capsys.readouterr().out
    assert "position 0 / rest" in shown
    assert "153x" in shown
    assert run_command(["inspect", str(tmp_path / "net.onnx"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["outliers"][0]["position"] == pytest.approx(153, rel=1e-3)


@pytest.mark.parametrize("options", [{"first_token": "alone"}, {"sink_ratio": 1.0}])
def test_wrong_options(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        calibrated([{"x": sample(1.0)}], **options)
