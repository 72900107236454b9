"""Time one configuration in a process of its own, which loads nothing but the runtime.

python benchmarks/cpu_worker.py ENGINE FILE INPUT.npy THREADS SECONDS; ENGINE is a row of ENGINES. Prints one JSON
object: milliseconds (minimum), runs, bytes (peak resident).
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

WARM_UP, FEWEST = 3, 5
Run: TypeAlias = Callable[[], Any]


def onnxruntime(path: str, x: np.ndarray, threads: int) -> Run:
    """With its default options."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    return _feed(ort.InferenceSession(path, options, providers=["CPUExecutionProvider"]), x)


def ours(path: str, x: np.ndarray, threads: int) -> Run:
    """ONNX Runtime with our kernels."""
    import mulshift

    return _feed(mulshift.session(path, threads), x)


def _feed(session: Any, x: np.ndarray) -> Run:
    feeds = {session.get_inputs()[0].name: x}
    return lambda: session.run(None, feeds)[0]


def openvino(path: str, x: np.ndarray, threads: int) -> Run:
    """The batch fixed, for OpenVINO is slower with a dynamic one; the input shared, not copied."""
    import openvino as ov

    core = ov.Core()
    model = core.read_model(path)
    model.reshape(list(x.shape))
    options = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY"}
    request = core.compile_model(model, "CPU", options).create_infer_request()
    shared = ov.Tensor(x, shared_memory=True)

    def run() -> Any:
        request.infer([shared])
        return request.get_output_tensor().data

    return run


def litert(path: str, x: np.ndarray, threads: int) -> Run:
    """LiteRT with XNNPACK (its default); the input given in its own order, NHWC."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=path, num_threads=threads)
    interpreter.allocate_tensors()
    source, target = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]
    data = np.ascontiguousarray(x.transpose(0, 2, 3, 1))

    def run() -> Any:
        interpreter.set_tensor(source, data)
        interpreter.invoke()
        return interpreter.get_tensor(target)

    return run


ENGINES: dict[str, Callable[[str, np.ndarray, int], Run]] = {
    "onnxruntime": onnxruntime,
    "openvino": openvino,
    "litert": litert,
    "ours": ours,
}


def peak_bytes() -> int:
    """Peak resident memory of this process. Linux's ru_maxrss would start with that of the parent."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return next(int(line.split()[1]) * 1024 for line in status.read_text().splitlines() if line.startswith("VmHWM"))


def measure(run: Run, seconds: float) -> dict[str, float]:
    """Minimum time of a run in milliseconds, over at least FEWEST runs and `seconds`."""
    for _ in range(WARM_UP):
        run()
    best, runs, end = float("inf"), 0, time.perf_counter() + seconds
    while runs < FEWEST or time.perf_counter() < end:
        start = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - start)
        runs += 1
    return {"milliseconds": best * 1e3, "runs": runs, "bytes": peak_bytes()}


def main(engine: str, path: str, data: str, threads: str, seconds: str) -> None:
    run = ENGINES[engine](path, np.load(data), int(threads))
    sys.stdout.write(json.dumps(measure(run, float(seconds))) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
