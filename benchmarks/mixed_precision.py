"""Fewer bits, one line a criterion: `python benchmarks/mixed_precision.py [--quick] [--json FILE]`.

Learned rounding of 4-bit weights on real models, mixed precision by integer linear program beside other solvers,
predicted beside measured latency, resuming after kills, and one row times 4-bit weights beside MatMulNBits.
Compiled models and measured tables stay in build/, keyed by sources. `--quick` compiles and measures nothing that
takes long: it scores what an earlier full run of the same sources left there, in less than 5 minutes.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from parts import Part, print_table
from precision.exact import exact_rows
from processes import watched
from rows import Row, at_least, at_most, exactly, missing

QUICK_SECONDS = 100.0
"""Of --quick, for all but what is timed."""
TIMED_SECONDS = 185.0
"""Of --quick, for all that is timed."""
NETS = {"efficientnet-lite0": ("EfficientNet-Lite0", 1.5), "resnet20": ("ResNet-20", 0.5), "minilm": ("MiniLM", 1.0)}
"""Title, and how many points the best rounding may lose."""
METHODS = ("nearest", "gptq", "adaround", "flexround", "decoupleq", "best")
BUDGETS, RIVALS = ("0.6", "0.5"), ("uniform", "greedy")
LATENCY_ERROR = 0.15
OUR_INT8, THEIR_INT4 = 1.8, 1.3
FOOT = """
Rounding: integer-only artifacts, scored on data that did not calibrate: top-1 in per cent, Spearman x 100 of STS.
Solvers: size of packed weights against all 8-bit; ILP, greedy and uniform see the same losses and budgets.
Latency: prediction = the 8-bit model as measured + the difference of each product's kernel, timed alone; 1 thread.
GEMV: the minimum of processes by turns; MatMulNBits: accuracy level 4, the faster of two blocks."""


def rounding_rows(parts: Mapping[tuple[str, str], Part]) -> Iterator[Row]:
    """The best method of each network; the others beside it in the text."""
    for net, (title, bound) in NETS.items():
        found = {m: parts[net, m].found for m in METHODS if parts[net, m].ready}
        criterion = f"{title} W4A8, best rounding: points below float"
        learned = {m: f for m, f in found.items() if m != "nearest"}
        if not learned:
            yield missing(f"{criterion} (not run: {parts[net, 'best'].why})", f"<= {bound:.2f}")
            continue
        best = min(learned, key=lambda m: float(learned[m]["loss"]))
        yield at_most(f"{criterion} ({best})", float(learned[best]["loss"]), bound)


def rounding_table(parts: Mapping[tuple[str, str], Part]) -> Iterator[str]:
    """What each method leaves: metric, SQNR, seconds to compile."""
    yield f"{'W4A8':<22}{'float':>8}" + "".join(f"{m:>20}" for m in METHODS)
    for net, (title, _) in NETS.items():
        found = {m: parts[net, m].found for m in METHODS if parts[net, m].ready}
        floats = [f["float"] for f in found.values()]
        cells = [
            f"{found[m]['quantized']:.2f} {found[m]['sqnr']:.1f}dB {found[m]['seconds']:.0f}s" if m in found else "-"
            for m in METHODS
        ]
        yield f"{title:<22}{f'{floats[0]:.2f}' if floats else '-':>8}" + "".join(f"{cell:>20}" for cell in cells)


def solver_rows(parts: Mapping[str, Part]) -> Iterator[Row]:
    """Whether the ILP is at least as good as the others in everything, at no larger size."""
    for net, (title, _) in NETS.items():
        for budget in BUDGETS:
            criterion = f"{title} at {float(budget):.0%} of int8 size: ILP against uniform, greedy"
            if not parts[net].ready:
                yield missing(f"{criterion} (not run: {parts[net].why})", "dominates")
                continue
            found = parts[net].found
            at = {r["solver"]: r for r in found["rows"] if str(r["budget"]) == budget}
            told = ", ".join(f"{s} {at[s]['metric']:.2f} {at[s]['sqnr']:.1f} dB" for s in ("ilp", *RIVALS))
            worse = [r for r in RIVALS if not found["dominates"][budget][r]]
            value = f"not {', '.join(worse)}" if worse else "dominates"
            yield Row(f"{criterion} ({told})", value, "dominates", not worse)


def latency_rows(parts: Mapping[str, Part]) -> Iterator[Row]:
    """The worst prediction of each network."""
    for net, part in parts.items():
        criterion = f"{NETS[net][0]}, mixed: predicted latency off the measured one"
        rows = [r for r in part.found.get("rows", ()) if "error" in r] if part.ready else []
        if not rows:
            yield missing(f"{criterion} (not run: {part.why or 'no budget was feasible'})", f"<= {LATENCY_ERROR:.2f}")
            continue
        worst = max(rows, key=lambda r: float(r["error"]))
        told = f"{worst['budget']}: {worst['predicted_ms']:.2f} for {worst['measured_ms']:.2f} ms, {len(rows)} models"
        yield at_most(f"{criterion} ({told})", float(worst["error"]), LATENCY_ERROR)


def resume_rows(part: Part) -> Iterator[Row]:
    """Rounds whose bytes differ."""
    for what in ("compile", "assign"):
        criterion = f"{what}, killed at random and resumed: rounds with other bytes"
        if not part.ready:
            yield missing(f"{criterion} (not run: {part.why})", "== 0")
            continue
        found = part.found[what]
        kills = f"{found['kills']} kills in {found['rounds']} rounds"
        row = exactly(f"{criterion} ({kills})", int(found["rounds"]) - int(found["equal"]))
        yield row if found["kills"] else Row(f"{criterion} (nothing was killed)", "-", "== 0", False)


def gemv_rows(part: Part) -> Iterator[Row]:
    """Times as fast."""
    for threads in ("1", "2"):
        title = f"int4 weights, one row by 4096 x 4096, {threads} thread{'s' if threads == '2' else ''}"
        if not part.ready:
            yield missing(f"{title} (not run: {part.why})", f">= {OUR_INT8:.2f}")
            continue
        times = part.found[threads]
        theirs = min(t for side, t in times.items() if side.startswith("MatMulNBits 4 bits"))
        yield at_least(f"{title}: times our int8", times["ours 8 bits"] / times["ours 4 bits"], OUR_INT8)
        yield at_least(f"{title}: times MatMulNBits 4 bits", theirs / times["ours 4 bits"], THEIR_INT4)


def sensitivity_lines(parts: Mapping[str, Part]) -> Iterator[str]:
    """Rank correlation with what was measured."""
    for net, part in parts.items():
        if part.ready:
            yield f"{NETS[net][0]}, sensitivity against measured: {told(part.found['rank_correlation'])}"
        else:
            yield f"{NETS[net][0]}, sensitivity: {part.why}"


def told(correlations: Mapping[str, Any]) -> str:
    """`gradient 0.91, ...`, of the divergence where there are several."""
    return ", ".join(
        f"{name} {value if not isinstance(value, dict) else ' / '.join(f'{k} {v:.2f}' for k, v in value.items())}"
        for name, value in correlations.items()
    )


def measure(quick: bool) -> tuple[list[Row], list[str]]:
    """All rows, and lines below them: first what is not timed, two at a time, then what is, alone."""
    rounding = {(n, m): Part("precision/rounding", n, m, quick=quick) for n in NETS for m in METHODS}
    solvers = {n: Part("precision/allocation", n, quick=quick) for n in NETS}
    sensitivities = {n: Part("precision/sensitivity", n, quick=quick) for n in NETS}
    latency = {n: Part("precision/latency", n, quick=quick) for n in NETS}
    resume, gemv = Part("precision/resume", quick=quick), Part("precision/gemv", quick=quick)
    deadline = time.perf_counter() + (QUICK_SECONDS if quick else 1e6)
    with ThreadPoolExecutor(2) as pool:
        first = [p for (_, method), p in rounding.items() if method in ("best", "nearest")]
        rest = [p for p in rounding.values() if p not in first]
        jobs = [resume, *first, *solvers.values(), *rest, *sensitivities.values()]
        for job in [pool.submit(part.run, deadline) for part in jobs]:
            job.result()
    with watched("speed"):
        ends = time.perf_counter() + (TIMED_SECONDS if quick else 1e6)
        for part in (gemv, latency["minilm"], *latency.values()):
            if not part.ready:
                part.run(ends)
    rows = [*rounding_rows(rounding), *solver_rows(solvers), *latency_rows(latency), *exact_rows(quick)]
    rows += [*resume_rows(resume), *gemv_rows(gemv)]
    return rows, [*rounding_table(rounding), *sensitivity_lines(sensitivities)]


if __name__ == "__main__":
    sys.exit(print_table(__doc__, measure, FOOT))
