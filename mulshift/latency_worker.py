"""The process that times one configuration: `python -m mulshift.latency_worker MODEL FEEDS THREADS SECONDS RUNTIME`."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

KERNELS, STOCK = "kernels", "stock"
"""RUNTIME: ONNX Runtime with the kernel library, or alone."""
WARM_UP, FEWEST = 3, 10


def measure(model: Path, feeds: Path, threads: int, seconds: float, runtime: str) -> dict[str, Any]:
    """Minimum time of a run in milliseconds, the number of runs, and the kernels' instruction set or None."""
    with np.load(feeds, allow_pickle=False) as data:
        given = {name: data[name] for name in data.files}
    running, kernels = _session(model, threads, runtime)
    for _ in range(WARM_UP):
        running.run(None, given)
    best, runs, end = float("inf"), 0, time.perf_counter() + seconds
    while runs < FEWEST or time.perf_counter() < end:
        start = time.perf_counter()
        running.run(None, given)
        best = min(best, time.perf_counter() - start)
        runs += 1
    return {"milliseconds": best * 1e3, "runs": runs, "kernels": kernels}


def _session(model: Path, threads: int, runtime: str) -> tuple[Any, str | None]:
    if runtime == KERNELS:
        from mulshift.backends.kernel_session import session as with_kernels
        from mulshift.kernels import instruction_set

        return with_kernels(model, threads), instruction_set()
    from mulshift.backends.onnxruntime import session

    return session(model, threads), None


if __name__ == "__main__":
    made = measure(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]), sys.argv[5])
    sys.stdout.write(json.dumps(made))
