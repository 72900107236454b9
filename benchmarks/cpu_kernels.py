"""Speed and memory on this CPU beside int8 peers, one line a criterion: `python benchmarks/cpu_kernels.py [--quick]`.

Networks of `networks.py`, batch 1 and 8, 1 and 2 threads. Every tool quantizes the same ONNX file on the same data.
Each configuration is timed in processes of its own, in turns with its peers (`sides.py`), and its best run counts:
other work on the machine hits all sides alike. `--quick` does batch 1 alone, with fewer repeats, in less than 5
minutes; models and the sanitized library stay in build/ for the next run.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

import models
from node_rows import Plan, node_rows
from processes import Failed, loud, script, watched
from rows import Row, at_least, at_most, finish, missing, show
from sanitizer_rows import build, sanitizer_rows
from sides import Side, take_turns

CONFIGURATIONS = {
    "float": ("onnxruntime", "model.onnx", "float"),
    "ort int8": ("onnxruntime", "model.onnx", "ort int8"),
    "openvino int8": ("openvino", "model.xml", "openvino int8"),
    "litert int8": ("litert", "{batch}.tflite", "litert int8"),
    "ours qdq": ("onnxruntime", "qdq/model.onnx", "ours"),
    "ours": ("ours", "integer/model.onnx", "ours"),
}
"""name -> engine (a row of cpu_worker.ENGINES), file, which row of cpu_prepare.PREPARE makes its folder."""
PEERS = ("ort int8", "openvino int8", "litert int8")
MEMORY_PEER = "ort int8"
BOUNDS = {"efficientnet-lite0": 1.25, "mobilenet-v2": 1.25, "resnet20": 1.25, "resnet50": 1.05}
"""Times as fast as the fastest int8 peer at batch 1."""
NOT_SLOWER = ("float", "ours qdq")
THREADS = (1, 2)
NAME_WIDTH = 42


@dataclass(frozen=True)
class Effort:
    """How much to measure.

    Attributes:
        batches: sizes to time; criteria are on 1.
        rounds: processes a configuration.
        seconds: of turns of all configurations of a setting, a round.
        node_seconds: the same of nodes.
        samples: to calibrate on.
        fuzz: seconds of random nodes under sanitizers.
    """

    batches: tuple[int, ...]
    rounds: int
    seconds: float
    node_seconds: float
    samples: int
    fuzz: float


QUICK, FULL = Effort((1,), 2, 3.0, 0.6, 4, 5), Effort((1, 8), 3, 15.0, 3.0, 16, 120)


@dataclass
class Table:
    """What is measured.

    Attributes:
        folders: (network, row of cpu_prepare.PREPARE) -> its files, if they could be made.
        sides: (network, threads, batch) -> configuration -> its process.
    """

    effort: Effort
    folders: dict[tuple[str, str], Path] = field(default_factory=dict)
    sides: dict[tuple[str, int, int], dict[str, Side]] = field(default_factory=dict)

    def settings(self) -> list[tuple[str, int, int]]:
        """(network, threads, batch)."""
        return [(n, t, b) for n, b, t in product(BOUNDS, self.effort.batches, THREADS)]

    def seen(self, setting: tuple[str, int, int], name: str, what: str) -> float | None:
        """The least milliseconds, or the most bytes."""
        side = self.sides.get(setting, {}).get(name)
        return side.seen.get(what) if side else None

    def times(self, setting: tuple[str, int, int]) -> dict[str, float | None]:
        """Milliseconds of all configurations."""
        return {name: self.seen(setting, name, "milliseconds") for name in CONFIGURATIONS}


def prepare(table: Table, network: str) -> None:
    """Make all files of a network, each by a process of its own; what fails is named and left out."""
    for step in dict.fromkeys(step for _, _, step in CONFIGURATIONS.values()):
        try:
            made = script("cpu_prepare", step, network, table.effort.samples)
            table.folders[network, step] = Path(made.splitlines()[-1])
        except Failed as e:
            names = [n for n, row in CONFIGURATIONS.items() if row[2] == step]
            loud(f"{network}, {' and '.join(names)} left out", str(e))


def time_all(table: Table) -> None:
    """The rounds of one setting lie far apart, so that noise rarely hits them all."""
    for setting in table.settings():
        table.sides[setting] = dict(sides_of(table, *setting))
    for number in range(table.effort.rounds):
        for (network, *_), sides in table.sides.items():
            well = {name: side for name, side in sides.items() if not side.why}
            take_turns(well, table.effort.seconds, PEERS)
            for name, side in well.items():
                if side.why:
                    loud(f"{network}, {name} left out", side.why)
        print(f"round {number + 1} of {table.effort.rounds} done", flush=True)


def sides_of(table: Table, network: str, threads: int, batch: int) -> Iterator[tuple[str, Side]]:
    """A process for each configuration."""
    for name, (engine, file, step) in CONFIGURATIONS.items():
        if (network, step) in table.folders:
            files = file.format(batch=batch), table.folders[network, "float"] / f"x{batch}.npy"
            yield name, Side("cpu_worker", (engine, table.folders[network, step] / files[0], files[1], threads))


def print_head() -> None:
    print("\nmilliseconds, and below them how many times as fast ours is")
    if not vnni():
        print(
            "(no VNNI here: sums of ort int8 and openvino int8 may saturate; those of ours and litert int8 are exact.\n"
            " Ours has the weights of its recipes ...-reduce-range, within +-64)"
        )
    print(" " * NAME_WIDTH + "".join(f"{name:>15}" for name in CONFIGURATIONS), flush=True)


def vnni() -> bool:
    """Whether u8 x s8 products are exact here: not on x86 without VNNI."""
    info = Path("/proc/cpuinfo")
    text = info.read_text() if info.is_file() else ""
    return "avx512_vnni" in text or "avx_vnni" in text or "avx2" not in text


def print_line(table: Table, setting: tuple[str, int, int]) -> None:
    times, (network, threads, batch) = list(table.times(setting).values()), setting
    title = f"{network}, batch {batch}, {_threads(threads)}"
    print(f"{title:<{NAME_WIDTH}}" + "".join("              -" if t is None else f"{t:15.3f}" for t in times))
    ours = times[-1]
    if ours is not None:
        ratios = ("              -" if t is None else f"{t / ours:14.2f}x" for t in times)
        print(" " * NAME_WIDTH + "".join(ratios), flush=True)


def _threads(count: int) -> str:
    return f"{count} thread{'s' if count > 1 else ''}"


def print_memory(table: Table) -> None:
    print("\npeak resident memory, MB, batch 1, 1 thread")
    for network in BOUNDS:
        found = [table.seen((network, 1, 1), name, "bytes") for name in CONFIGURATIONS]
        shown = "".join("              -" if f is None else f"{f / 1e6:15.1f}" for f in found)
        print(f"{network:<{NAME_WIDTH}}{shown}", flush=True)


def speed_rows(table: Table) -> Iterator[Row]:
    """Batch 1 against the fastest peer of this run, float, and our own QDQ form."""
    for network, bound in BOUNDS.items():
        for threads in THREADS:
            times = table.times((network, threads, 1))
            peers = {n: t for n in PEERS if (t := times[n]) is not None}
            fastest = min(peers, key=lambda n: peers[n], default="")
            against = {f"{fastest or 'no peer'} (fastest int8 peer)": (fastest, bound)}
            against |= {name: (name, 1.0) for name in NOT_SLOWER}
            for title, (name, least) in against.items():
                yield _ratio(f"{network}, {_threads(threads)}: times as fast as {title}", times, name, least)


def _ratio(criterion: str, times: dict[str, float | None], name: str, bound: float) -> Row:
    theirs, ours = times.get(name), times["ours"]
    if theirs is None or ours is None:
        return missing(criterion, f">= {bound:.2f}")
    return at_least(criterion, theirs / ours, bound)


def memory_rows(table: Table) -> Iterator[Row]:
    for network in BOUNDS:
        criterion = f"{network}, 1 thread: peak memory against {MEMORY_PEER}, %"
        ours, theirs = (table.seen((network, 1, 1), name, "bytes") for name in ("ours", MEMORY_PEER))
        if ours is None or theirs is None:
            yield missing(criterion, "<= 100.0")
        else:
            yield at_most(criterion, 100 * ours / theirs, 100, ".1f")


def measure(folder: Path, effort: Effort) -> Iterator[Row]:
    """Prepare (two things at a time, for nothing is timed), then time."""
    table, start = Table(effort), time.perf_counter()
    with ThreadPoolExecutor(2) as pool:
        sanitized = pool.submit(build, 1)
        list(pool.map(lambda network: prepare(table, network), sorted(BOUNDS, reverse=True)))
    print(f"prepared in {time.perf_counter() - start:.0f} s", flush=True)
    with watched("networks"):
        time_all(table)
    print_head()
    for setting in table.settings():
        print_line(table, setting)
    print_memory(table)
    yield from speed_rows(table)
    yield from memory_rows(table)
    with watched("kernels"):
        kernels = list(node_rows(Plan(folder, effort.rounds, effort.node_seconds)))
    yield from kernels
    yield from sanitizer_rows(effort.fuzz, sanitized.result)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="batch 1 alone, fewer repeats, under 5 minutes")
    parser.add_argument("--json", metavar="FILE", help="write the rows as JSON")
    options = parser.parse_args()
    if models.available():
        raise SystemExit(models.available())
    with tempfile.TemporaryDirectory(prefix="cpu-kernels-") as folder:
        rows = list(measure(Path(folder), QUICK if options.quick else FULL))
    print()
    for row in rows:
        print(show(row))
    return finish(rows, options.json)


if __name__ == "__main__":
    sys.exit(main())
