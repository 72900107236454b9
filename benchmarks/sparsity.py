"""Zeros in a pattern, one line a criterion: `python benchmarks/sparsity.py [--quick] [--json FILE]`.

What 2:4 leaves of real models by six ways to choose the zeros, how fast products with two of four weights kept are,
whole models where an integer linear program chooses between bits and zeros, and whether sparse operators give the bits
of their dense function bodies. What takes long stays in build/, keyed by sources; `--quick` prunes nothing anew, times
once and ends in less than 5 minutes.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

from parts import Part, print_table
from processes import watched
from rows import Row, at_least, at_most, exactly, missing

QUICK_SECONDS, TIMED_SECONDS = 100.0, 185.0
"""Of --quick, for all but what is timed, and for all that is timed."""
NETS = {"efficientnet-lite0": "EfficientNet-Lite0", "minilm": "MiniLM", "smollm2": "SmolLM2, linear layers"}
UNITS = {"smollm2": "perplexity, times that of float"}
"""Of the loss; points below float else."""
PERMUTED = "+permutation"
METHODS = tuple(f"{score}{after}" for score in ("magnitude", "wanda", "sparsegpt") for after in ("", PERMUTED))
BEST = f"sparsegpt{PERMUTED}"
MOST_FACTOR = 2.0
WHOLE = ("efficientnet-lite0", "minilm")
GEMV, GEMM = "gemv 4096", "gemm 128"
SPEEDS = (
    ("one row by 4096 x 4096, 2:4", GEMV, "per channel", 1.5),
    ("128 rows, 2:4 shared by 64 columns", GEMM, "shared", 1.5),
    ("128 rows, 2:4 per channel", GEMM, "per channel", 1.1),
)
"""Title, beginning of the products' names, side, times our dense int8."""
FOOT = """
Accuracy: 2:4 weights in float, nothing retrained, scored on data that did not calibrate.
Products: the minimum of processes by turns, against our own dense 8-bit kernel; the slowest of the shapes counts.
Whole models: the ILP among w8a8, w8a8:2:4 and w8a8:2:4:shared by measured errors and times, by turns with dense int8;
noise is by how much two copies of the dense model differed in the same turns.
Exact: the kernel library against stock ONNX Runtime, which runs the function bodies, and against the dense kernels."""


def loss(part: Part) -> float:
    """Points below float, or how many times its perplexity."""
    found = part.found
    dense, sparse = float(found["float"]), float(found["sparse"])
    return sparse / dense if found["model"] in UNITS else dense - sparse


def accuracy_rows(parts: Mapping[tuple[str, str], Part]) -> Iterator[Row]:
    """Whether SparseGPT with permutation loses the least, and what SmolLM2 becomes."""
    for net, title in NETS.items():
        criterion = f"{title} at 2:4: method that loses the least"
        found = {m: loss(parts[net, m]) for m in METHODS if parts[net, m].ready}
        absent = [m for m in METHODS if m not in found]
        if absent:
            yield missing(f"{criterion} ({absent[0]} not run: {parts[net, absent[0]].why})", BEST)
        else:
            best = min(METHODS, key=lambda m: (found[m], m != BEST))
            told = f"{BEST} {found[BEST]:.2f}, next {min(v for m, v in found.items() if m != BEST):.2f}"
            yield Row(f"{criterion} ({told})", best, BEST, best == BEST)
        if net in UNITS:
            row = f"{title} at 2:4, {BEST}: {UNITS[net]}"
            yield at_most(row, found[BEST], MOST_FACTOR) if BEST in found else missing(row, f"<= {MOST_FACTOR:.2f}")


def accuracy_table(parts: Mapping[tuple[str, str], Part]) -> Iterator[str]:
    """The loss by each method."""
    yield f"{'loss at 2:4':<26}" + "".join(f"{m:>23}" for m in METHODS)
    for net, title in NETS.items():
        cells = [f"{loss(parts[net, m]):.2f}" if parts[net, m].ready else "-" for m in METHODS]
        yield f"{title:<26}" + "".join(f"{cell:>23}" for cell in cells) + f"  {UNITS.get(net, 'points')}"


def speed_rows(part: Part) -> Iterator[Row]:
    """Times our dense int8, the slowest of the shapes."""
    for title, begins, side, bound in SPEEDS:
        criterion = f"{title}: times our dense int8"
        ratios = {name: t["dense"] / t[side] for name, t in part.found.items() if name.startswith(begins)}
        if not part.ready or not ratios:
            yield missing(f"{criterion} (not run: {part.why})", f">= {bound:.2f}")
            continue
        worst = min(ratios, key=lambda name: ratios[name])
        yield at_least(f"{criterion} ({worst})", ratios[worst], bound)


def speed_table(part: Part) -> Iterator[str]:
    """Times as fast as dense, of each side."""
    for name, times in part.found.items() if part.ready else ():
        sides = ", ".join(f"{side} {times['dense'] / t:.2f}" for side, t in times.items() if side != "dense")
        yield f"{name}: dense {times['dense']:.0f} us; times as fast: {sides}"


def whole_rows(parts: Mapping[str, Part]) -> Iterator[Row]:
    """The slowest of the budgets, against dense int8; what two copies of one model differ by is no difference."""
    for net, part in parts.items():
        criterion = f"{NETS[net]}, ILP choosing bits or zeros: time against dense int8"
        if not part.ready:
            yield missing(f"{criterion} (not run: {part.why})", "<= 1.00")
            continue
        worst, noise = max(part.found["rows"], key=lambda r: float(r["ratio"])), float(part.found["noise"])
        told = f"{worst['budget']}, {worst['sparse']} sparse, {worst['put_back']} put back; noise {noise:.3f}"
        yield Row(f"{criterion} ({told})", f"{worst['ratio']:.3f}", "<= 1 + noise", worst["ratio"] <= 1 + noise)


def whole_table(parts: Mapping[str, Part]) -> Iterator[str]:
    """Every budget."""
    for net, part in parts.items():
        for row in part.found.get("rows", ()) if part.ready else ():
            chosen = ", ".join(f"{count} {c}" for c, count in row["chosen"].items())
            ms = f"{row['ms']:.2f} ms, {row['ratio']:.3f} of dense (predicted {row['predicted']:.3f})"
            yield f"{NETS[net]} at {row['budget']}: {ms}, size {row['size']:.2f}; {chosen}; {row['put_back']} put back"


def exact_rows(part: Part) -> Iterator[Row]:
    """Numbers that differ."""
    criterion = "sparse operators, random shapes: numbers unlike those of the function body"
    if not part.ready:
        yield missing(f"{criterion} (not run: {part.why})", "== 0")
        return
    found = part.found["operators"]
    yield exactly(f"{criterion} ({found['nodes']} nodes, {found['values']} numbers)", found["differences"])
    for net, of_net in part.found["networks"].items():
        told = f"{of_net['layers']} sparse layers, {of_net['values']} numbers"
        yield exactly(
            f"{NETS[net]}, pruned: outputs unlike those of stock ONNX Runtime ({told})", of_net["differences"]
        )


def measure(quick: bool) -> tuple[list[Row], list[str]]:
    """All rows, and lines below them: first what is not timed, two at a time, then what is, alone."""
    accuracy = {(n, m): Part("sparse/accuracy", n, m, quick=quick) for n in NETS for m in METHODS}
    whole = {n: Part("sparse/whole", n, quick=quick) for n in WHOLE}
    exact, products = Part("sparse/exact", quick=quick), Part("sparse/products", quick=quick)
    deadline = time.perf_counter() + (QUICK_SECONDS if quick else 1e6)
    with ThreadPoolExecutor(2) as pool:
        first = [p for (_, method), p in accuracy.items() if method == BEST]
        rest = [p for p in accuracy.values() if p not in first]
        for job in [pool.submit(part.run, deadline) for part in (exact, *first, *rest)]:
            job.result()
    with watched("speed"):
        ends = time.perf_counter() + (TIMED_SECONDS if quick else 1e6)
        for part in (products, *whole.values()):
            part.run(ends)
    rows = [*accuracy_rows(accuracy), *speed_rows(products), *whole_rows(whole), *exact_rows(exact)]
    return rows, [*accuracy_table(accuracy), *speed_table(products), *whole_table(whole)]


if __name__ == "__main__":
    sys.exit(print_table(__doc__, measure, FOOT))
