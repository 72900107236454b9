"""Speed and memory on this CPU beside int8 peers, one line a criterion: `python benchmarks/cpu_kernels.py [--quick]`.

Networks of `networks.py`, batch 1 and 8, 1 and 2 threads. Every tool quantizes the same ONNX file on the same data.
Each configuration is timed in processes of its own, in turns, and its best run counts: other work on the machine hits
all sides alike. `--quick` does batch 1 alone, with fewer repeats, in less than 5 minutes.
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
from processes import Failed, loud, measured, script, watched
from rows import Row, at_least, at_most, finish, missing, show
from sanitizer_rows import sanitizer_rows

CONFIGURATIONS = {
    "float": ("onnxruntime", "model.onnx", "float"),
    "ort int8": ("onnxruntime", "ort.onnx", "ort int8"),
    "openvino int8": ("openvino", "openvino.xml", "openvino int8"),
    "litert int8": ("litert", "litert-{batch}.tflite", "litert int8"),
    "ours qdq": ("onnxruntime", "ours-qdq/model.onnx", "ours"),
    "ours": ("ours", "ours/model.onnx", "ours"),
}
"""name -> engine (a row of cpu_worker.ENGINES), file, what makes it (a row of cpu_prepare.PREPARE)."""
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
        seconds: of timing, a process.
        samples: to calibrate on.
        fuzz: seconds of random nodes under sanitizers.
    """

    batches: tuple[int, ...]
    rounds: int
    seconds: float
    samples: int
    fuzz: float


QUICK, FULL = Effort((1,), 2, 0.25, 4, 5), Effort((1, 8), 3, 2.0, 16, 120)


@dataclass
class Seen:
    """Of one configuration: best milliseconds, and least peak memory in bytes, over its processes."""

    milliseconds: float = float("inf")
    memory: float = float("inf")


@dataclass
class Table:
    """What was measured: (network, threads, batch, configuration) -> Seen; nothing for what failed."""

    folder: Path
    effort: Effort
    seen: dict[tuple[str, int, int, str], Seen] = field(default_factory=dict)
    failed: set[tuple[str, str]] = field(default_factory=set)

    def settings(self) -> list[tuple[str, int, int]]:
        """(network, batch, threads)."""
        return list(product(BOUNDS, self.effort.batches, THREADS))

    def milliseconds(self, network: str, threads: int, batch: int, name: str) -> float | None:
        found = self.seen.get((network, threads, batch, name))
        return found.milliseconds if found else None


def prepare(table: Table, network: str) -> None:
    """Make all files of a network, each by a process of its own; what fails is named and left out."""
    steps = list(dict.fromkeys(step for _, _, step in CONFIGURATIONS.values()))
    for step in steps:
        try:
            script("cpu_prepare", step, network, table.folder, table.effort.samples)
        except Failed as e:
            _fail(table, network, [n for n, row in CONFIGURATIONS.items() if row[2] == step], str(e))


def _fail(table: Table, network: str, names: list[str], why: str) -> None:
    table.failed |= {(network, name) for name in names}
    loud(f"{network}, {' and '.join(names)} left out", why)


def time_all(table: Table) -> None:
    """All configurations in turns; the rounds of one setting lie far apart, so that noise rarely hits them all."""
    for number in range(table.effort.rounds):
        for network, batch, threads in table.settings():
            for name in CONFIGURATIONS:
                if (network, name) not in table.failed:
                    time_one(table, network, threads, batch, name)
        print(f"round {number + 1} of {table.effort.rounds} done", flush=True)


def time_one(table: Table, network: str, threads: int, batch: int, name: str) -> None:
    """One process."""
    engine, file, _ = CONFIGURATIONS[name]
    start = table.folder / network
    files = f"{start}-{file.format(batch=batch)}", f"{start}-x{batch}.npy"
    try:
        found = measured("cpu_worker", engine, *files, threads, table.effort.seconds)
    except Failed as e:
        _fail(table, network, [name], str(e))
        return
    best = table.seen.setdefault((network, threads, batch, name), Seen())
    best.milliseconds = min(best.milliseconds, found["milliseconds"])
    best.memory = min(best.memory, found["bytes"])


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


def print_line(table: Table, network: str, threads: int, batch: int) -> None:
    times = [table.milliseconds(network, threads, batch, name) for name in CONFIGURATIONS]
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
        found = [table.seen.get((network, 1, 1, name)) for name in CONFIGURATIONS]
        shown = "".join("              -" if f is None else f"{f.memory / 1e6:15.1f}" for f in found)
        print(f"{network:<{NAME_WIDTH}}{shown}", flush=True)


def speed_rows(table: Table) -> Iterator[Row]:
    """Batch 1 against the fastest peer of this run, float, and our own QDQ form."""
    for network, bound in BOUNDS.items():
        for threads in THREADS:
            times = {n: table.milliseconds(network, threads, 1, n) for n in CONFIGURATIONS}
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
        ours, theirs = (table.seen.get((network, 1, 1, name)) for name in ("ours", MEMORY_PEER))
        if ours is None or theirs is None:
            yield missing(criterion, "<= 100.0")
        else:
            yield at_most(criterion, 100 * ours.memory / theirs.memory, 100, ".1f")


def measure(folder: Path, effort: Effort) -> Iterator[Row]:
    """Prepare (two networks at a time, for nothing is timed), then time."""
    table = Table(folder, effort)
    start = time.perf_counter()
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda network: prepare(table, network), sorted(BOUNDS, reverse=True)))
    print(f"prepared in {time.perf_counter() - start:.0f} s", flush=True)
    with watched("networks"):
        time_all(table)
    print_head()
    for network, batch, threads in table.settings():
        print_line(table, network, threads, batch)
    print_memory(table)
    yield from speed_rows(table)
    yield from memory_rows(table)
    with watched("kernels"):
        kernels = list(node_rows(Plan(folder, effort.rounds, effort.seconds)))
    yield from kernels
    yield from sanitizer_rows(effort.fuzz)


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
