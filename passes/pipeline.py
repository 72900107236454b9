"""Run a recipe: structure checked after every pass, numbers by its contract, a record of what each did."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeAlias

import onnx_ir as ir

from mulshift.ir import Array, Feeds, Interpreter, Level, Samples, VerificationError, get_level
from mulshift.passes.base import Contract, Note, Pass
from mulshift.passes.compare import Sqnr, first_difference, relative_error
from mulshift.passes.reals import as_integers, as_reals
from mulshift.passes.recipe import RecipeSource, load_recipe, make_pass
from mulshift.passes.structure import check_structure, signature

if TYPE_CHECKING:
    import torch

Progress: TypeAlias = Callable[[str, int, int | None], None]
"""`progress(stage, done, total)`; total is None where it is not known."""

CLOSE_LIMIT = 1e-4
"""Relative error that CLOSE allows: float32 carries 6e-8, a deep network multiplies reassociation by 10 to 1000."""
CHECKED_SAMPLES = 2


def silent(stage: str, done: int, total: int | None) -> None:
    """Progress that nobody watches."""


@dataclass(frozen=True)
class PassRecord:
    """What one pass did.

    Attributes:
        name: of the pass.
        contract: what it promised.
        changed: rewrites, in order.
        skipped: matches that it declined, with reasons.
        seconds: time in the pass, checks not counted. Not reproducible: keep it out of reports that must be.
        error: largest relative error of an output against the graph before (CLOSE), else 0.
        sqnr: dB of each output against the first graph (LOSSY); None where equal.
    """

    name: str
    contract: Contract
    changed: tuple[Note, ...]
    skipped: tuple[Note, ...]
    seconds: float
    error: float = 0.0
    sqnr: Mapping[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True)
class PipelineResult:
    """Attributes:
    model: the last graph.
    levels: the last graph of each level that was passed through (the model included).
    records: one a pass.
    """

    model: ir.Model
    levels: Mapping[Level, ir.Model]
    records: tuple[PassRecord, ...]


@dataclass(frozen=True)
class Pipeline:
    """A recipe that can be run on models.

    Attributes:
        recipe: name, path, mapping or `Recipe`.
        checked: how many samples the contracts are checked on.
    """

    recipe: RecipeSource
    checked: int = CHECKED_SAMPLES

    def run(
        self,
        model: ir.Model,
        samples: Samples = (),
        *,
        target: str = "integer",
        seed: int = 0,
        adapt: Callable[[ir.Model, Feeds], Feeds] | None = None,
        given: Mapping[str, Any] | None = None,
        progress: Progress = silent,
    ) -> PipelineResult:
        """Apply the recipe to a copy of the model.

        Args:
            model: FLOAT or QDQ level; left as it is.
            samples: for passes that measure, and for the contracts. Without any, numbers are not checked.
            target: "integer", "qdq" or "signed", for passes that have such a field; `seed` likewise.
            adapt: turns a sample into feeds of the graph as it is now, where a pass changes the inputs.
            given: more such fields, of what changes no result (workers, a workspace) or cannot be written in a recipe.
            progress: told about each pass, and by passes about themselves.

        Raises:
            UsageError: from the recipe.
            VerificationError: a pass broke its contract or the graph.
            MulshiftError: whatever a pass raises.
        """
        recipe = load_recipe(self.recipe)
        fit = _fitting(adapt)
        now = model.clone()
        checks = list(islice(samples, self.checked))
        first = before = _outputs(now, [fit(now, s) for s in checks])
        levels: dict[Level, ir.Model] = {}
        records: list[PassRecord] = []
        for i, step in enumerate(recipe.passes):
            progress(step.name, i, len(recipe.passes))
            filled = {"samples": Fitted(samples, now, fit), "target": target, "seed": seed, **(given or {})}
            made = make_pass(step, filled | {"progress": _staged(progress, step.name)})
            kept, outputs = now.clone(), signature(now)
            seconds = _apply(made, now)
            if get_level(now) is not get_level(kept):
                levels[get_level(kept)] = kept
            check_structure(now, outputs, step.name)
            after = _outputs(now, [fit(now, s) for s in checks])
            records.append(_record(made, seconds, first, before, after))
            before = after
        progress("passes", len(recipe.passes), len(recipe.passes))
        levels[get_level(now)] = now
        return PipelineResult(now, levels, tuple(records))


def _fitting(adapt: Callable[[ir.Model, Feeds], Feeds] | None) -> Callable[[ir.Model, Feeds], Feeds]:
    return lambda model, feeds: as_integers(model, feeds if adapt is None else adapt(model, feeds))


@dataclass(frozen=True)
class Fitted:
    """Samples as feeds of one graph, converted while they are read."""

    samples: Samples
    model: ir.Model
    fit: Callable[[ir.Model, Feeds], Feeds]

    def __iter__(self) -> Iterator[Feeds]:
        return (self.fit(self.model, feeds) for feeds in self.samples)

    def __length_hint__(self) -> int:
        from operator import length_hint

        found = length_hint(self.samples, -1)
        return NotImplemented if found < 0 else found


def _staged(progress: Progress, stage: str) -> Callable[[int, int | None], None]:
    return lambda done, total: progress(stage, done, total)


def _apply(made: Pass, model: ir.Model) -> float:
    start = time.perf_counter()
    made(model)
    return time.perf_counter() - start


def to_numpy(tensor: torch.Tensor) -> Array:
    """A tensor's numbers; bfloat16, which numpy lacks, as float32."""
    plain = tensor.detach()
    return plain.float().numpy() if str(plain.dtype) == "torch.bfloat16" else plain.numpy()


def _outputs(model: ir.Model, feeds: Iterable[Feeds]) -> list[dict[str, Array]]:
    import torch

    interpreter = Interpreter(model)
    with torch.no_grad():
        return [as_reals(model, {k: to_numpy(t) for k, t in interpreter.run(f).items()}) for f in feeds]


def _record(
    made: Pass,
    seconds: float,
    first: list[dict[str, Array]],
    before: list[dict[str, Array]],
    after: list[dict[str, Array]],
) -> PassRecord:
    error, sqnr = 0.0, {}
    if made.contract is Contract.EXACT:
        _check_exact(made.name, before, after)
    elif made.contract is Contract.CLOSE:
        error = _check_close(made.name, before, after)
    else:
        sqnr = _measure(made.name, first, after)
    return PassRecord(made.name, made.contract, tuple(made.log.changed), tuple(made.log.skipped), seconds, error, sqnr)


def _check_exact(name: str, before: list[dict[str, Array]], after: list[dict[str, Array]]) -> None:
    for old, new in zip(before, after, strict=True):
        for value, expected in old.items():
            difference = first_difference(expected, new[value])
            if difference is not None:
                raise VerificationError(f"pass '{name}'", f"promised EXACT, but in '{value}' {difference}")


def _check_close(name: str, before: list[dict[str, Array]], after: list[dict[str, Array]]) -> float:
    worst = 0.0
    for old, new in zip(before, after, strict=True):
        for value, expected in old.items():
            error = relative_error(expected, new[value])
            if error > CLOSE_LIMIT:
                cause = f"promised CLOSE, but '{value}' has a relative error of {error:.3g} (limit {CLOSE_LIMIT:g})"
                raise VerificationError(f"pass '{name}'", cause)
            worst = max(worst, error)
    return worst


def _measure(name: str, first: list[dict[str, Array]], after: list[dict[str, Array]]) -> dict[str, float | None]:
    meters: dict[str, Sqnr] = {}
    for old, new in zip(first, after, strict=True):
        for value, expected in old.items():
            if expected.shape != new[value].shape:
                cause = f"changed the shape of '{value}' from {expected.shape} to {new[value].shape}"
                raise VerificationError(f"pass '{name}'", cause)
            if expected.dtype.kind == "f":
                meters.setdefault(value, Sqnr()).add(expected, new[value])
    return {value: meter.db for value, meter in meters.items()}
