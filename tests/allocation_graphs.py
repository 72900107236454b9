"""Small calibrated float graphs, and random problems, for the tests of assign-precision."""

from __future__ import annotations

import itertools

import numpy as np
import onnx_ir as ir
import qdq_graphs as g
from hypothesis import strategies as st

from mulshift.ir import Array, Feeds
from mulshift.passes.allocation.problem import Problem
from mulshift.passes.calibrate import Calibrate

CHAIN = """(float[2, 3, 8, 8] x) => (float[2, 5] y) {
    a = Conv <pads=[1,1,1,1]> (x, w1, b1)  r = Relu(a)
    c = Conv <pads=[1,1,1,1]> (r, w2)      s = Relu(c)
    p = GlobalAveragePool(s)  f = Flatten(p)  y = Gemm <transB=1> (f, w3, b3)
}"""
CONSTANTS: dict[str, Array] = {
    "w1": g.normal(8, 3, 3, 3, seed=1), "b1": g.normal(8, seed=2), "w2": g.normal(6, 8, 3, 3, seed=3),
    "w3": g.normal(5, 6, seed=4), "b3": g.normal(5, seed=5),
}  # fmt: skip
SAMPLES: list[Feeds] = [{"x": g.normal(2, 3, 8, 8, seed=10 + i)} for i in range(6)]


def chain() -> ir.Model:
    """Two convolutions and a Gemm, calibrated."""
    return calibrated(g.graph(CHAIN, CONSTANTS), SAMPLES)


def calibrated(model: ir.Model, samples: list[Feeds]) -> ir.Model:
    """With ranges."""
    Calibrate(samples=samples)(model)
    return model


@st.composite
def problems(draw: st.DrawFn, groups: int = 5, candidates: int = 4) -> Problem:
    """Losses and costs of small integers (so that ties occur), one to three budgets, sometimes a missing candidate."""
    n, c = draw(st.integers(1, groups)), draw(st.integers(2, candidates))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    loss = rng.integers(0, 50, (n, c)) / 7.0
    loss[rng.random((n, c)) < 0.1] = np.inf
    loss[np.arange(n), rng.integers(0, c, n)] = rng.integers(0, 50, n) / 7.0
    names = ["size", "bops", "latency"][: draw(st.integers(1, 3))]
    costs = {name: rng.integers(1, 100, (n, c)).astype(float) for name in names}
    limits = {}
    for name in names:
        low, high = costs[name].min(axis=1).sum(), costs[name].max(axis=1).sum()
        limits[name] = float(np.floor(low + (high - low) * draw(st.floats(-0.1, 1.0))))
    return Problem(loss, costs, limits, np.array([8, 6, 4, 2])[:c], np.full(c, 8))


def brute_force(problem: Problem) -> float | None:
    """The least summed loss of all assignments within the budgets; None if there is none."""
    totals = [
        problem.total(choice)
        for choice in map(np.array, itertools.product(range(problem.loss.shape[1]), repeat=len(problem.loss)))
        if np.isfinite(problem.total(choice)) and problem.fits(choice)
    ]
    return min(totals, default=None)
