"""ONNX files and protos into the graph. Big weights stay on disk: `onnx_ir` maps external data into memory lazily."""

from __future__ import annotations

import os

import onnx
import onnx_ir as ir

from mulshift.ir.errors import ModelError
from mulshift.ir.frontend.validate import check_proto
from mulshift.ir.frontend.weights import check_external_data


def read_onnx(path: str) -> ir.Model:
    """The graph of a binary .onnx file, external data not yet read.

    Raises:
        ModelError: not an ONNX file, cut short, not a valid graph, or external data missing or too short.
    """
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        proto = onnx.load_model(path, format="protobuf", load_external_data=False)
    except DecodeError as e:
        raise ModelError(path, "is not an ONNX model, or is cut short", "export or copy it again") from e
    except OSError as e:
        raise ModelError(path, f"cannot be read ({e.strerror})") from e
    return read_proto(proto, path)


def read_proto(proto: onnx.ModelProto, where: str) -> ir.Model:
    """The graph of a proto. `where` names it in errors; if it is a path, external data is looked for beside it."""
    check_proto(proto, where)
    model = ir.serde.deserialize_model(proto)
    if os.path.exists(where):
        ir.external_data.set_base_dir(model.graph, os.path.dirname(os.path.abspath(where)))
    check_external_data(model, where)
    return model
