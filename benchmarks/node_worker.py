"""Time of one node's kernel by ONNX Runtime's profiler, one thread, in a process of its own.

python benchmarks/node_worker.py MODEL INPUT.npy OP ours|stock, to be timed by `sides.py`: its last answer is
microseconds (minimum). Nodes around OP (transposes that ONNX Runtime adds) do not count.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from served import serve

MOST = 3000
"""Runs; the profiler keeps a bounded number of events."""


def session(path: str, ours: bool, profile: str = "") -> Any:
    """ONNX Runtime on one thread, with our kernels or without; `profile` is the beginning of a file's name."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    if profile:
        options.enable_profiling, options.profile_file_prefix = True, profile
    if ours:
        import mulshift

        return mulshift.session(path, 1, options)
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def kernel_times(events: list[dict[str, Any]], op: str) -> list[int]:
    """Microseconds of each run of the only node of type `op`."""
    found = [e for e in events if e.get("cat") == "Node" and e["name"].endswith("_kernel_time")]
    times: dict[str, list[int]] = {}
    for event in found:
        if event["args"]["op_name"] == op:
            times.setdefault(event["name"], []).append(event["dur"])
    if len(times) != 1:
        raise SystemExit(f"{len(times)} nodes {op} ran; there were {sorted({e['args']['op_name'] for e in found})}")
    return next(iter(times.values()))


def main(path: str, data: str, op: str, who: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        running, feeds = session(path, who == "ours", f"{folder}/profile"), {"x": np.load(data)}
        left = iter(range(MOST))

        def run() -> None:
            if next(left, None) is not None:
                running.run(None, feeds)

        def end() -> dict[str, float]:
            return {"microseconds": min(kernel_times(json.loads(Path(running.end_profiling()).read_text()), op))}

        serve(run, end)


if __name__ == "__main__":
    main(*sys.argv[1:])
