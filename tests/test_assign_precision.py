"""assign-precision: budgets from text to nodes, one line where they cannot be met, metrics, the front and its plot."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from allocation_graphs import CHAIN, CONSTANTS, SAMPLES, chain
from qdq_graphs import graph

from mulshift.ir import Interpreter, Level, UsageError, set_level
from mulshift.passes import PASSES
from mulshift.passes.allocation.budget import Budget, parse_budgets
from mulshift.passes.allocation.candidates import DEFAULT, parse_candidates
from mulshift.passes.allocation.choice import choose
from mulshift.passes.allocation.costs import Latencies
from mulshift.passes.allocation.front import pareto
from mulshift.passes.allocation.measurements import How, Measurements, measure
from mulshift.passes.allocation.metric import Runner, allowed_loss
from mulshift.passes.allocation.plot import front_svg
from mulshift.passes.assign_precision import AssignPrecision
from mulshift.passes.pipeline import Pipeline
from mulshift.passes.precision import Precision, precision_of
from mulshift.passes.recipe import load_recipe


@pytest.fixture(scope="module")
def measured() -> Measurements:
    found = measure(chain(), SAMPLES, parse_candidates(DEFAULT), How(count=2))
    times = {g.name: {"w8a8": 4e-6, "w4a8": 3e-6, "w2a8": 2e-6} for g in found.groups}
    return Measurements(found.groups, found.candidates, "gradient", found.loss, found.macs, Latencies(times, 20e-6))


def precisions(model: object) -> dict[str, str]:
    return {str(n.name): str(p) for n in model.graph if (p := precision_of(n)) is not None}  # type: ignore[attr-defined]


def test_it_writes_the_bits_on_products_and_nothing_else() -> None:
    model = chain()
    before = Interpreter(model).run(SAMPLES[0])["y"]
    made = AssignPrecision(budgets=["size=0.6"], samples=SAMPLES, count=2)
    made(model)
    found = precisions(model)
    assert list(found) == ["Conv_0", "Conv_2", "Gemm_6"]
    bits = {"Conv_0": 216, "Conv_2": 432, "Gemm_6": 30}
    assert sum(n * Precision.parse(found[name]).weights for name, n in bits.items()) <= 0.6 * 8 * sum(bits.values())
    assert len(made.log.changed) == 3
    assert (Interpreter(model).run(SAMPLES[0])["y"] == before).all()
    again = AssignPrecision(budgets=["size=0.6"], samples=SAMPLES, count=2)
    assert not again(model).modified and precisions(model) == found


def test_without_budgets_all_stay_at_their_best() -> None:
    model = chain()
    AssignPrecision(samples=SAMPLES, count=1)(model)
    assert set(precisions(model).values()) == {"w8a8"}


def test_in_a_pipeline_it_is_exact_and_given_decides_without_measuring() -> None:
    recipe = {
        "name": "mixed",
        "passes": [
            {"pass": "calibrate"},
            {"pass": "assign-precision", "options": {"budgets": ["size=0.5"], "candidates": ["w8a8", "w4a8"]}},
        ],
    }
    result = Pipeline(recipe).run(graph(CHAIN, CONSTANTS), SAMPLES)
    assert set(precisions(result.model).values()) == {"w4a8"}
    recipe["passes"][1] = {"pass": "assign-precision", "options": {"given": {"Conv_2": "w2a8"}}}  # type: ignore[index]
    result = Pipeline(load_recipe(recipe)).run(graph(CHAIN, CONSTANTS), SAMPLES)
    assert precisions(result.model) == {"Conv_2": "w2a8"}


def test_skipped_products_get_none() -> None:
    model = chain()
    AssignPrecision(samples=SAMPLES, count=1, skip=["Gemm*"])(model)
    assert list(precisions(model)) == ["Conv_0", "Conv_2"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"solver": "magic"}, "no solver 'magic'"),
        ({"budgets": ["latency=0.5"]}, "a budget on latency needs times"),
        ({"budgets": ["top1=-1"]}, "no cost 'top1'"),
        ({"given": {"nothing": "w4a8"}}, "no product 'nothing'"),
    ],
)
def test_options_that_cannot_be(options: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        AssignPrecision(samples=SAMPLES, count=1, **options)(chain())  # type: ignore[arg-type]


def test_a_quantized_graph_is_refused() -> None:
    model = chain()
    set_level(model, Level.QDQ)
    with pytest.raises(UsageError, match="quantized already"):
        PASSES["assign-precision"]()(model)


# Budgets -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("size=0.5", 339.0),
        ("size=.3kB", 300.0),
        ("size=1e-3MB", 1000.0),
        ("latency=19us", 19e-6),
        ("latency=0.5", 1e-5),
    ],
)
def test_limits(text: str, limit: float, measured: Measurements) -> None:
    (budget,) = parse_budgets([text])
    assert budget.limit(measured) == pytest.approx(limit)
    assert parse_budgets([str(budget)]) == (budget,)


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["size"], "is not NAME=VALUE"),
        (["size=much"], "is not NAME=VALUE"),
        (["weight=1"], "no cost 'weight'"),
        (["size=3ms"], "no unit 'ms'"),
        (["size=0"], "is not positive"),
        (["size=-0.5"], "is not positive"),
        (["size=0.5", "size=0.6"], "was given already"),
    ],
)
def test_budgets_that_cannot_be_read(texts: list[str], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        parse_budgets(texts)


def test_a_metric_is_a_budget_only_where_it_can_be_evaluated() -> None:
    assert parse_budgets(["top1=-1.0"], metrics=True) == (Budget("top1", -1.0),)


def test_latency_counts_what_no_choice_changes(measured: Measurements) -> None:
    """20 us in all, 12 of them in products: three 4-bit products make 17 us."""
    found = choose(measured, parse_budgets(["latency=17us", "size=0.5"]))
    assert found.costs["latency"] <= 17e-6 * (1 + 1e-9)
    assert measured.reference("latency") == pytest.approx(20e-6)


@pytest.mark.parametrize(
    ("budgets", "words"),
    [
        (["size=0.2"], r"infeasible because size=0.2 cannot be met: the least is 0.251, at bops=0.2\d* and latency"),
        (
            ["latency=0.5"],
            r"infeasible because latency=0.5 cannot be met: the least is 0.7, at size=.*give latency=0.7 or",
        ),
        (["size=100B"], "size=100B cannot be met: the least is 170B"),
    ],
)
def test_one_budget_that_cannot_be_met(budgets: list[str], words: str, measured: Measurements) -> None:
    with pytest.raises(UsageError, match=words):
        choose(measured, parse_budgets(budgets))


def test_two_budgets_that_cannot_be_met_together() -> None:
    """The small group is fast only at 8 bits: each budget alone can be met. What the line offers can be met."""
    found = measure(chain(), SAMPLES, parse_candidates(["w8a8", "w4a8"]), How(count=1))
    times = {g.name: {"w8a8": 1e-6, "w4a8": 3e-6} for g in found.groups}
    odd = Measurements(found.groups, found.candidates, "gradient", found.loss, found.macs, Latencies(times, 3e-6))
    with pytest.raises(UsageError, match=r"because size=0.6 cannot be met with latency=1.1: the least is 1") as told:
        choose(odd, parse_budgets(["size=0.6", "latency=1.1"]))
    assert "give size=1 or more" in str(told.value)
    choose(odd, parse_budgets(["size=1", "latency=1.1"]))


# Metrics -------------------------------------------------------------------------------------------------------------


def test_allowed_loss_is_read_off_a_falling_line() -> None:
    points = [(1.0, -1.0), (2.0, -4.0)]
    assert allowed_loss(points, -0.5) == pytest.approx(0.5)
    assert allowed_loss(points, -2.5) == pytest.approx(1.5)
    assert allowed_loss(points, -9.0) == 2.0
    assert allowed_loss([(1.0, 0.5), (2.0, -1.0)], -0.5) == pytest.approx(1.5)


def closeness(run: Runner) -> dict[str, float]:
    """A metric that rounding lowers: SQNR in dB against the float outputs, capped at 60."""
    reference = Interpreter(chain())
    noise = signal = 0.0
    for feeds in SAMPLES:
        expected = reference.run(feeds)["y"].numpy().astype(np.float64)
        noise += float(((run(feeds)["y"] - expected) ** 2).sum())
        signal += float((expected**2).sum())
    return {"db": min(60.0, 10 * np.log10(signal / max(noise, 1e-30)))}


def test_a_budget_on_a_metric_is_kept_by_the_smallest_model_that_is_found() -> None:
    made = AssignPrecision(budgets=["db=-40"], samples=SAMPLES, count=4, evaluate=closeness)
    measured, found = made.decide(chain())
    from mulshift.passes.allocation.metric import simulated

    assert closeness(simulated(chain(), measured, found))["db"] >= 20
    assert 0.25 < found.shares["size"] < 0.8  # neither everything at 2 bits nor nothing


def test_a_metric_that_a_cost_forbids() -> None:
    made = AssignPrecision(budgets=["db=-20", "size=0.3"], samples=SAMPLES, count=2, evaluate=closeness)
    with pytest.raises(UsageError, match=r"infeasible because db=-20 cannot be met: the best found reaches db=-"):
        made.decide(chain())
    with pytest.raises(UsageError, match="no metric 'top1'; there is db"):
        AssignPrecision(budgets=["top1=-1"], samples=SAMPLES, count=1, evaluate=closeness).decide(chain())


# Front ---------------------------------------------------------------------------------------------------------------


def test_the_front_falls_and_starts_with_the_least(measured: Measurements) -> None:
    for cost in ("size", "bops", "latency"):
        front = pareto(measured, cost, points=8)
        costs, losses = [p.cost for p in front], [p.loss for p in front]
        assert costs == sorted(costs) and losses == sorted(losses, reverse=True) and len(set(costs)) == len(costs)
        assert losses[-1] == pytest.approx(choose(measured).loss)
    with pytest.raises(UsageError, match="is not known here"):
        pareto(measured, "price")


def test_every_point_of_the_front_is_optimal_at_its_cost(measured: Measurements) -> None:
    for point in pareto(measured, "size", points=8):
        assert choose(measured, [Budget("size", point.cost)]).loss == pytest.approx(point.loss)


def test_the_plot_is_xml_with_every_point(measured: Measurements, tmp_path: Path) -> None:
    points = [(p.cost, p.loss) for p in pareto(measured, points=6)]
    drawn = ElementTree.fromstring(front_svg({"a < b": points}, "size & more", "loss"))
    names = [element.tag.rpartition("}")[2] for element in drawn.iter()]
    assert names.count("circle") == len(points)
    assert ElementTree.fromstring(front_svg({}, "x", "y")).tag.endswith("svg")
