"""A session of ONNX Runtime whose `mulshift` nodes run the kernel library instead of their bodies: the same bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mulshift import kernels
from mulshift.backends.model_operators import operators_of
from mulshift.ir.errors import ModelError

_REFUSALS = (
    "Fail",
    "InvalidArgument",
    "InvalidGraph",
    "InvalidProtobuf",
    "NoSuchFile",
    "NotImplemented",
    "RuntimeException",
)


def session(model: str | Path | bytes, threads: int | None = None, options: Any = None) -> Any:
    """A CPU session with the kernel library registered.

    Args:
        model: path, or serialized ModelProto.
        threads: of one operator; None lets ONNX Runtime choose.
        options: `onnxruntime.SessionOptions` to go on from; the library is registered in them.

    Returns:
        `onnxruntime.InferenceSession`.

    Raises:
        FileNotFoundError: the library was not built.
        ModelError: ONNX Runtime or a kernel refuses the model, or MULSHIFT_ISA names nothing that this machine runs.
    """
    import onnxruntime as ort

    state = ort.capi.onnxruntime_pybind11_state
    if options is None:
        options = ort.SessionOptions()
        options.log_severity_level = 4  # what goes wrong is raised
    if threads is not None:
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
    kernels.register(options, _operators(model))
    source = str(model) if isinstance(model, Path) else model
    try:
        return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except tuple(getattr(state, name) for name in _REFUSALS) as e:
        where = "model" if isinstance(model, bytes) else f"'{model}'"
        raise ModelError(where, f"ONNX Runtime refuses it ({str(e).strip().splitlines()[0][:300]})") from e


def _operators(model: str | Path | bytes) -> frozenset[str] | None:
    """Those that the library may run; None where ONNX Runtime is to say what is wrong with the model."""
    try:
        return operators_of(model, "mulshift")
    except (OSError, ValueError):
        return None
