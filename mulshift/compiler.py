"""The main job: model and calibration data in, verified integer-only artifact out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import onnx_ir as ir

from mulshift.assigning import Workers, decided, examples_for, precisions_of_integers, with_budgets
from mulshift.backends import Artifact, find_target, lower
from mulshift.backends.artifact import MODEL_FILE, has_kernels
from mulshift.backends.verify import Verified, verify_integer
from mulshift.backends.verify_qdq import verify_qdq
from mulshift.data import input_specs, open_samples
from mulshift.determinism import one_torch_thread
from mulshift.image_input import ImageInput, adapter
from mulshift.ir import DataError, Feeds, Level, Samples, Target, UnsupportedError, UsageError, load
from mulshift.kernel_profile import forms_of, profile
from mulshift.lock import HashedSamples, Lock, Sources, model_sha256, sha256, versions
from mulshift.measure import measure
from mulshift.output_folder import LOCK_FILE, REPORT_FILE, TIMING_FILE, check_output, staged, write_text
from mulshift.passes.allocation.candidates import DEFAULT, parse_candidates
from mulshift.passes.allocation.costs import LATENCY
from mulshift.passes.allocation.metric import Evaluate
from mulshift.passes.calibrate import check_feeds
from mulshift.passes.outliers import worst_outliers
from mulshift.passes.pipeline import Pipeline, PipelineResult, Progress, silent
from mulshift.passes.recipe import Recipe, RecipeSource, Step, load_recipe
from mulshift.report import Facts, Report, make_report
from mulshift.report import float_islands as islands_of
from mulshift.sparse_layers import CHOICES, Compared, compare, put_back, sparse_layers

ISLANDS = ("report", "forbid")
_INTEGER_PASS, _IMAGE_PASS = "to-integer", "fold-input"
_AFTER_IMAGE = ("fold-bn", "fuse", "equalize", "calibrate")


@dataclass(frozen=True)
class Compiled:
    """Result of `compile`.

    Attributes:
        artifact: what runs.
        report: content of report.json.
        lock: content of lock.json.
        seconds: (stage, seconds) of every pass; the only thing here that differs between equal runs.
        folder: where it was written, or None.
        levels: the graph at each level, for a look.
        compared: the layers with sparse kernels beside their dense twins, where they were timed.
    """

    artifact: Artifact
    report: Report
    lock: Lock
    seconds: tuple[tuple[str, float], ...]
    folder: Path | None
    levels: dict[Level, ir.Model] = field(repr=False)
    compared: tuple[Compared, ...] = ()

    def run(self, feeds: Feeds) -> dict[str, Any]:
        """`Artifact.run`."""
        return self.artifact.run(feeds)


@dataclass(frozen=True)
class Options:
    """What `compile` was asked, as recorded in the lock.

    Attributes:
        target: name of a row of `mulshift.backends.TARGETS`.
        seed: for passes that draw random numbers.
        float_islands: "report" or "forbid".
        verify_samples: calibration samples that verification and SQNR run.
        input_image: for a uint8 image input.
        sparse_kernels: row of `mulshift.sparse_layers.CHOICES`.
        dense: layers that stay dense though their weights have a pattern, as was found by timing; None if nothing was.
    """

    target: str = "onnxruntime"
    seed: int = 0
    float_islands: str = "report"
    verify_samples: int = 2
    input_image: ImageInput | None = None
    sparse_kernels: str = "timed"
    dense: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.float_islands not in ISLANDS:
            raise UsageError("float_islands", f"'{self.float_islands}' is not known", f"use {' or '.join(ISLANDS)}")
        if self.sparse_kernels not in CHOICES:
            cause = f"'{self.sparse_kernels}' is not known"
            raise UsageError("sparse_kernels", cause, f"use {' or '.join(CHOICES)}")
        if self.verify_samples < 1:
            raise UsageError("verify_samples", f"is {self.verify_samples}", "verify with at least 1")

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        image = None if self.input_image is None else self.input_image.as_dict()
        return {
            "target": self.target,
            "seed": self.seed,
            "float_islands": self.float_islands,
            "verify_samples": self.verify_samples,
            "input_image": image,
            "sparse_kernels": self.sparse_kernels,
            "dense": None if self.dense is None else list(self.dense),
        }


def compile(
    model: Any,
    calibration: Any,
    *,
    recipe: RecipeSource = "int8",
    target: str = "onnxruntime",
    output: str | Path | None = None,
    example_inputs: Any = None,
    dynamic_shapes: Any = None,
    seed: int = 0,
    float_islands: str = "report",
    input_image: ImageInput | None = None,
    verify_samples: int = 2,
    sparse_kernels: str = "timed",
    dense: Sequence[str] | None = None,
    budgets: Sequence[str] = (),
    candidates: Sequence[str] = (),
    evaluate: Evaluate | None = None,
    workers: Workers | None = None,
    sources: Sources | None = None,
    progress: Progress = silent,
) -> Compiled:
    """Compile a trained model to integers, verify it on stock ONNX Runtime, and write it.

    Args:
        model: what `mulshift.ir.load` takes: path of .onnx or .pt2, onnx or onnx_ir model, torch module, program.
        calibration: what `mulshift.data.open_samples` takes: path, arrays, list of feeds, function.
        recipe: name, path of a YAML file, or `Recipe`.
        target: row of `mulshift.backends.TARGETS`.
        output: folder for model.onnx, report.json, lock.json; None writes nothing. An old artifact there is replaced.
        example_inputs, dynamic_shapes: to export a torch module; the first calibration sample serves otherwise.
        seed: for passes that draw random numbers.
        float_islands: "report" lists what has no integer form, "forbid" makes it an error.
        input_image: take uint8 images and fold the preprocessing in.
        verify_samples: calibration samples that verification and SQNR run.
        sparse_kernels: of layers whose weights have a 2:4 pattern: "timed" times each beside its dense twin on this
            machine and puts back dense what is slower (the lock says which, so that a replay times nothing); "all"
            keeps all sparse. Without such layers nothing is timed.
        dense: nodes of the INTEGER graph to put back dense, instead of timing.
        budgets: for mixed precision, as `size=0.6` or `latency=5ms`: `assign-precision` joins the recipe.
        candidates: for these, as `w4a8` or `w8a8:2:4`; zeros in a pattern bring `sparsify` into the recipe too.
        evaluate: metrics on labelled data, for budgets as `top1=-1.0`.
        workers: who measures for `assign-precision`, and the workspace from which a call that was killed goes on. None
            of it is in the lock.
        sources: what to record in the lock for `replay`; None records model and calibration data given as paths.
        progress: `progress(stage, done, total or None)`.

    Raises:
        MulshiftError: one line on what is wrong; nothing is written then.
    """
    named = None if dense is None else tuple(dense)
    options = Options(target, seed, float_islands, verify_samples, input_image, sparse_kernels, named)
    row = find_target(target)
    steps = _with_image(with_budgets(load_recipe(recipe), budgets, candidates), input_image)
    folder = None if output is None else check_output(output)
    progress("load", 0, None)
    imported = load(model, examples_for(model, example_inputs, calibration), dynamic_shapes)
    samples = HashedSamples(open_samples(calibration, input_specs(imported)))
    _check_first(imported, samples)
    given = {"evaluate": evaluate, **(workers or Workers()).fields(), **_times(imported, samples, steps, progress)}
    with one_torch_thread():
        result = Pipeline(steps).run(
            imported,
            samples,
            target=_form(row),
            seed=seed,
            adapt=adapter(input_image),
            given=given,
            progress=progress,
        )
        if Level.FLOAT in result.levels:
            steps = decided(steps, result.levels[Level.FLOAT])
        if float_islands == "forbid":
            _forbid_islands(result.model)
        found = sources or _paths(model, calibration)
        return _finish(imported, result, samples, steps, row, options, found, folder, progress)


def _times(imported: ir.Model, samples: Samples, recipe: Recipe, progress: Progress) -> dict[str, Any]:
    """Fields of `assign-precision` that hold measured times, where it has a budget on latency and decides anew."""
    for step in recipe.passes:
        options = step.options if step.name == "assign-precision" else {}
        if not options.get("given") and any(
            str(b).split("=")[0].strip() == LATENCY for b in options.get("budgets", ())
        ):
            candidates = parse_candidates(options.get("candidates", DEFAULT))
            timed = profile(imported, samples, recipe, forms=forms_of(candidates), progress=progress)
            found = timed.latencies(candidates)
            return {"latencies": found.seconds, "model_latency": found.model}
    return {}


def _finish(
    imported: ir.Model,
    result: PipelineResult,
    samples: HashedSamples,
    recipe: Recipe,
    row: Target,
    options: Options,
    sources: Sources,
    folder: Path | None,
    progress: Progress,
) -> Compiled:
    after = _at_level(result, row)
    adapt = adapter(options.input_image)
    few = list(islice(samples, options.verify_samples))
    fitted = [adapt(after, s) for s in few]
    artifact = lower(after, row)
    compared = _slower(artifact, after, options, fitted[0], progress)
    if compared and options.dense is None:
        options = replace(options, dense=tuple(c.name for c in compared if c.slower))
    if options.dense:
        put_back(after.graph, options.dense)
        artifact = lower(after, row)
    progress("verify", 0, None)
    verified = _verify(artifact, after, fitted)
    progress("report", 0, None)
    reference = result.levels.get(Level.FLOAT, result.levels.get(Level.QDQ, after))
    feeds = [(adapt(imported, s), adapt(reference, s), adapt(after, s)) for s in few]
    measured = measure(imported, reference, after, feeds)
    data = artifact.serialize()
    facts = Facts(
        recipe.name,
        imported,
        after,
        artifact,
        len(data),
        result.records,
        measured,
        verified,
        worst_outliers(reference),
        precisions_of_integers(reference),
    )
    report = make_report(facts)
    lock = Lock(
        sources=sources,
        model_sha256=model_sha256(imported),
        calibration_sha256=samples.sha256(),
        recipe=recipe.text(),
        options=options.as_dict(),
        versions=versions(),
        outputs={MODEL_FILE: sha256(data), REPORT_FILE: sha256(report.text().encode())},
    )
    seconds = tuple((r.name, r.seconds) for r in result.records)
    if folder is not None:
        _write(folder, artifact, report, lock, seconds)
    progress("done", 1, 1)
    return Compiled(artifact, report, lock, seconds, folder, dict(result.levels), compared)


def _slower(
    artifact: Artifact, after: ir.Model, options: Options, feeds: Feeds, progress: Progress
) -> tuple[Compared, ...]:
    """Times of the layers with sparse kernels, where it was asked to choose by time; none of a model without."""
    if options.dense is not None or options.sparse_kernels != "timed" or not has_kernels(artifact.model):
        return ()
    return compare(after, feeds, progress=progress) if sparse_layers(artifact.model.graph) else ()


def _write(
    folder: Path, artifact: Artifact, report: Report, lock: Lock, seconds: tuple[tuple[str, float], ...]
) -> None:
    with staged(folder) as staging:
        artifact.save(staging)
        write_text(staging / REPORT_FILE, report.text())
        write_text(staging / LOCK_FILE, lock.text())
        write_text(staging / TIMING_FILE, json.dumps([[name, round(s, 3)] for name, s in seconds]) + "\n")


def _paths(model: Any, calibration: Any) -> Sources:
    """What `replay` can find again by itself: paths and `module:function`, not objects of this process."""
    return Sources(
        model=str(model) if isinstance(model, str | Path) else None,
        calibration=str(calibration) if isinstance(calibration, str | Path) else None,
    )


def _check_first(model: ir.Model, samples: Samples) -> None:
    """Fail before the long work if the data does not fit."""
    first = next(iter(samples), None)
    if first is None:
        raise DataError("calibration data", "holds no sample", "give at least one")
    check_feeds(model.graph, first, "calibration sample 0")


def _with_image(recipe: Recipe, image: ImageInput | None) -> Recipe:
    """The recipe with the image's numbers in `fold-input`, which is put before `fold-bn` if it is not there."""
    if image is None:
        return recipe
    step = Step.model_validate({"pass": _IMAGE_PASS, "options": image.options()})
    names = [s.name for s in recipe.passes]
    if _IMAGE_PASS in names:
        steps = [step if s.name == _IMAGE_PASS else s for s in recipe.passes]
    else:
        at = next((i for i, name in enumerate(names) if name in _AFTER_IMAGE), 0)
        steps = [*recipe.passes[:at], step, *recipe.passes[at:]]
    return load_recipe(recipe.model_copy(update={"passes": tuple(steps)}))


def _forbid_islands(model: ir.Model) -> None:
    islands = islands_of(model)
    if islands:
        where, why = islands[0]
        more = f" (and {len(islands) - 1} more)" if len(islands) > 1 else ""
        raise UnsupportedError(where, f"has no integer form: {why}{more}", "allow it with float_islands='report'")


def _form(row: Target) -> str:
    """What insert-fake-quant calls it."""
    return "integer" if row.level is Level.INTEGER else "signed" if row.signed_activations else "qdq"


def _at_level(result: PipelineResult, row: Target) -> ir.Model:
    if row.level not in result.levels:
        found = ", ".join(str(level) for level in result.levels)
        cause = f"the recipe ends without a graph at level {row.level} (it made {found})"
        raise UsageError(f"target '{row.name}'", cause, f"let the recipe end in '{_INTEGER_PASS}'")
    return result.levels[row.level]


def _verify(artifact: Artifact, after: ir.Model, feeds: list[Feeds]) -> Verified:
    if artifact.target.level is Level.QDQ:
        return verify_qdq(after, feeds, artifact.target.signed_activations)
    return verify_integer(artifact, after, feeds)
