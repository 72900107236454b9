"""A session of ONNX Runtime whose `mulshift` nodes run the kernel library instead of their bodies: the same bits."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any

from mulshift import kernels
from mulshift.backends.model_bodies import without_bodies
from mulshift.backends.model_operators import nodes_of

if TYPE_CHECKING:
    from pathlib import Path  # itself half a megabyte of modules

DOMAIN = "mulshift"
SMALL = 2**20
"""Bytes of a model that is read here and given to ONNX Runtime less its bodies: a large one would be held twice."""
EXTERNAL = b"location"
"""What a model with data in other files holds: it must be read where it lies."""
PLAIN = {"Concat", "DequantizeLinear", "Flatten", "Pad", "QuantizeLinear", "Reshape", "Slice", "Split"}
"""Beside ours, what ONNX Runtime's graph optimizers make nothing of: 0.4 MB of them are not loaded."""
SPIN, SPIN_MICROSECONDS = "session.intra_op.spin_duration_us", "100"
"""How long a thread waits for work awake: longer than between two nodes. The default is milliseconds, taken from
whoever else wants the core, our other threads too. An ONNX Runtime that does not know the entry keeps to that."""
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
    short = _without_bodies(model)
    nodes = _nodes(model if short is None else short)
    if options is None:
        options = ort.SessionOptions()
        options.log_severity_level = 4  # what goes wrong is raised
        options.enable_mem_pattern = False  # one block for all values at once
        options.add_session_config_entry(SPIN, SPIN_MICROSECONDS)
        if nodes and all(domain == DOMAIN or (not domain and op in PLAIN) for domain, op in nodes):
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    if threads is not None:
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
    kernels.register(options, None if nodes is None else [op for domain, op in nodes if domain == DOMAIN])
    refusals = tuple(getattr(state, name) for name in _REFUSALS)
    if short is not None:
        with contextlib.suppress(*refusals):  # the whole model says it again, or can do without a kernel
            made = ort.InferenceSession(short, options, providers=["CPUExecutionProvider"])
            made._model_bytes = None  # kept to go on with other providers; there are none
            return made
    source = model if isinstance(model, bytes) else os.fspath(model)
    try:
        return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except refusals as e:
        from mulshift.ir.errors import ModelError

        where = "model" if isinstance(model, bytes) else f"'{model}'"
        raise ModelError(where, f"ONNX Runtime refuses it ({str(e).strip().splitlines()[0][:300]})") from e


def _without_bodies(model: str | Path | bytes) -> bytes | None:
    """What to give to ONNX Runtime instead; None where the model is to be read as it is."""
    if isinstance(model, bytes):
        data = model if len(model) <= SMALL else b""
    else:
        data = b""
        if os.path.isfile(model) and os.path.getsize(model) <= SMALL:
            with open(model, "rb") as file:
                data = file.read()
    if not data or EXTERNAL in data:
        return None
    try:
        return without_bodies(data, DOMAIN, kernels.has_operator)
    except ValueError:
        return None


def _nodes(model: str | Path | bytes) -> frozenset[tuple[str, str]] | None:
    """Domains and types of its nodes; None where ONNX Runtime is to say what is wrong with the model."""
    try:
        return nodes_of(model)
    except (OSError, ValueError):
        return None
