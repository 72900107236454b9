"""Losses behind a learned rounding: what they see, where weights stay rounded to nearest, which recipes ask for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import qdq_graphs as g
from allocation_graphs import calibrated, chain

from mulshift.assigning import rounding_of, with_budgets
from mulshift.ir import Feeds, UsageError
from mulshift.passes.allocation import output_rounding
from mulshift.passes.allocation.candidates import parse_candidates
from mulshift.passes.allocation.measurements import How, Measurements, measure
from mulshift.passes.recipe import load_recipe

CANDIDATES = parse_candidates(["w8a8", "w4a8", "w4g8a8", "w2a8", "w1a8"])
COUNT = 4


def feeds(count: int) -> list[Feeds]:
    """Neighbouring pixels and channels alike, as real images have them: then rounding errors can cancel."""
    rng = np.random.default_rng(0)
    base = rng.normal(size=(count, 2, 1, 1, 1)) + 0.3 * rng.normal(size=(count, 2, 3, 8, 8))
    return [{"x": x.astype(np.float32)} for x in base]


def table(samples: list[Feeds], sensitivity: str = "sqnr", rounding: str = "outputs", **more: object) -> Measurements:
    how = How(sensitivity, count=COUNT, rounding=rounding, **more)  # type: ignore[arg-type]
    return measure(calibrated(chain(), samples), samples, CANDIDATES, how)


@pytest.mark.parametrize("sensitivity", ["sqnr", "gradient"])
def test_fewer_bits_lose_less_behind_it_on_samples_that_it_did_not_see(sensitivity: str) -> None:
    samples = feeds(24)
    found, nearest = (table(samples, sensitivity, rounding) for rounding in ("outputs", "nearest"))
    for bits in ("w4a8", "w2a8"):
        assert sum(r[bits] for r in found.loss.values()) < 0.8 * sum(r[bits] for r in nearest.loss.values())


def test_hessian_sees_weights_alone_and_takes_the_nearest() -> None:
    samples = feeds(8)
    assert table(samples, "hessian").loss == table(samples, "hessian", "nearest").loss


def test_layers_in_parts_are_rounded_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """Second moments of one layer at a time, and of all."""
    samples = feeds(8)
    whole = table(samples).loss
    monkeypatch.setattr(output_rounding, "ENERGY_BYTES", 1)
    assert table(samples).loss == whole


def test_what_a_killed_run_rounded_is_used_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = feeds(8)
    expected = table(samples).loss
    rounded = output_rounding._rounded
    calls = 0

    def killed(*arguments: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 7:
            raise KeyboardInterrupt
        return rounded(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(output_rounding, "_rounded", killed)
    with pytest.raises(KeyboardInterrupt):
        table(samples, workspace=tmp_path)
    monkeypatch.setattr(output_rounding, "_rounded", rounded)
    assert len(list(tmp_path.glob("*/rounded/*.npy"))) == 5
    assert table(samples, workspace=tmp_path).loss == expected


def test_products_that_it_cannot_round_keep_the_nearest() -> None:
    body = "{ y = ConvTranspose(x, w) }"
    samples = [{"x": g.normal(1, 3, 4, 4, seed=i)} for i in range(8)]
    model = calibrated(
        g.graph(f"(float[1, 3, 4, 4] x) => (float[1, 2, 6, 6] y) {body}", {"w": g.normal(3, 2, 3, 3)}), samples
    )
    found = [measure(model, samples, CANDIDATES, How("sqnr", rounding=r)).loss for r in ("outputs", "nearest")]
    assert found[0] == found[1]


@pytest.mark.parametrize("kind", ["2:4", "2:4:shared"])
def test_zeros_are_chosen_and_made_good_too(kind: str, tmp_path: Path) -> None:
    """The pattern holds, what stays is on the grid, and the loss is below that of the largest weights to nearest."""
    samples, candidates = feeds(16), parse_candidates(["w8a8", f"w8a8:{kind}", f"w4a8:{kind}"])
    model = calibrated(chain(), samples)
    found = [
        measure(model, samples, candidates, How("sqnr", COUNT, rounding=rounding, workspace=tmp_path))
        for rounding in ("outputs", "nearest")
    ]
    (group,) = [g for g in found[0].groups if g.may_have(candidates[1])]  # 3 and 6 input channels are none
    for candidate in map(str, candidates[1:]):
        assert found[0].loss[group.name][candidate] < 0.8 * found[1].loss[group.name][candidate]


def test_a_recipe_says_which() -> None:
    assert rounding_of(load_recipe("int8")) == "outputs"  # round-weights
    assert rounding_of(load_recipe("int8-transformer")) == "nearest"
    assert rounding_of(load_recipe("int8-transformer"), ["w8a8", "w8a8:2:4"]) == "outputs"  # sparsify is learned
    step = next(s for s in with_budgets(load_recipe("int8"), ["size=0.6"]).passes if s.name == "assign-precision")
    assert step.options == {"budgets": ["size=0.6"], "rounding": "outputs"}


def test_no_such_rounding() -> None:
    with pytest.raises(UsageError, match="rounding is 'up'"):
        How(rounding="up")
