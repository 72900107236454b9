"""2:4 among the candidates of assign-precision: what a pattern costs, which groups may have it, what is written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from allocation_graphs import CHAIN, CONSTANTS, SAMPLES, chain
from hypothesis import given, settings
from hypothesis import strategies as st
from qdq_graphs import graph

import mulshift
from mulshift.assigning import decided, precisions
from mulshift.ir import Level, UsageError
from mulshift.passes.allocation.candidates import (
    KINDS,
    Candidate,
    candidate_of,
    parse_candidates,
    varies_activations,
)
from mulshift.passes.allocation.choice import choose
from mulshift.passes.allocation.costs import Facts, bit_operations, weight_bytes
from mulshift.passes.allocation.groups import find_products, group_products
from mulshift.passes.allocation.measurements import How, measure
from mulshift.passes.allocation.sensitivity import SENSITIVITIES
from mulshift.passes.allocation.solvers import SOLVERS
from mulshift.passes.assign_precision import AssignPrecision
from mulshift.passes.pipeline import Pipeline
from mulshift.passes.recipe import load_recipe
from mulshift.passes.sparsity.found import pattern_of
from mulshift.passes.sparsity.pattern import Sparsity, sparsity_of

TEXTS = ("w8a8", "w8a8:2:4", "w4a8", "w8a8:2:4:shared", "w4a8:2:4")


@pytest.mark.parametrize("text", TEXTS)
def test_text_of_a_candidate(text: str) -> None:
    assert str(Candidate.parse(text)) == text


def test_dense_comes_first_of_equal_bits() -> None:
    found = [str(c) for c in parse_candidates(reversed(TEXTS))]
    assert found == ["w8a8", "w8a8:2:4", "w8a8:2:4:shared", "w4a8", "w4a8:2:4"]
    assert not varies_activations(parse_candidates(TEXTS))


def test_there_is_no_other_kind() -> None:
    with pytest.raises(UsageError, match="there is no kind '1:4'"):
        Candidate.parse("w8a8:1:4")


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(["2:4", "2:4:shared"]),
    st.sampled_from([(7, 8), (70, 12), (5, 4, 3, 3), (130, 8, 1, 1)]),
    st.booleans(),
    st.integers(0, 2**31),
)
def test_the_largest_stay(kind: str, shape: tuple[int, ...], turned: bool, seed: int) -> None:
    w = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    axis = 1 if turned and w.ndim == 2 else 0
    w = w.T if axis else w
    made = KINDS[kind].weights(w, axis, Candidate.parse("w8a8").precision)
    found = pattern_of(made, axis)
    assert found is not None and (kind == "2:4" or found.across == Sparsity.parse(kind).across)
    if kind == "2:4":  # magnitudes alone decide: what goes is never larger than what stays in its four
        runs = [np.moveaxis(a, (axis, 1 - axis), (0, -1)).reshape(-1, 4) for a in (np.abs(w), made != 0)]
        largest = np.sort(runs[0], axis=1)[:, 2]
        assert (runs[0][runs[1]] >= np.repeat(largest[:, None], 4, 1)[runs[1]]).all()
    lost = ((made - w) ** 2).sum() / (w**2).sum()
    assert lost < (0.35 if kind == "2:4" else 0.75)  # magnitude keeps most of the energy


def test_stored_bits_are_those_of_the_layouts() -> None:
    assert [KINDS["dense"].stored(b) for b in (8, 4, 2)] == [8, 4, 2]
    assert [KINDS["2:4"].stored(b) for b in (8, 4, 2)] == [5, 3, 3]
    assert [KINDS["2:4:shared"].stored(b) for b in (8, 4)] == [4.0625, 2.0625]


def test_costs_count_positions_and_density() -> None:
    model = chain()
    groups = group_products(find_products(model.graph), parse_candidates(TEXTS))
    facts = Facts({"Conv_2": 1000})
    middle = groups[1]  # 6 x 8 x 3 x 3
    sizes = {t: weight_bytes(middle, Candidate.parse(t), facts) for t in TEXTS}
    assert sizes == {"w8a8": 432, "w8a8:2:4": 270, "w4a8": 216, "w8a8:2:4:shared": 220, "w4a8:2:4": 162}
    assert bit_operations(middle, Candidate.parse("w8a8:2:4"), facts) == 32000


def test_groups_whose_shape_cannot_have_it_do_not_get_it() -> None:
    groups = group_products(find_products(chain().graph), parse_candidates(TEXTS))
    pattern = Candidate.parse("w8a8:2:4")
    assert [g.may_have(pattern) for g in groups] == [False, True, False]  # 3, 8 and 6 input channels
    assert not groups[1].may_have(Candidate.parse("w1a8:2:4"))  # one bit has no zero
    with pytest.raises(UsageError, match=r"'Conv_0' can have none of them, its weights are \[8, 3, 3, 3\]"):
        measure(chain(), SAMPLES, (pattern,), How(count=1))


@pytest.mark.parametrize("sensitivity", SENSITIVITIES)
def test_every_sensitivity_measures_them(sensitivity: str) -> None:
    found = measure(chain(), SAMPLES, parse_candidates(TEXTS), How(sensitivity, count=1, probes=1))
    assert set(found.loss["Conv_0"]) == {"w8a8", "w4a8"} and set(found.loss["Conv_2"]) == set(TEXTS)
    row = found.loss["Conv_2"]
    assert row["w8a8"] < row["w8a8:2:4"] <= row["w4a8:2:4"] and row["w8a8"] <= row["w8a8:2:4:shared"]
    assert type(found).parse(found.text()) == found


@pytest.mark.parametrize("solver", SOLVERS)
def test_every_solver_chooses_among_them(solver: str) -> None:
    from mulshift.passes.allocation.budget import parse_budgets

    found = measure(chain(), SAMPLES, parse_candidates(TEXTS), How(count=1, probes=1))
    made = choose(found, parse_budgets(["size=0.45"]), solver)
    assert made.shares["size"] <= 0.45 and all(str(made.chosen[g.name]) in found.loss[g.name] for g in found.groups)


def test_the_decision_is_on_the_nodes_and_in_the_recipe(tmp_path: Path) -> None:
    candidates = ["w8a8", "w8a8:2:4"]
    options = {"candidates": candidates, "budgets": ["bops=0.9"]}
    steps = [{"pass": "calibrate"}, {"pass": "assign-precision", "options": options}]
    recipe = load_recipe({"name": "zeros", "passes": steps})
    made = Pipeline(recipe).run(graph(CHAIN, CONSTANTS), SAMPLES).levels[Level.FLOAT]
    nodes = {str(n.name): n for n in made.graph}
    assert sparsity_of(nodes["Conv_2"]) == Sparsity() and sparsity_of(nodes["Conv_0"]) is None
    assert candidate_of(nodes["Conv_2"]) == Candidate.parse("w8a8:2:4")
    given_ = decided(recipe, made).passes[1].options["given"]
    assert given_ == precisions(made) == {"Conv_0": "w8a8", "Conv_2": "w8a8:2:4", "Gemm_6": "w8a8"}
    again = Pipeline(decided(recipe, made)).run(graph(CHAIN, CONSTANTS), SAMPLES).levels[Level.FLOAT]
    assert precisions(again) == given_
    AssignPrecision(given={"Conv_2": "w4a8"})(again)
    assert sparsity_of(next(n for n in again.graph if n.name == "Conv_2")) is None


def test_compile_prunes_what_was_chosen(tmp_path: Path) -> None:
    """And a replay, which measures nothing, gives the same bytes."""
    options = {"budgets": ["bops=0.9"], "candidates": ["w8a8", "w8a8:2:4"], "sparse_kernels": "all"}
    made = mulshift.compile(graph(CHAIN, CONSTANTS), SAMPLES, recipe="int8", output=tmp_path / "out", **options)  # type: ignore[arg-type]
    found = {r.node: (r.precision, r.sparsity) for r in made.report.layers if r.density is not None}
    assert found == {"Conv_0": ("w8a8", None), "Conv_2": ("w8a8:2:4", "2:4"), "Gemm_6": ("w8a8", None)}
    assert made.report.verification.differences == 0
    assert [p.name for p in made.report.passes].count("calibrate") == 2
    again = mulshift.replay(tmp_path / "out", graph(CHAIN, CONSTANTS), SAMPLES)
    assert again.same, again.differences


def test_candidates_without_a_budget_are_refused() -> None:
    with pytest.raises(UsageError, match="there is no budget"):
        mulshift.compile(graph(CHAIN, CONSTANTS), SAMPLES, candidates=["w8a8"])
