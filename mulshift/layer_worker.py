"""The process that tells what ran: `python -m mulshift.layer_worker MODEL FEEDS THREADS SECONDS`.

Prints a JSON object: the kernels' instruction set, and node -> [operator that ONNX Runtime ran, seconds of its fastest
run].
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from mulshift.latency_worker import FEWEST, WARM_UP

_END = "_kernel_time"


def main(model: str, feeds: str, threads: str, seconds: str) -> None:
    """Run it with ONNX Runtime's profiler."""
    import onnxruntime

    from mulshift.backends.kernel_session import session
    from mulshift.kernels import instruction_set

    with np.load(feeds, allow_pickle=False) as data:
        given = {name: data[name] for name in data.files}
    with tempfile.TemporaryDirectory(prefix="mulshift-layers-") as folder:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.enable_profiling, options.profile_file_prefix = True, str(Path(folder) / "run")
        running = session(Path(model), int(threads), options)
        end, runs = time.perf_counter() + float(seconds), 0
        while runs < WARM_UP + FEWEST or time.perf_counter() < end:
            running.run(None, given)
            runs += 1
        events = json.loads(Path(running.end_profiling()).read_text(encoding="utf-8"))
    sys.stdout.write(json.dumps({"kernels": instruction_set(), "nodes": fastest(events)}))


def fastest(events: list[dict[str, Any]]) -> dict[str, tuple[str, float]]:
    """Node -> operator and seconds, of ONNX Runtime's trace."""
    found: dict[str, tuple[str, float]] = {}
    for event in events:
        if event.get("cat") != "Node" or not event["name"].endswith(_END):
            continue
        name, took = event["name"].removesuffix(_END), event["dur"] * 1e-6
        op, best = found.get(name, (event["args"]["op_name"], took))
        found[name] = (op, min(best, took))
    return found


if __name__ == "__main__":
    main(*sys.argv[1:])
