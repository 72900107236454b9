"""One configuration in a process of its own, which loads nothing but the runtime, to be timed by `sides.py`.

python benchmarks/cpu_worker.py ENGINE FILE INPUT.npy THREADS; ENGINE is a row of ENGINES.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from served import serve

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


def main(engine: str, path: str, data: str, threads: str) -> None:
    serve(ENGINES[engine](path, np.load(data), int(threads)))


if __name__ == "__main__":
    main(*sys.argv[1:])
