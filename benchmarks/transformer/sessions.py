"""Sessions that both sides of a comparison of accuracy run on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

THREADS = 2


def floats(path: Path) -> Any:
    """ONNX Runtime."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = THREADS, 3
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def with_kernels(path: Path) -> tuple[Any, str]:
    """ONNX Runtime with our kernels; where a kernel refuses the model, without, which gives the same bits, and why."""
    import mulshift
    from mulshift.backends import onnxruntime

    try:
        return mulshift.session(path, THREADS), ""
    except mulshift.MulshiftError as e:
        return onnxruntime.session(path, THREADS), f"run without kernels: {e}"
