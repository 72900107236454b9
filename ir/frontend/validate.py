"""What makes a model unusable, found before anything is built on it; one clear line each."""

from __future__ import annotations

import enum
import os
import zipfile

import numpy as np
import onnx
import onnx_ir as ir

from mulshift.ir.errors import ModelError, UnsupportedError
from mulshift.ir.graphs import users
from mulshift.ir.metadata import describe
from mulshift.ir.operators import DOMAIN

DOMAINS = frozenset({"", "ai.onnx", "com.microsoft", DOMAIN})
"""Domains whose operators may stand in a graph after import; functions of any domain are inlined before."""

_CHUNK = 1 << 22


class FileKind(enum.Enum):
    """What a file is, by its first bytes; names say nothing."""

    ONNX = "onnx"
    PT2 = "pt2"


def sniff(path: str) -> FileKind:
    """Which reader a file needs.

    Raises:
        ModelError: missing, a folder, empty, unreadable, or a pickle (TorchScript and state dicts are), never loaded.
    """
    if not os.path.lexists(path):
        raise ModelError(path, "no such file")
    if os.path.isdir(path):
        raise ModelError(path, "is a folder, not a model", "give the .onnx or .pt2 file inside it")
    try:
        with open(path, "rb") as f:
            head = f.read(4)
    except OSError as e:
        raise ModelError(path, f"cannot be read ({e.strerror})") from e
    if not head:
        raise ModelError(path, "is empty")
    if head[:1] == b"\x80":
        raise _pickle(path)
    if head != b"PK\x03\x04":
        return FileKind.ONNX
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile as e:
        raise ModelError(path, "is a broken zip archive, perhaps cut short", "export or copy it again") from e
    if any(name.rsplit("/", 1)[-1] == "data.pkl" for name in names):
        raise _pickle(path)
    return FileKind.PT2


def _pickle(path: str) -> ModelError:
    return ModelError(
        path,
        "is a pickle or TorchScript file, which could run any code and is never loaded",
        "save the module with torch.export.save(torch.export.export(module, args), 'model.pt2') or export it to ONNX",
    )


def check_proto(proto: onnx.ModelProto, where: str) -> None:
    """A graph, an opset and outputs are there, and every name is defined once.

    Raises:
        ModelError
    """
    if not proto.HasField("graph") or not proto.opset_import:
        raise ModelError(where, "is not an ONNX model, or is cut short: it has no graph", "export or copy it again")
    if not proto.graph.output:
        raise ModelError(where, "is cut short or empty: its graph has no outputs", "export or copy it again")


def check_operators(model: ir.Model) -> None:
    """Every operator belongs to a domain that we know.

    Raises:
        UnsupportedError: names the first one that does not.
    """
    for node in model.graph.all_nodes():
        if node.domain not in DOMAINS:
            raise UnsupportedError(
                describe(node),
                f"operator of the unknown domain '{node.domain}'",
                "replace it by standard operators or give it a function body in the model",
            )


def check_external_data(model: ir.Model, where: str) -> None:
    """Every external tensor's file is there and long enough; nothing is read.

    Raises:
        ModelError: names the file and the tensor.
    """
    for graph in model.graphs():
        for name, value in graph.initializers.items():
            tensor = value.const_value
            if isinstance(tensor, ir.ExternalTensor):
                _check_external(tensor, name, where)


def _check_external(tensor: ir.ExternalTensor, name: str, where: str) -> None:
    path = tensor.path
    if not os.path.isfile(path):
        raise ModelError(where, f"external data file '{path}' of initializer '{name}' is missing", "copy it there")
    needed = (tensor.offset or 0) + tensor.nbytes
    size = os.path.getsize(path)
    if size < needed:
        cause = f"external data file '{path}' is too short for initializer '{name}' ({size} of {needed} bytes)"
        raise ModelError(where, cause, "copy it again")


def check_weights(model: ir.Model) -> None:
    """Every float weight is finite; reads external data piece by piece and lets go of it again.

    Raises:
        ModelError: names the initializer and a node that reads it.
    """
    for graph in model.graphs():
        for name, value in graph.initializers.items():
            tensor = value.const_value
            if tensor is None or not tensor.dtype.is_floating_point() or _finite(tensor):
                continue
            reader = next((f" of {describe(node)}" for node in users(value)), "")
            raise ModelError(f"initializer '{name}'{reader}", "holds NaN or infinite values", "repair the weights")


def _finite(tensor: ir.TensorProtocol) -> bool:
    flat = tensor.numpy().reshape(-1)
    finite = all(bool(np.isfinite(flat[i : i + _CHUNK]).all()) for i in range(0, flat.size, _CHUNK))
    if isinstance(tensor, ir.ExternalTensor):
        del flat
        tensor.release()
    return finite
