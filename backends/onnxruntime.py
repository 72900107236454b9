"""ONNX Runtime: integer form (mulshift:: nodes with bodies, fused), portable form (bodies inlined), qdq form.

The form for TensorRT is one of the latter, and runs here too.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import InlinePass, RemoveUnusedFunctionsPass

from mulshift.backends.artifact import Artifact
from mulshift.backends.inlining import inline
from mulshift.backends.qdq import freeze
from mulshift.backends.tensorrt import freeze_signed
from mulshift.ir import ModelError, Target, attach, origin, set_origin
from mulshift.passes.fuse_kernels import FuseKernels
from mulshift.passes.order_channels import OrderChannels

_OLD_IR_VERSION, _OLD_OPSET = 10, 22
"""What ONNX Runtime 1.21 reads, the oldest that runs our artifacts; newer opsets need a newer runtime anyway."""
_REFUSALS = ("Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "NoSuchFile", "NotImplemented")
_OURS = "mulshift."
_PRODUCER = "mulshift"


def lower(model: ir.Model, target: Target) -> Artifact:
    """The artifact of one of the forms; the model is left as it is.

    Args:
        model: INTEGER level, or QDQ level for `onnxruntime-qdq` and `tensorrt`.
        target: one of this backend's rows.
    """
    copy = model.clone()
    for node in copy.graph.all_nodes():
        set_origin(node, origin(node))
    made = _FORMS[target.name](copy)
    RemoveUnusedFunctionsPass()(made)  # type: ignore[no-untyped-call]
    ir.external_data.load_to_model(made)  # weights of float islands: an artifact must not point into the user's files
    return Artifact(clean(made), target)


def _integer(model: ir.Model) -> ir.Model:
    OrderChannels()(model)
    FuseKernels()(model)
    attach(model)
    return model


def _portable(model: ir.Model) -> ir.Model:
    attach(model)
    inline(model)
    return _standard(model)


def _qdq(model: ir.Model) -> ir.Model:
    return _standard(freeze(model))


def _tensorrt(model: ir.Model) -> ir.Model:
    return _standard(freeze_signed(model))


def _standard(model: ir.Model) -> ir.Model:
    """Inline what is left of functions (those of float operators that older opsets lack)."""
    InlinePass()(model)
    used = {node.domain for node in model.graph.all_nodes()}
    for domain in [d for d in model.opset_imports if d and d not in used]:
        del model.opset_imports[domain]
    return model


_FORMS: dict[str, Callable[[ir.Model], ir.Model]] = {
    "onnxruntime": _integer,
    "onnxruntime-portable": _portable,
    "onnxruntime-qdq": _qdq,
    "tensorrt": _tensorrt,
}


def clean(model: ir.Model) -> ir.Model:
    """Drop what exporters left (stack traces with paths of the exporting machine); keep origins and our own notes."""
    for node in model.graph.all_nodes():
        set_origin(node, origin(node))
        node.doc_string = None
        _keep_ours(node.metadata_props)
    made = [v for node in model.graph.all_nodes() for v in node.outputs]
    for value in (*model.graph.inputs, *model.graph.initializers.values(), *made):
        value.doc_string = None
        _keep_ours(value.metadata_props)
    _keep_ours(model.metadata_props)
    _keep_ours(model.graph.metadata_props)
    model.doc_string = model.graph.doc_string = None
    model.producer_name, model.producer_version = _PRODUCER, None
    if model.opset_imports.get("", 0) <= _OLD_OPSET:
        model.ir_version = min(model.ir_version, _OLD_IR_VERSION)
    return model


def _keep_ours(props: dict[str, str]) -> None:
    kept = {k: v for k, v in sorted(props.items()) if k.startswith(_OURS)}
    props.clear()
    props.update(kept)


def session(
    model: str | Path | bytes,
    threads: int | None = None,
    precise: bool = True,
    optimize: bool = True,
) -> Any:
    """A CPU session of stock ONNX Runtime.

    Args:
        model: path, or serialized ModelProto.
        threads: of one operator; None lets ONNX Runtime choose.
        precise: on x86 without VNNI, where u8 x s8 sums saturate, ONNX Runtime turns constant s8 weights into u8
            (`session.x64quantprecision`; docs/decisions/0001). No effect elsewhere. Only the qdq form needs it.
        optimize: False runs the graph as it is written.

    Returns:
        `onnxruntime.InferenceSession`.

    Raises:
        ModelError: ONNX Runtime refuses the model.
    """
    import onnxruntime as ort

    state = ort.capi.onnxruntime_pybind11_state
    options = ort.SessionOptions()
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
    if precise:
        options.add_session_config_entry("session.x64quantprecision", "1")
    if not optimize:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    source = str(model) if isinstance(model, Path) else model
    try:
        return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except tuple(getattr(state, name) for name in _REFUSALS) as e:
        where = "model" if isinstance(model, bytes) else f"'{model}'"
        raise ModelError(where, f"ONNX Runtime refuses it ({str(e).strip().splitlines()[0][:300]})") from e


def with_outputs(proto: onnx.ModelProto, outputs: list[tuple[str, int]]) -> bytes:
    """The model, serialized, with (name, element type) values as its only outputs."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    del copy.graph.output[:]
    for name, kind in outputs:
        copy.graph.output.append(onnx.helper.make_tensor_value_info(name, kind, None))
    return bytes(copy.SerializeToString())
