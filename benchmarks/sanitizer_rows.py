"""The kernel library under the address and undefined-behaviour sanitizers, inside ONNX Runtime.

python benchmarks/sanitizer_rows.py [--seconds N] builds it into build/sanitized and runs random and malformed nodes
of every operator through it (tests/fuzz_kernels.py), on each instruction set that this machine runs.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from processes import Failed, loud, run
from rows import Row, exactly, finish, missing, show

ROOT = Path(__file__).resolve().parent.parent
SANITIZERS = "-fsanitize=address,undefined -fno-sanitize=vptr -fno-sanitize-recover=all"
QUIET = {"ASAN_OPTIONS": "detect_leaks=0", "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1"}
"""Leaks are Python's and ONNX Runtime's."""
UNDER = "kernels, sanitized"
FOLDER = ROOT / "build" / "sanitized"
ISAS = ("AVX2", "AVX512VNNI", "NEONDOT")
"""As CMakeLists.txt names them, behind MULSHIFT_."""


@dataclass(frozen=True)
class Sanitized:
    """The library, and what has to be loaded before Python for it."""

    library: str
    preload: str


def build(jobs: int = 2) -> Sanitized:
    """The library as CMakeLists.txt makes it, with sanitizers, for what this machine runs.

    Args:
        jobs: compilers at a time.

    Raises:
        Failed: no g++ with sanitizers or no cmake, or it does not compile.
    """
    from mulshift import kernels

    compiler, cmake = shutil.which("g++"), _cmake()
    if not compiler or not cmake:
        raise Failed("no g++ (apt-get install g++)" if cmake else "no cmake (make installs it)")
    preload = []
    for name in ("libasan.so", "libstdc++.so.6"):  # exceptions are watched too, so what throws them comes first
        found = run([compiler, f"-print-file-name={name}"]).strip()
        if not Path(found).is_absolute():
            raise Failed(f"g++ has no {name}")
        preload.append(found)
    options = ["CMAKE_BUILD_TYPE=Sanitized", f"CMAKE_CXX_COMPILER={compiler}", f"CMAKE_CXX_FLAGS=-Og {SANITIZERS}"]
    unknown = [isa for isa in ISAS if isa.lower() not in kernels.instruction_sets()]
    options.append(f"MULSHIFT_WITHOUT={';'.join(f'MULSHIFT_{isa}' for isa in unknown)}")
    run([cmake, "-S", str(ROOT / "kernels"), "-B", str(FOLDER), *(f"-D{option}" for option in options)])
    run([cmake, "--build", str(FOLDER), "-j", str(jobs)])
    return Sanitized(str(FOLDER / "mulshift_kernels.so"), " ".join(preload))


def _cmake() -> str | None:
    beside = Path(sys.executable).parent / "cmake"
    return str(beside) if beside.is_file() else shutil.which("cmake")


def fuzz(what: Sanitized, isa: str, mode: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """tests/fuzz_kernels.py on that library and instruction set."""
    environment = os.environ | QUIET | {"LD_PRELOAD": what.preload, "MULSHIFT_ISA": isa, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "tests" / "fuzz_kernels.py"), mode, what.library, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def _died(done: subprocess.CompletedProcess[str]) -> bool:
    """Whether it did not come to its end; says where, and what the sanitizer reports."""
    if done.returncode == 0:
        return False
    said = [line for line in done.stderr.splitlines() if "ERROR" in line or "runtime error" in line]
    loud((done.stdout.splitlines() or ["at the start"])[-1], (said or [f"exit status {done.returncode}"])[0][:300])
    return True


def _counts(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    for line in done.stdout.splitlines():
        if line.startswith("different"):
            loud("fuzz", line)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@dataclass
class Seen:
    """Of some processes: nodes that they ran, processes that a report (or a crash) ended, nodes gone wrong."""

    nodes: int = 0
    ended: int = 0
    wrong: int = 0


def run_random(what: Sanitized, isa: str, seed: int, seconds: float) -> Seen:
    """So long."""
    done = fuzz(what, isa, "random", seed, seconds)
    if _died(done):
        return Seen(ended=1)
    found = _counts(done)
    return Seen(found["nodes"], 0, found["wrong"])


def run_malformed(what: Sanitized, isa: str) -> Seen:
    """All of them; behind one that ends the process another goes on."""
    seen, first = Seen(), 0
    while _died(done := fuzz(what, isa, "malformed", first)):
        seen.ended += 1
        numbers = [line.split()[0] for line in done.stdout.splitlines() if line[:1].isdigit()]
        if not numbers:  # it did not even start
            return seen
        first = int(numbers[-1]) + 1
    found = _counts(done)
    return Seen(found["nodes"], seen.ended, found["wrong"])


def sanitizer_rows(seconds: float, built: Callable[[], Sanitized] = build) -> Iterator[Row]:
    """All rows, with so many seconds of random nodes."""
    from mulshift import kernels

    isas = kernels.instruction_sets()
    try:
        what = built()
    except Failed as e:
        loud("sanitizers", str(e))
        yield missing(f"{UNDER}: reports", "== 0")
        return
    with ThreadPoolExecutor(2) as pool:
        random = [pool.submit(run_random, what, isa, n, seconds / len(isas)) for n, isa in enumerate(isas)]
        bad = pool.submit(run_malformed, what, isas[0]).result()
        good = [task.result() for task in random]
    nodes = sum(g.nodes for g in good)
    print(f"\n{nodes} random nodes of every operator on {', '.join(isas)}; {bad.nodes} malformed ones")
    yield exactly(f"{UNDER}: reports", sum(g.ended for g in good))
    yield exactly(f"{UNDER}: nodes that differ from the references", sum(g.wrong for g in good))
    yield exactly(f"{UNDER}: crashes by malformed nodes", bad.ended)
    yield exactly(f"{UNDER}: malformed nodes without an error that names them", bad.wrong)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20, help="of random nodes")
    rows = []
    for row in sanitizer_rows(parser.parse_args().seconds):
        print(show(row), flush=True)
        rows.append(row)
    return finish(rows, None)


if __name__ == "__main__":
    sys.exit(main())
