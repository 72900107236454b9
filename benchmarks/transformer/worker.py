"""One configuration of `speed.py` in a process of its own, which loads nothing but the runtime, timed by `sides.py`.

python benchmarks/transformer/worker.py ENGINE MODEL DATA.npz THREADS; ENGINE is a row of ENGINES.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import here  # noqa: F401
import numpy as np
from cpu_worker import Run
from served import serve

Feeds: TypeAlias = Mapping[str, np.ndarray]


def onnxruntime(path: str, feeds: Feeds, threads: int) -> Run:
    """With its default options."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, feeds)


def ours(path: str, feeds: Feeds, threads: int) -> Run:
    """ONNX Runtime with our kernels."""
    import mulshift

    session: Any = mulshift.session(path, threads)
    return lambda: session.run(None, feeds)


def openvino(path: str, feeds: Feeds, threads: int) -> Run:
    """The inputs shared, not copied."""
    import openvino as ov

    options = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY"}
    request = ov.Core().compile_model(path, "CPU", options).create_infer_request()
    shared = {name: ov.Tensor(x, shared_memory=True) for name, x in feeds.items()}

    def run() -> Any:
        request.infer(shared)
        return request.get_output_tensor().data

    return run


ENGINES: dict[str, Callable[[str, Feeds, int], Run]] = {"onnxruntime": onnxruntime, "openvino": openvino, "ours": ours}


def main(engine: str, path: str, data: str, threads: str) -> None:
    with np.load(data) as stored:
        feeds = {k: np.ascontiguousarray(stored[k][0]) for k in stored.files}
    serve(ENGINES[engine](path, feeds, int(threads)))


if __name__ == "__main__":
    main(*sys.argv[1:])
