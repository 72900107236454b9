"""Solvers of assign-precision: the optimum is the optimum, budgets are kept, the closed form is the closed form."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from allocation_graphs import brute_force, problems
from hypothesis import given, settings

from mulshift.ir import UsageError
from mulshift.passes.allocation.problem import Problem
from mulshift.passes.allocation.solvers import SOLVERS, solve
from mulshift.passes.allocation.solvers.baq import real_bits, water_filling
from mulshift.passes.allocation.solvers.greedy import improved
from mulshift.passes.allocation.solvers.ilp import least_cost
from mulshift.passes.allocation.solvers.zeroq import frontier


@settings(max_examples=60)
@given(problems())
def test_the_program_finds_the_optimum(problem: Problem) -> None:
    expected, found = brute_force(problem), solve(problem, "ilp")
    if expected is None:
        assert found is None
    else:
        assert found is not None and problem.fits(found)
        # Sums of at most 5 losses in other orders.
        assert problem.total(found) == pytest.approx(expected, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("solver", SOLVERS)
@settings(max_examples=25)
@given(problem=problems())
def test_every_solver_keeps_every_budget(solver: str, problem: Problem) -> None:
    found = solve(problem, solver)
    assert (found is None) == (brute_force(problem) is None)
    if found is not None:
        assert problem.fits(found) and np.isfinite(problem.total(found))


@settings(max_examples=25)
@given(problems())
def test_the_least_cost_is_the_least(problem: Problem) -> None:
    for name in problem.limits:
        aim = replace(problem.without(name), loss=np.where(problem.allowed(), problem.costs[name], np.inf))
        assert least_cost(problem, name) == brute_force(aim)


@settings(max_examples=40)
@given(problems(candidates=3))
def test_the_frontier_of_one_budget_holds_the_optimum(problem: Problem) -> None:
    name = next(iter(problem.limits))
    single = replace(problem, limits={name: problem.limits[name]})
    found = solve(single, "zeroq")
    expected = brute_force(single)
    assert (found is None) == (expected is None)
    if found is not None:
        assert single.total(found) == pytest.approx(expected, rel=1e-12, abs=1e-12)


@settings(max_examples=40)
@given(problems())
def test_local_search_stays_within_and_never_loses(problem: Problem) -> None:
    found = solve(problem, "greedy")
    if found is not None:
        better = improved(problem, found)
        assert problem.fits(better) and problem.total(better) <= problem.total(found)


def test_the_frontier_is_thinned_to_its_bound_and_keeps_its_ends() -> None:
    rng = np.random.default_rng(0)
    problem = Problem(
        rng.random((16, 3)), {"size": rng.random((16, 3))}, {"size": 1.0}, np.array([8, 4, 2]), np.full(3, 8)
    )
    choices = frontier(problem, "size")
    costs = [problem.cost("size", c) for c in choices]
    assert len(choices) <= 4096 and costs == sorted(costs)
    assert costs[0] == pytest.approx(problem.costs["size"].min(axis=1).sum())
    assert problem.total(choices[-1]) == pytest.approx(problem.loss.min(axis=1).sum())


def test_closed_form_of_two_layers() -> None:
    """`a` 16 times as large is worth 1/2 log2 16 = 2 bits; the mean is the budget."""
    bits = np.array([8, 6, 4, 2])
    loss = np.array([[16.0], [1.0]]) * 4.0**-bits
    problem = Problem(loss, {"size": np.tile(bits.astype(float), (2, 1))}, {"size": 10.0}, bits, np.full(4, 8))
    assert real_bits(problem, np.arange(4)) == pytest.approx([6.0, 4.0])
    assert solve(problem, "baq").tolist() == [1, 2]


def test_closed_form_of_layers_of_different_size() -> None:
    """`b_i = B/N + 1/2 log2(a_i / n_i)` less its mean weighted by n, here without clamping."""
    a, n, total = np.array([4.0, 1.0, 0.25]), np.array([1.0, 2.0, 4.0]), 35.0
    level = np.log2(a / n) / 2
    expected = total / n.sum() + level - (n * level).sum() / n.sum()
    assert water_filling(level, n, total, -100.0, 100.0) == pytest.approx(expected)


def test_clamped_bits_leave_their_share_to_the_others() -> None:
    made = water_filling(np.array([10.0, 0.0, 0.0]), np.ones(3), 16.0, 2.0, 8.0)
    assert made == pytest.approx([8.0, 4.0, 4.0])


def test_uniform_and_in_order() -> None:
    bits = np.array([8, 4])
    loss, cost = np.array([[0.0, 1.0]] * 4), np.array([[8.0, 4.0]] * 4)
    problem = Problem(loss, {"size": cost}, {"size": 25.0}, bits, np.full(2, 8))
    assert solve(problem, "uniform").tolist() == [1, 1, 1, 1]
    assert solve(problem, "in-order").tolist() == [1, 1, 0, 0]


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_scales_do_not_matter(scale: float) -> None:
    """HiGHS has absolute tolerances; neither losses nor costs of other sizes may meet them."""
    rng = np.random.default_rng(1)
    loss, cost = rng.random((6, 3)) * np.array([1e-6, 1.0, 1e3])[rng.integers(0, 3, (6, 1))], rng.random((6, 3))
    limit = float(cost.mean(axis=1).sum())
    plain = Problem(loss, {"size": cost}, {"size": limit}, np.array([8, 4, 2]), np.full(3, 8))
    other = replace(plain, loss=loss * scale, costs={"size": cost * scale}, limits={"size": limit * scale})
    assert plain.total(solve(other)) == pytest.approx(brute_force(plain), rel=1e-12)


def test_two_hundred_layers_are_solved_and_beat_the_heuristics(capfd: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    bits, act = np.array([8, 4, 2, 8, 4, 2]), np.array([8, 8, 8, 4, 4, 4])
    n = np.exp(rng.normal(10, 1, 200)).round()
    loss = np.exp(rng.normal(-4, 2, 200))[:, None] * (4.0**-bits + 4.0**-act)
    costs = {"size": n[:, None] * bits / 8, "bops": n[:, None] * rng.integers(1, 99, (200, 1)) * bits * act}
    limits = {"size": 0.6 * costs["size"][:, 0].sum(), "bops": 0.5 * costs["bops"][:, 0].sum()}
    problem = Problem(loss, costs, limits, bits, act)
    found = {name: solve(problem, name) for name in SOLVERS}
    assert all(c is not None and problem.fits(c) for c in found.values())
    best = problem.total(found["ilp"])
    assert all(best <= problem.total(c) * (1 + 1e-9) for c in found.values())
    assert capfd.readouterr().out == ""


def test_an_unknown_solver() -> None:
    problem = Problem(np.zeros((1, 1)), {}, {}, np.array([8]), np.array([8]))
    with pytest.raises(UsageError, match="there is no 'magic'"):
        solve(problem, "magic")
