"""What was measured of a model: the table that every budget is solved from, as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeAlias

import onnx_ir as ir

from mulshift.ir import DataError, Feeds, UsageError
from mulshift.passes.allocation.candidates import DENSE, REFERENCE, Candidate, Candidates
from mulshift.passes.allocation.costs import COSTS, LATENCY, Facts, Latencies, count_macs
from mulshift.passes.allocation.executors import find_executor
from mulshift.passes.allocation.files import append, read_journal, write_whole
from mulshift.passes.allocation.groups import Group, find_products, group_products
from mulshift.passes.allocation.job import (
    JOB,
    NEAREST,
    OUTPUTS,
    ROUNDINGS,
    Job,
    job_key,
    keep_rounded,
    product_from,
    rounded_path,
    save_job,
)
from mulshift.passes.allocation.output_rounding import round_by_outputs
from mulshift.passes.allocation.sensitivity import find_sensitivity
from mulshift.passes.allocation.simulation import Simulation, ranges_of

MOMENT_SAMPLES = 48
"""On which weights are rounded: others than those that losses are measured on, or the losses would be too small."""
JOURNAL, RESULT = "results.jsonl", "measurements.json"

Tell: TypeAlias = Callable[[int, int | None], None]


@dataclass(frozen=True)
class Measurements:
    """Attributes:
    groups: in the order of the graph.
    candidates: widest first.
    sensitivity: name of the way in which `loss` was found.
    loss: group -> candidate -> predicted loss.
    macs: product -> multiply-accumulates.
    latencies: of the products; None if they were not timed.
    """

    groups: tuple[Group, ...]
    candidates: Candidates
    sensitivity: str
    loss: Mapping[str, Mapping[str, float]]
    macs: Mapping[str, int]
    latencies: Latencies | None = None

    def cost(self, name: str, group: Group, candidate: Candidate) -> float:
        """Share of a group in a cost."""
        return COSTS[name].of(group, candidate, Facts(self.macs, self.latencies))

    def offset(self, name: str) -> float:
        """What a cost has whatever is chosen."""
        return COSTS[name].offset(self.groups, Facts(self.macs, self.latencies))

    def reference(self, name: str) -> float:
        """A cost with all groups w8a8."""
        return self.offset(name) + sum(self.cost(name, g, REFERENCE) for g in self.groups)

    @property
    def costs(self) -> tuple[str, ...]:
        """Names of the costs that are known."""
        return tuple(name for name in COSTS if name != LATENCY or self.latencies is not None)

    def text(self) -> str:
        """JSON, the same for the same measurements."""
        timed = self.latencies
        plain = {
            "sensitivity": self.sensitivity,
            "candidates": [str(c) for c in self.candidates],
            "groups": [
                {"products": [asdict(p) for p in g.products], "loss": dict(self.loss[g.name])} for g in self.groups
            ],
            "macs": dict(self.macs),
            "latencies": None if timed is None else {"seconds": timed.seconds, "model": timed.model},
        }
        return json.dumps(plain, indent=1, allow_nan=False) + "\n"

    @classmethod
    def parse(cls, text: str) -> Measurements:
        """The inverse of `text`."""
        d: dict[str, Any] = json.loads(text)
        groups = tuple(Group(tuple(product_from(p) for p in g["products"])) for g in d["groups"])
        loss = {g.name: row["loss"] for g, row in zip(groups, d["groups"], strict=True)}
        timed = None if d["latencies"] is None else Latencies(**d["latencies"])
        return cls(groups, tuple(map(Candidate.parse, d["candidates"])), d["sensitivity"], loss, d["macs"], timed)


@dataclass(frozen=True)
class How:
    """How to measure.

    Attributes:
        sensitivity: row of SENSITIVITIES.
        count: samples at most.
        probes: random vectors a sample, for "gradient" and "hessian".
        seed: of those.
        jobs: tasks at a time.
        executor: row of EXECUTORS.
        workspace: folder that keeps what is finished, for a run that was killed and for other budgets; None keeps
            nothing.
        rounding: of the weights: "nearest", or "outputs" where a later pass rounds by what that does to the outputs.
            "hessian" sees weights alone and knows only the nearest.
    """

    sensitivity: str = "gradient"
    count: int = 16
    probes: int = 4
    seed: int = 0
    jobs: int = 1
    executor: str = "local"
    workspace: Path | None = None
    rounding: str = NEAREST

    def __post_init__(self) -> None:
        find_sensitivity(self.sensitivity)
        if self.rounding not in ROUNDINGS:
            raise UsageError("assign-precision", f"rounding is '{self.rounding}'", f"use {' or '.join(ROUNDINGS)}")
        find_executor(self.executor)
        for name, value in (("count", self.count), ("probes", self.probes), ("jobs", self.jobs)):
            if value < 1:
                raise UsageError("assign-precision", f"{name} is {value}", "give 1 or more")


def measure(
    model: ir.Model,
    samples: Sequence[Feeds],
    candidates: Candidates,
    how: How,
    skip: Sequence[str] = (),
    progress: Tell | None = None,
) -> Measurements:
    """Sensitivities of all groups of a calibrated FLOAT graph.

    Args:
        model: left as it is.
        samples: at least one; losses are measured on the first `how.count`, weights rounded on MOMENT_SAMPLES more.
        candidates: that each group may have.
        how: see there.
        skip: names of products, or patterns, that keep w8a8.
        progress: called with (tasks done, tasks).

    Raises:
        DataError: no samples.
        UsageError: no product, no range on what they read, or a group that can have none of the candidates.
        MulshiftError: what a task raised; finished tasks stay in the workspace.
    """
    if not samples:
        raise DataError("assign-precision", "needs samples", "give calibration data")
    products = find_products(model.graph, skip)
    if not products:
        raise UsageError("assign-precision", "no product by constant weights", "leave the pass out")
    ranges = ranges_of(model.graph, products)
    if not ranges:
        raise UsageError("assign-precision", "no value has a range", "run calibrate first")
    used, others = list(samples[: how.count]), list(samples[how.count : how.count + MOMENT_SAMPLES])
    groups = group_products(products, candidates)
    for group in groups:
        if not any(group.may_have(c) for c in candidates):
            cause = f"'{group.name}' can have none of them, its weights are {list(group.products[0].shape)}"
            raise UsageError("candidates", cause, "give a dense one too")
    rounding = how.rounding if find_sensitivity(how.sensitivity).sees_outputs else NEAREST
    job = Job(groups, candidates, ranges, how.sensitivity, len(used), how.probes, how.seed, rounding)
    macs = count_macs(model, products, used[0])
    if how.workspace is not None:
        loss = _loss(model, (used, others), job, how, how.workspace / job_key(model, [*used, *others], job), progress)
    else:
        with TemporaryDirectory(prefix="mulshift-allocation-") as folder:
            loss = _loss(model, (used, others), job, how, Path(folder), progress)
    return Measurements(groups, candidates, how.sensitivity, never_better(loss, candidates), macs)


def never_better(loss: Mapping[str, Mapping[str, float]], candidates: Candidates) -> dict[str, dict[str, float]]:
    """The table with every loss raised to that of wider candidates: an estimate's chance must not favour fewer bits.

    Wider means: as many bits of weights and of activations or more, with the same groups, of the same kind or dense.
    """

    def wider(a: Candidate, b: Candidate) -> bool:
        p, q = a.precision, b.precision
        alike = a.kind in (b.kind, DENSE) and p.group == q.group
        return alike and p.weights >= q.weights and p.activations >= q.activations

    above = {str(c): [str(w) for w in candidates if wider(w, c)] for c in candidates}
    return {group: {c: max(row[w] for w in above[c] if w in row) for c in row} for group, row in loss.items()}


def _loss(
    model: ir.Model,
    samples: tuple[Sequence[Feeds], Sequence[Feeds]],
    job: Job,
    how: How,
    folder: Path,
    progress: Tell | None,
) -> Mapping[str, Mapping[str, float]]:
    done = folder / RESULT
    if done.is_file():
        found: dict[str, dict[str, float]] = json.loads(done.read_text(encoding="utf-8"))
        return found
    if not (folder / JOB).is_file():
        save_job(folder, model, samples[0], job)
    sensitivity, journal = find_sensitivity(how.sensitivity), folder / JOURNAL
    results = read_journal(journal)
    tasks = sensitivity.tasks(job)
    ahead = _round(folder, model, samples[1] or samples[0], job, len(tasks), progress) if job.rounding == OUTPUTS else 0
    _tell(progress, ahead + len(results), ahead + len(tasks))

    def finished(task: str, result: Any) -> None:
        append(journal, task, result)
        results[task] = result
        _tell(progress, ahead + len(results), ahead + len(tasks))

    find_executor(how.executor)(folder, [t for t in tasks if t not in results], how.jobs, finished)
    loss = sensitivity.combine(job, results)
    write_whole(done, json.dumps(loss, indent=1, allow_nan=False))
    _tidy(folder, (RESULT,))
    return loss


def _round(folder: Path, model: ir.Model, samples: Sequence[Feeds], job: Job, tasks: int, progress: Tell | None) -> int:
    """Put the rounded weights where tasks look for them; how many. A run that was killed goes on."""
    products = {p.weights: p for g in job.groups for p in g.products}
    different = [*{(c.precision.weights, c.precision.group, c.kind): c for c in job.candidates}.values()]
    left = [
        p
        for p in products.values()
        if not all(rounded_path(folder, p, c).is_file() for c in different if c.fits(p.shape, p.axis))
    ]
    simulation = Simulation(model, job.groups, job.ranges)
    for i, (product, made) in enumerate(round_by_outputs(simulation, left, different, samples)):
        for candidate, array in made.items():
            keep_rounded(rounded_path(folder, product, candidate), array)
        _tell(progress, len(products) - len(left) + i + 1, len(products) + tasks)
    return len(products)


def _tidy(folder: Path, kept: Iterable[str]) -> None:
    """Remove the copies of model, samples and rounded weights."""
    import shutil

    for path in folder.iterdir():
        if path.name in kept:
            continue
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _tell(progress: Tell | None, done: int, total: int) -> None:
    if progress is not None:
        progress(done, total)
