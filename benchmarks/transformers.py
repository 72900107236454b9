"""Transformers in integers, one line a criterion: `python benchmarks/transformers.py [--quick] [--json FILE]`.

Accuracy of MiniLM and SmolLM2 on real text, errors of the operators, speed beside int8 peers, and what rotation does.
All that takes long (exports, quantized models, not results) stays in build/benchmarks, keyed by versions,
sources and options. `--quick` scores less, leaves GPTQ out, times once and stops preparing after PREPARE_SECONDS: it
takes less than 5 minutes, and all its rows have values once build/ holds what they need.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import models
from cache import CACHE
from processes import Failed, loud, measured, watched
from rows import Row, at_least, at_most, finish, show
from transformer.speed import NAMES, Effort, Speed, prepare, print_times, speed_rows, time_all

PREPARE_SECONDS = 150.0
"""Of --quick, for all but the timing."""
STALE_SECONDS = 7200.0
SPEARMAN_DROP, SQNR_DB = 0.3, 20.0
PERPLEXITY_RATIO, ROTATED_RATIO = 1.02, 0.9
OUTLIERS_FAIL, OUTLIERS_HOLD = 8.0, 15.0
ROTATION_ERROR = 1e-4
STEPS, MEAN_STEPS = 1.0, 0.25
LANGUAGE = ("float", "W8A8", "W4A8", "W4A8 rotated")
GPTQ = ("W4A8 GPTQ", "W4A8 GPTQ rotated")
"""Half an hour of two cores: not of --quick."""
ROTATED = {"minilm": "MiniLM", "vit-tiny": "ViT-Tiny", "smollm2": "SmolLM2"}


@dataclass(frozen=True)
class Plan:
    """How much to measure.

    Attributes:
        quick: whether preparing ends after PREPARE_SECONDS.
        speed: see there.
        pairs: of sentences a year, 0 for all.
        chunks: of 512 tokens.
        cases: of operators, a kind of row.
    """

    quick: bool
    speed: Effort
    pairs: int
    chunks: int
    cases: int


QUICK, FULL = Plan(True, Effort(4, 1, 5.0), 300, 4, 60), Plan(False, Effort(8, 3, 20.0), 0, 20, 1000)
FOOT = """
MiniLM: STS 2012 to 2014; every 10th pair of 2014 calibrates (8 batches of 16 sentences) and is not scored.
SmolLM2: the first chunks of 512 tokens of wikitext-2 valid are scored, 4 chunks behind the 20th calibrate, 16 for
  GPTQ; its weights came as 4-bit groups of 32; ours have one scale a column.
Outlier channels, W4A8: the recipe without smooth on both sides; the outliers are in the scales of the norms.
SmolLM2 layers, 1 token: the linear layers, norms and products of 12 decoder layers of its shape, chained, M = 1,
  42 MB of weights; without attention over a cache. MatMulNBits: symmetric, accuracy level 4, the faster of two blocks.
ONNX Runtime int8: the fastest of QDQ u8 x s8 per channel (all operators, or products only) and dynamic per channel;
  OpenVINO int8: NNCF, preset MIXED, model_type TRANSFORMER. Minimum over processes, all sides in one run.
Speed: the recipe's operators with the least tuning, since most weights are random; accuracy: the recipe as it is.
Without VNNI ours is, for speed alone, the recipe ...-reduce-range, weights within +-64.
MiniLM, accuracy: recipe int8-transformer-gptq. SmolLM2: recipe int8-per-token."""


class Step:
    """One script that prints JSON: its result, or why there is none."""

    def __init__(self, *command: object) -> None:
        self.command, self.found, self.why = command, dict[str, Any](), "not run"

    def run(self, deadline: float) -> None:
        name = " ".join(map(str, self.command))
        try:
            started = time.perf_counter()
            self.found = measured(*self.command, seconds=deadline - started)  # type: ignore[arg-type]
            print(f"{name}: {time.perf_counter() - started:.0f} s", flush=True)
        except Failed as e:
            self.why = str(e)
            loud(name, self.why)


def unmeasured(criterion: str, bound: str, why: str) -> Row:
    """Short, with the reason."""
    return Row(f"{criterion} (not run: {why})", "-", bound, False)


def sentence_rows(step: Step) -> Iterator[Row]:
    """MiniLM W8A8 against float."""
    found = step.found
    for year in ("2012", "2013", "2014"):
        criterion = f"MiniLM W8A8, STS {year}: Spearman x 100 below float"
        if found:
            before, after = found["float"][year], found["ours"][year]
            yield at_most(f"{criterion} ({before:.2f} to {after:.2f})", before - after, SPEARMAN_DROP)
        else:
            yield unmeasured(criterion, f"<= {SPEARMAN_DROP:.2f}", step.why)
    criterion = "MiniLM W8A8: SQNR of sentence vectors, dB"
    if found:
        yield at_least(criterion, found["sqnr"], SQNR_DB, ".1f")
    else:
        yield unmeasured(criterion, f">= {SQNR_DB:.1f}", step.why)
    yield integer_row("MiniLM W8A8", step)


def integer_row(title: str, step: Step) -> Row:
    """No float nodes; and the first if there are any."""
    criterion = f"{title}: float nodes between the borders"
    if not step.found:
        return unmeasured(criterion, "== 0", step.why)
    nodes = step.found["float_nodes"]
    named = f"{criterion} ({', '.join(nodes[:2])})" if nodes else criterion
    return Row(named, str(len(nodes)), "== 0", not nodes)


def language_rows(steps: Mapping[str, Step]) -> Iterator[Row]:
    """SmolLM2 in integers against float, and rotation at 4 bits."""
    ratios = (
        ("SmolLM2 W8A8: perplexity against float", "W8A8", "float", PERPLEXITY_RATIO),
        ("SmolLM2 W4A8: perplexity with rotation against without", "W4A8 rotated", "W4A8", ROTATED_RATIO),
        ("SmolLM2 W4A8, GPTQ: perplexity with rotation against without", GPTQ[1], GPTQ[0], ROTATED_RATIO),
    )
    for criterion, name, base, bound in ratios:
        if name not in steps:
            continue
        missing = [steps[n] for n in (base, name) if not steps[n].found]
        if missing:
            yield unmeasured(criterion, f"<= {bound:.2f}", missing[0].why)
            continue
        after, before = (float(steps[n].found["perplexity"]) for n in (name, base))
        yield at_most(f"{criterion} ({before:.2f} to {after:.2f})", after / before, bound, ".3f")
    yield integer_row("SmolLM2 W8A8", steps["W8A8"])


def operator_rows(step: Step) -> Iterator[Row]:
    """Largest error, and mean excess over the rounding itself."""
    for name in ("Softmax", "LayerNorm", "RMSNorm", "GELU"):
        criterion, bound = f"{name}: largest error in steps of 8 bits, mean excess", f"<= {STEPS:g}, < {MEAN_STEPS:g}"
        if step.found:
            most, mean = step.found[name]
            yield Row(criterion, f"{most:.2f}, {mean:.0e}", bound, most <= STEPS and mean < MEAN_STEPS)
        else:
            yield unmeasured(criterion, bound, step.why)


def rotation_rows(outliers: Step, steps: Mapping[str, Step]) -> Iterator[Row]:
    """The same function before and after; and what it is for."""
    for name, title in ROTATED.items():
        criterion, step = f"{title}: relative change of float outputs by rotate", steps[name]
        if step.found:
            named = f"{criterion} ({step.found['rotated']} regions)"
            yield at_most(named, step.found["error"], ROTATION_ERROR, ".1e")
        else:
            yield unmeasured(criterion, f"<= {ROTATION_ERROR:.1e}", step.why)
    criteria = [f"outlier channels, W4A8 {side} rotation: SQNR, dB" for side in ("without", "with")]
    if outliers.found:
        yield at_most(criteria[0], outliers.found["without"], OUTLIERS_FAIL, ".1f")
        yield at_least(criteria[1], outliers.found["with"], OUTLIERS_HOLD, ".1f")
    else:
        yield unmeasured(criteria[0], f"<= {OUTLIERS_FAIL:.1f}", outliers.why)
        yield unmeasured(criteria[1], f">= {OUTLIERS_HOLD:.1f}", outliers.why)


def measure(plan: Plan) -> tuple[list[Row], list[str]]:
    """All rows, and lines below them: first what is not timed, two at a time, then speed alone."""
    speed = Speed(plan.speed)
    sentences, operators = Step("transformer/sentences", plan.pairs), Step("transformer/operators", plan.cases)
    language = {
        what: Step("transformer/language", what, plan.chunks) for what in (LANGUAGE if plan.quick else LANGUAGE + GPTQ)
    }
    outliers, rotations = Step("transformer/outliers"), {n: Step("transformer/rotation", n) for n in ROTATED}
    deadline = time.perf_counter() + (PREPARE_SECONDS if plan.quick else 1e6)

    def in_turn(steps: list[Step]) -> Callable[[], None]:
        def run() -> None:
            for step in steps:
                step.run(deadline)

        return run

    jobs: list[Callable[[], None]] = [in_turn([sentences]), in_turn([operators, outliers])]
    jobs += [lambda n=network: prepare(speed, n, deadline) for network in NAMES]  # type: ignore[misc]
    jobs += [in_turn([rotations["vit-tiny"], rotations["minilm"]]), in_turn([*language.values(), rotations["smollm2"]])]
    start = time.perf_counter()
    with ThreadPoolExecutor(2) as pool:
        for job in [pool.submit(job) for job in jobs]:
            job.result()
    print(f"prepared in {time.perf_counter() - start:.0f} s", flush=True)
    with watched("speed"):
        time_all(speed)
    print_times(speed)
    rows = [*sentence_rows(sentences), *language_rows(language), *operator_rows(operators)]
    rows += [*rotation_rows(outliers, rotations), *speed_rows(speed)]
    notes = [f"{' '.join(map(str, s.command))}: {s.found['note']}" for s in (sentences, *language.values()) if _note(s)]
    return rows, [*perplexities(language, plan.chunks), *notes]


def _note(step: Step) -> bool:
    return bool(step.found.get("note"))


def perplexities(steps: Mapping[str, Step], chunks: int) -> list[str]:
    """The small table."""
    shown = [f"{n} {s.found['perplexity']:.2f}" if s.found else f"{n} -" for n, s in steps.items()]
    return [f"SmolLM2, perplexity over {chunks} chunks: {', '.join(shown)}"]


def line(row: Row) -> str:
    """The row, the reason why it was not run behind all columns."""
    criterion, found, why = row.criterion.partition(" (not run: ")
    return f"{show(replace(row, criterion=criterion))}{found}{why}"


def clean() -> None:
    """Folders that a run which was ended left unfinished."""
    for folder in CACHE.glob("making-*"):
        if time.time() - Path(folder).stat().st_mtime > STALE_SECONDS:
            shutil.rmtree(folder, ignore_errors=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="score less, time once, under 5 minutes")
    parser.add_argument("--json", metavar="FILE", help="write the rows as JSON")
    options = parser.parse_args()
    if models.available():
        raise SystemExit(models.available())
    clean()
    rows, notes = measure(QUICK if options.quick else FULL)
    print()
    for row in rows:
        print(line(row))
    print("\n".join(["", *notes]) + FOOT)
    return finish(rows, options.json)


if __name__ == "__main__":
    sys.exit(main())
