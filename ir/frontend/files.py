"""What kind of file a path is, told by its content: names say nothing."""

from __future__ import annotations

import enum
import os
import zipfile

from mulshift.ir.errors import ModelError


class FileKind(enum.Enum):
    """Which reader a file needs."""

    ONNX = "onnx"
    PT2 = "pt2"


def sniff(path: str) -> FileKind:
    """Which reader a file needs.

    Raises:
        ModelError: missing, a folder, empty, unreadable, or a pickle (TorchScript and state dicts are), never loaded.
    """
    if not os.path.exists(path):
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
        raise pickled(path)
    if head != b"PK\x03\x04":
        return FileKind.ONNX
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError) as e:
        raise ModelError(path, "is a broken archive, perhaps cut short", "export or copy it again") from e
    if any(name.count("/") == 1 and name.endswith("/data.pkl") for name in names):
        raise pickled(path)
    return FileKind.PT2


def pickled(path: str) -> ModelError:
    """The refusal of a file that could run any code when loaded."""
    return ModelError(
        path,
        "is a pickle or TorchScript file, which can run code when loaded",
        "write the model with torch.export.save(torch.export.export(module, args), 'model.pt2') or as ONNX",
    )
