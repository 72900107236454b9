"""Rows on single kernels, one thread: matrix product against the machine's peak, depthwise against ONNX Runtime."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import geometric_mean
from typing import Any

from processes import HERE, Failed, loud, measured, run
from rows import Row, at_least, missing
from sides import Side, take_turns

GEMM_BOUND, DEPTHWISE_BOUND = 85.0, 2.0
"""Per cent of the peak; times as fast as ONNX Runtime."""
STOCK = ("stock", "-ort", "QLinearConv")
OURS = {"any s8": ("any s8", "", "DepthwiseNhwc"), "reduce-range": ("reduce-range", "-reduced", "DepthwiseNhwc")}
"""Who, end of the file's name, operator that does the work; ours by the weights."""
PEAKS, NODE_TURN = 3, 0.01
"""Times that the peak is measured in a round; seconds, for each run leaves records behind."""
GEMM_OPERATIONS = {"1024x1024x1024": 2 * 1024**3, "197x768x3072": 2 * 197 * 768 * 3072}


@dataclass(frozen=True)
class Plan:
    """How long to measure: rounds of so many seconds of turns."""

    folder: Path
    rounds: int
    seconds: float


def node_rows(plan: Plan) -> Iterator[Row]:
    """Both tables and all rows."""
    wrong: dict[str, str] = {}
    try:
        wrong = measured("node_models", plan.folder)
    except Failed as e:
        loud("models of one node", str(e))
    found = {name: why for name, why in wrong.items() if why}
    for why in sorted(set(found.values())):
        loud(", ".join(name for name in found if found[name] == why), why)
    good = [name for name in wrong if not wrong[name]]
    yield from _gemm_rows(plan, good)
    yield from _depthwise_rows(plan, [name for name in wrong if name.startswith("depthwise")], good)


def build_peak(folder: Path) -> str:
    """Compile peak.cpp; the program's path, empty where that cannot be."""
    compiler = os.environ.get("CXX") or shutil.which("c++")
    if not compiler:
        loud("peak of the machine", "skipped, no C++ compiler (c++, or CXX)")
        return ""
    try:
        run([*compiler.split(), "-O2", "-std=c++17", str(HERE / "peak.cpp"), "-o", str(folder / "peak")])
    except (Failed, OSError) as e:
        loud("peak of the machine", f"skipped, peak.cpp does not compile ({e})")
        return ""
    return str(folder / "peak")


def _peak(program: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run([program]))
    return found


def _gemm_rows(plan: Plan, good: list[str]) -> Iterator[Row]:
    """Peak and products in turns; the best of each."""
    program = build_peak(plan.folder)
    best, peak, isa = dict.fromkeys(GEMM_OPERATIONS, 0.0), 0.0, ""
    try:
        for _ in range(PEAKS * plan.rounds):
            if program:
                seen = _peak(program)
                peak, isa = max(peak, seen["gops"]), seen["isa"]
            sides = {shape: _product(plan, shape) for shape in GEMM_OPERATIONS if f"gemm-{shape}" in good}
            take_turns(sides, plan.seconds)
            for shape, side in sides.items():
                if side.why:
                    raise Failed(side.why)
                best[shape] = max(best[shape], GEMM_OPERATIONS[shape] / side.seen["milliseconds"] * 1e-6)
    except Failed as e:
        loud("matrix product", str(e))
    print(f"\nmatrix product u8 x s8 with requantization, 1 thread, GOP/s; peak {peak:.1f} ({isa or 'unknown'})")
    for shape, value in best.items():
        print(f"  {shape:<20} {value:8.1f}")
        criterion = f"matrix product {shape} with requantization, 1 thread: % of the peak"
        if peak and value:
            yield at_least(criterion, 100 * value / peak, GEMM_BOUND, ".1f")
        else:
            yield missing(criterion, f">= {GEMM_BOUND:.1f}")


def _product(plan: Plan, shape: str) -> Side:
    return Side("cpu_worker", ("ours", plan.folder / f"gemm-{shape}.onnx", plan.folder / f"gemm-{shape}-x.npy", 1))


def _depthwise_rows(plan: Plan, names: list[str], good: list[str]) -> Iterator[Row]:
    print("\ndepthwise 3x3, 1 thread, microseconds of the kernel alone, and times as fast as ONNX Runtime")
    print(f"  {'':<26} {'ONNX Runtime':>14}" + "".join(f"{who:>14}{'ratio':>8}" for who in OURS))
    ratios: dict[str, list[float]] = {who: [] for who in OURS}
    for name in names:
        best = _kernels(plan, name, (STOCK, *OURS.values()) if name in good else (STOCK,))
        line = f"  {name.removeprefix('depthwise-'):<26} {_text(best.get('stock'), '.0f'):>14}"
        for who, seen in ratios.items():
            ratio = best["stock"] / best[who] if {"stock", who} <= best.keys() else None
            line += f"{_text(best.get(who), '.0f'):>14}{_text(ratio, '.2f'):>8}"
            seen += [] if ratio is None else [ratio]
        print(line, flush=True)
    for who, seen in ratios.items():
        criterion = f"depthwise 3x3, {who} weights, against ONNX Runtime, 1 thread, x: geometric mean"
        if not seen or len(seen) < len(names):
            yield missing(criterion, f">= {DEPTHWISE_BOUND:.2f}")
            continue
        print(f"  {who}: geometric mean {geometric_mean(seen):.2f}, worst {min(seen):.2f}")
        yield at_least(criterion, geometric_mean(seen), DEPTHWISE_BOUND)


def _text(value: float | None, style: str) -> str:
    return "-" if value is None else f"{value:{style}}"


def _kernels(plan: Plan, name: str, sides: tuple[tuple[str, str, str], ...]) -> dict[str, float]:
    """Microseconds of each side, the best of some rounds in turns; a side that fails is left out."""
    best: dict[str, float] = {}
    for _ in range(plan.rounds):
        running = {}
        for who, suffix, op in sides:
            files = plan.folder / f"{name}{suffix}.onnx", plan.folder / f"{name}{suffix}-x.npy"
            running[who] = Side("node_worker", (*files, op, "stock" if who == "stock" else "ours"))
        take_turns(running, plan.seconds, turn=NODE_TURN)
        for who, side in running.items():
            if side.why:
                loud(name, side.why)
                return best
            best[who] = min(best.get(who, float("inf")), side.seen["microseconds"])
    return best
