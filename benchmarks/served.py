"""What a process does that is timed in turns with others (`sides.py`): runs when told to, says what it saw.

Lines of standard input are seconds to run for; each is answered by a JSON object on standard output, and so is the
start. The end of the input ends the process.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

WARM_UP, FEWEST = 3, 2


def serve(run: Callable[[], Any], end: Callable[[], dict[str, float]] | None = None) -> None:
    """Answers milliseconds (minimum of the turn), runs, bytes (peak resident); `end` may answer more at the end."""
    for _ in range(WARM_UP):
        run()
    answer({"bytes": peak_bytes()})
    for line in sys.stdin:
        answer(timed(run, float(line)))
    if end:
        answer(end())


def timed(run: Callable[[], Any], seconds: float) -> dict[str, float]:
    """At least FEWEST runs, for so long: the first one finds the caches as others left them."""
    best, runs, end = float("inf"), 0, time.perf_counter() + seconds
    while runs < FEWEST or time.perf_counter() < end:
        start = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - start)
        runs += 1
    return {"milliseconds": best * 1e3, "runs": runs, "bytes": peak_bytes()}


def answer(found: dict[str, float]) -> None:
    """One line."""
    sys.stdout.write(json.dumps(found) + "\n")
    sys.stdout.flush()


def peak_bytes() -> int:
    """Peak resident memory of this process. Linux's ru_maxrss would start with that of the parent."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return next(int(line.split()[1]) * 1024 for line in status.read_text().splitlines() if line.startswith("VmHWM"))
