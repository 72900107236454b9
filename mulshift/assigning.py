"""Mixed precision of a model, measured and solved without compiling it: the table, the decision, the front."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx_ir as ir

from mulshift.data import example_inputs as first_sample
from mulshift.data import input_specs, open_samples
from mulshift.determinism import one_torch_thread
from mulshift.ir import Level, UsageError, get_level, load
from mulshift.ir.errors import DataError
from mulshift.kernel_profile import Profile, forms_of, profile
from mulshift.passes.allocation.budget import parse_budgets
from mulshift.passes.allocation.candidates import DEFAULT, DENSE, candidate_of, parse_candidates
from mulshift.passes.allocation.choice import Assignment
from mulshift.passes.allocation.costs import LATENCY
from mulshift.passes.allocation.front import Point, pareto
from mulshift.passes.allocation.groups import integer_names
from mulshift.passes.allocation.job import NEAREST, OUTPUTS
from mulshift.passes.allocation.measurements import Measurements
from mulshift.passes.allocation.metric import Evaluate
from mulshift.passes.assign_precision import AssignPrecision
from mulshift.passes.pipeline import Pipeline, Progress, silent
from mulshift.passes.recipe import Recipe, RecipeSource, Step, load_recipe
from mulshift.sources import ModelSource, find_function, user_code
from mulshift.user_cache import cache_folder

STEP, BEFORE, SPARSIFY = "assign-precision", "insert-fake-quant", "sparsify"
LEARNED = ("round-weights", "gptq", "adaround", "flexround", "decoupleq")
"""Passes that round weights by what that does to the outputs."""
WORKSPACE = "allocation"


@dataclass(frozen=True)
class Assigned:
    """Attributes:
    measured: the table; `mulshift.passes.allocation.choice.choose` solves other budgets from it.
    assignment: the decision.
    front: Pareto front over one cost.
    profile: of the kernels, where a budget or the front asked for latency.
    model: the calibrated FLOAT graph that was measured.
    """

    measured: Measurements
    assignment: Assignment
    front: tuple[Point, ...]
    profile: Profile | None
    model: ir.Model = field(repr=False)


@dataclass(frozen=True)
class Workers:
    """Who measures, and where what is finished stays; none of it changes a result.

    Attributes:
        jobs: tasks at a time.
        executor: "local" or "ray".
        workspace: where calls that were killed and are made again go on: the tables of assign-precision and the blocks
            of learned rounding. None keeps tables in the user's cache folder, and no blocks.
    """

    jobs: int = 1
    executor: str = "local"
    workspace: Path | None = None

    def fields(self) -> dict[str, Any]:
        """For the passes that have them."""
        return {**self.measuring(), "resume": str(self.workspace or "")}

    def measuring(self) -> dict[str, Any]:
        """Those of assign-precision."""
        workspace = self.workspace or cache_folder() / WORKSPACE
        return {"jobs": self.jobs, "executor": self.executor, "workspace": workspace}


def assign(
    model: Any,
    calibration: Any,
    budgets: Sequence[str] = (),
    *,
    recipe: RecipeSource = "int8",
    candidates: Sequence[str] = DEFAULT,
    sensitivity: str = "gradient",
    solver: str = "ilp",
    evaluate: Evaluate | None = None,
    front: str = "size",
    count: int = 16,
    threads: int = 1,
    timed: bool = False,
    seed: int = 0,
    workers: Workers | None = None,
    example_inputs: Any = None,
    progress: Progress = silent,
) -> Assigned:
    """Measure a model and choose the bits of its products.

    Args:
        model, calibration, recipe, example_inputs, seed: as `mulshift.compile` takes them; the recipe's passes before
            insert-fake-quant are run.
        budgets: as `size=0.6`, `latency=5ms`, `top1=-1.0`.
        candidates, sensitivity, solver, evaluate, count: as the pass `assign-precision` takes them.
        front: cost of the Pareto front.
        threads: of the kernels that are timed.
        timed: time them also if no budget asks for it.
        workers: who measures.
        progress: `progress(stage, done, total or None)`.

    Raises:
        MulshiftError: one line on what is wrong, or which budget cannot be met and what could be.
    """
    wanted = parse_budgets(budgets, metrics=evaluate is not None)
    imported = load(model, examples_for(model, example_inputs, calibration))
    samples = open_samples(calibration, input_specs(imported))
    loaded = load_recipe(recipe)
    found: Profile | None = None
    if timed or front == LATENCY or any(b.name == LATENCY for b in wanted):
        forms = forms_of(parse_candidates(candidates))
        found = profile(imported, samples, recipe, threads=threads, forms=forms, progress=progress)
    with one_torch_thread():
        graph = (
            Pipeline(before_quantization(loaded), checked=0).run(imported, samples, seed=seed, progress=progress).model
        )
        times = None if found is None else found.latencies(parse_candidates(candidates))
        made = AssignPrecision(
            budgets=budgets,
            candidates=candidates,
            sensitivity=sensitivity,
            rounding=rounding_of(loaded, candidates),
            solver=solver,
            latencies=None if times is None else times.seconds,
            model_latency=0.0 if times is None else times.model,
            evaluate=evaluate,
            count=count,
            samples=samples,
            seed=seed,
            progress=lambda done, total: progress(STEP, done, total),
            **(workers or Workers()).measuring(),
        )
        measured, chosen = made.decide(graph)
    points = pareto(measured, front, [b for b in wanted if not b.is_metric and b.name != front], solver)
    return Assigned(measured, chosen, tuple(points), found, graph)


def examples_for(model: Any, given: Any, calibration: Any) -> Any:
    """Inputs to export a torch module with: the caller's, else the first calibration sample."""
    if given is not None or not ModelSource("model", model).is_module:
        return given
    return first_sample(model, calibration)


def before_quantization(recipe: Recipe) -> Recipe:
    """The passes of a recipe that come before the bits are chosen.

    Raises:
        UsageError: the recipe never quantizes.
    """
    names = [step.name for step in recipe.passes]
    ends = [names.index(name) for name in (STEP, BEFORE) if name in names]
    if not ends:
        raise UsageError(f"recipe '{recipe.name}'", f"has no '{BEFORE}'", "choose another recipe")
    return recipe.model_copy(update={"passes": recipe.passes[: min(ends)]})


def has_zeros(candidates: Sequence[str]) -> bool:
    """Whether a candidate has a pattern of zeros."""
    return any(c.kind != DENSE for c in parse_candidates(candidates))


def rounding_of(recipe: Recipe, candidates: Sequence[str] = DEFAULT) -> str:
    """How weights are rounded, as `assign-precision` takes it: `sparsify` is learned too."""
    learned = has_zeros(candidates) or any(step.name in LEARNED for step in recipe.passes)
    return OUTPUTS if learned else NEAREST


def with_budgets(recipe: Recipe, budgets: Sequence[str], candidates: Sequence[str] = ()) -> Recipe:
    """The recipe with `assign-precision` before insert-fake-quant, or with these budgets where it has it already.

    Where a candidate has a pattern of zeros, `sparsify` follows, which prunes what was chosen, and the recipe's
    `calibrate` once more.

    Args:
        recipe: any that quantizes.
        budgets: none leaves it as it is.
        candidates: of the pass; none leaves its own.

    Raises:
        UsageError: the recipe never quantizes; candidates without budgets, or that there are not.
    """
    if not budgets:
        if candidates:
            raise UsageError("candidates", "there is no budget", "give one, as size=0.6")
        return recipe
    names = [step.name for step in recipe.passes]
    own = recipe.passes[names.index(STEP)].options if STEP in names else {}
    options: dict[str, Any] = {k: v for k, v in own.items() if k != "given"} | {"budgets": list(budgets)}
    options |= {"candidates": list(candidates)} if candidates else {}
    options.setdefault("rounding", rounding_of(recipe, options.get("candidates", DEFAULT)))
    at = names.index(STEP) if STEP in names else len(before_quantization(recipe).passes)
    before, after = recipe.passes[:at], recipe.passes[at + (STEP in names) :]
    made = Step.model_validate({"pass": STEP, "options": options})
    pruned: tuple[Step, ...] = ()
    if has_zeros(options.get("candidates", DEFAULT)) and SPARSIFY not in names:
        again = [deepcopy(s) for s in before if s.name == "calibrate"][-1:]  # of its own: YAML would refer to the first
        pruned = (Step.model_validate({"pass": SPARSIFY, "options": {"pattern": "assigned"}}), *again)
    return recipe.model_copy(update={"passes": (*before, made, *pruned, *after)})


def decided(recipe: Recipe, graph: ir.Model) -> Recipe:
    """The recipe with what `assign-precision` decided in the place of times, so that a replay measures nothing.

    Args:
        recipe: that was run.
        graph: its last FLOAT graph.
    """
    found = precisions(graph)
    steps = []
    for step in recipe.passes:
        if step.name == STEP and get_level(graph) is Level.FLOAT:
            kept = {k: v for k, v in step.options.items() if k not in ("latencies", "model_latency")}
            step = step.model_copy(update={"options": {**kept, "given": found}})
        steps.append(step)
    return recipe.model_copy(update={"passes": tuple(steps)})


def precisions(graph: ir.Model) -> dict[str, str]:
    """What a graph says of the bits of its products, and of patterns beside them, by node."""
    return {str(n.name): str(c) for n in graph.graph if (c := candidate_of(n)) is not None}


def precisions_of_integers(graph: ir.Model) -> dict[str, str]:
    """The same by the nodes that the products of a FLOAT graph become in integers."""
    names = integer_names(graph.graph)
    return {names.get(name, name): text for name, text in precisions(graph).items()}


def metrics_function(text: str) -> Evaluate:
    """`module:function` or `file.py:function` that takes a runner and returns name -> value.

    Raises:
        UsageError: there is none, or it is no function.
        DataError: when called: it raised, or returned something else.
    """
    function = find_function(text, UsageError)

    def evaluate(run: Callable[..., Any]) -> Mapping[str, float]:
        with user_code(text, DataError):
            made = function(run)
        if not isinstance(made, Mapping):
            raise DataError(text, f"returned a {type(made).__name__}", "return metrics by name")
        return {str(k): float(v) for k, v in made.items()}

    return evaluate
