"""The process that times one configuration: `python -m mulshift.latency_worker MODEL FEEDS THREADS SECONDS`."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np

from mulshift.backends.onnxruntime import session

WARM_UP, FEWEST = 3, 10


def measure(model: Path, feeds: Path, threads: int, seconds: float) -> dict[str, float]:
    """Minimum time of a run in milliseconds, and the number of runs."""
    with np.load(feeds, allow_pickle=False) as data:
        given = {name: data[name] for name in data.files}
    running = session(model, threads)
    for _ in range(WARM_UP):
        running.run(None, given)
    best, runs, end = float("inf"), 0, time.perf_counter() + seconds
    while runs < FEWEST or time.perf_counter() < end:
        start = time.perf_counter()
        running.run(None, given)
        best = min(best, time.perf_counter() - start)
        runs += 1
    return {"milliseconds": best * 1e3, "runs": runs}


if __name__ == "__main__":
    made = measure(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
    sys.stdout.write(json.dumps(made))
