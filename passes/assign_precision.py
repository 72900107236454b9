"""assign-precision: which bits each product gets, from measured quality and cost, within any number of budgets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import ClassVar

import onnx_ir as ir

from mulshift.ir import Level, Samples, UsageError, get_level
from mulshift.passes.allocation.budget import parse_budgets
from mulshift.passes.allocation.candidates import DEFAULT, KINDS, Candidate, parse_candidates
from mulshift.passes.allocation.choice import Assignment, choose
from mulshift.passes.allocation.costs import Latencies
from mulshift.passes.allocation.measurements import MOMENT_SAMPLES, How, Measurements, measure
from mulshift.passes.allocation.metric import Evaluate, within_metrics
from mulshift.passes.allocation.solvers import SOLVERS
from mulshift.passes.base import Contract, Pass
from mulshift.passes.calibrate import check_feeds


@dataclass
class AssignPrecision(Pass):
    """Choose the bits of each product: a candidate c for each group i of those that must share a format, with

        min sum_i loss[i, c_i],    sum_i cost_k[i, c_i] <= limit_k    for each budget k

    an integer linear program (HAWQ-V3, Yao et al. 2021, arXiv:2011.10680). Losses are measured once; other budgets are
    solved from the same table. `mulshift.precision` is written on the nodes, which insert-fake-quant reads there, and
    `mulshift.sparsity` where zeros were chosen, which `sparsify` with pattern "assigned" reads. Nothing else.

    Attributes:
        budgets: `size=0.6` or `bops=0.5` of all w8a8, `size=3.2MB`, `latency=5ms`; none leaves all at their best.
        candidates: that each group may have: bits as `w4a8`, with zeros as `w8a8:2:4` or `w4a8:2:4:shared`.
        sensitivity: "gradient", "hessian", "kl" or "sqnr".
        rounding: of the weights as losses see them: "nearest", or "outputs" where a later pass rounds them by what that
            does to the outputs (`mulshift.compile` and `mulshift.assign` look at the recipe).
        solver: "ilp", "greedy", "baq", "zeroq", "uniform" or "in-order".
        skip: names of products, or patterns with *, that get no precision of their own.
        given: product -> candidate that decides without measuring, as an earlier run wrote it.
        latencies: product -> candidate -> seconds, of `mulshift profile`; for a budget on latency.
        model_latency: seconds of the whole model at 8 bits, likewise.
        minimize: cost to minimise under a budget on a metric, where no budget on a cost is given.
        evaluate: function of what runs a model that gives metrics, name -> value; for budgets as `top1=-1.0`.
        count: samples that losses are measured on; rounding "outputs" reads up to 48 more.
        probes: random vectors a sample, of "gradient" and "hessian".
        samples: feeds of the graph inputs.
        seed: of the random vectors.
        jobs: tasks at a time.
        executor: "local" or "ray".
        workspace: folder that keeps what was measured, for a run that was killed and for other budgets.
        progress: called with (tasks done, tasks).

    Raises:
        UsageError: an option that does not exist; budgets that cannot be met (with what could be).
        DataError: no samples.
    """

    name: ClassVar[str] = "assign-precision"
    contract: ClassVar[Contract] = Contract.EXACT
    budgets: Sequence[str] = ()
    candidates: Sequence[str] = DEFAULT
    sensitivity: str = "gradient"
    rounding: str = "nearest"
    solver: str = "ilp"
    skip: Sequence[str] = ()
    given: Mapping[str, str] | None = None
    latencies: Mapping[str, Mapping[str, float]] | None = None
    model_latency: float = 0.0
    minimize: str = "size"
    evaluate: Evaluate | None = None
    count: int = 16
    probes: int = 4
    samples: Samples = ()
    seed: int = 0
    jobs: int = 1
    executor: str = "local"
    workspace: Path | None = None
    progress: Callable[[int, int | None], None] | None = None
    measured: Measurements | None = None

    def rewrite(self, model: ir.Model) -> None:
        """Write `mulshift.precision` and `mulshift.sparsity`; nothing else changes."""
        if get_level(model) is not Level.FLOAT:
            raise UsageError("assign-precision", "the graph is quantized already", "run it before insert-fake-quant")
        if self.solver not in SOLVERS:
            raise UsageError("assign-precision", f"there is no solver '{self.solver}'", f"use {', '.join(SOLVERS)}")
        if self.given is not None:
            return self._write(model, {name: Candidate.parse(text) for name, text in self.given.items()})
        measured, found = self.decide(model)
        return self._write(model, found.products(measured))

    def decide(self, model: ir.Model) -> tuple[Measurements, Assignment]:
        """What was measured and what was chosen, without writing it."""
        budgets = parse_budgets(self.budgets, metrics=self.evaluate is not None)
        if any(b.name == "latency" for b in budgets) and self.latencies is None:
            raise UsageError("assign-precision", "a budget on latency needs times", "run `mulshift profile`")
        measured = self.measured or self._measure(model)
        if any(b.is_metric for b in budgets):
            assert self.evaluate is not None
            return measured, within_metrics(model, measured, budgets, self.evaluate, self.solver, self.minimize)
        return measured, choose(measured, budgets, self.solver)

    def _measure(self, model: ir.Model) -> Measurements:
        how = How(
            self.sensitivity, self.count, self.probes, self.seed, self.jobs, self.executor,
            None if self.workspace is None else Path(self.workspace), self.rounding,
        )  # fmt: skip
        samples = list(islice(self.samples, self.count + MOMENT_SAMPLES))
        for i, feeds in enumerate(samples):
            check_feeds(model.graph, feeds, f"calibration sample {i}")
        measured = measure(model, samples, parse_candidates(self.candidates), how, self.skip, self.progress)
        if self.latencies is None:
            return measured
        return replace(measured, latencies=Latencies(self.latencies, self.model_latency))

    def _write(self, model: ir.Model, products: Mapping[str, Candidate]) -> None:
        nodes = {str(n.name): n for n in model.graph}
        for name, candidate in products.items():
            if name not in nodes:
                raise UsageError("assign-precision", f"there is no product '{name}'", "give those of this model")
            before = dict(nodes[name].metadata_props)
            KINDS[candidate.kind].write(nodes[name], candidate.precision)
            if dict(nodes[name].metadata_props) != before:
                self.changed(nodes[name], str(candidate))
