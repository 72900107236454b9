"""lock.json: everything that decided an artifact's bytes, so that `replay` can make them again and prove it."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from operator import length_hint
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pydantic

from mulshift import __version__, kernels
from mulshift.backends.onnxruntime import clean
from mulshift.ir import Feeds, ModelError, Samples

PACKAGES = ("onnx", "onnx-ir", "onnxscript", "onnxruntime", "torch", "numpy", "scipy")
FORMAT = 1


class _Model(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")


class Sources(_Model):
    """Where model and data came from, as a user types it; null for objects of Python, which replay must be given.

    Attributes:
        model: path, or `module:function`.
        calibration: path, or `module:function`.
        limit, batch: as `mulshift.data.open_samples` takes them.
        images: fields of `mulshift.images.Preprocessing`, for images.
        example_inputs: data to export a module with, if it was given beside the calibration data.
    """

    model: str | None = None
    calibration: str | None = None
    limit: int | None = None
    batch: int = 1
    images: dict[str, Any] | None = None
    example_inputs: str | None = None


class Lock(_Model):
    """The whole of lock.json. Hashes are SHA-256 in hex."""

    format: int = FORMAT
    sources: Sources
    model_sha256: str
    calibration_sha256: str
    recipe: str
    options: dict[str, Any]
    versions: dict[str, str]
    outputs: dict[str, str]

    def text(self) -> str:
        """JSON, indented, the same text for the same lock."""
        return json.dumps(self.model_dump(), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def read_lock(path: str | Path) -> Lock:
    """The lock of an artifact: path of lock.json or of its folder.

    Raises:
        ModelError: it is missing or is not a lock of ours.
    """
    file = Path(path) / "lock.json" if Path(path).is_dir() else Path(path)
    try:
        return Lock.model_validate_json(file.read_bytes())
    except OSError as e:
        raise ModelError(f"'{file}'", f"cannot be read ({e.strerror or e})", "give an artifact's folder") from e
    except pydantic.ValidationError as e:
        raise ModelError(f"'{file}'", "is not a lock of mulshift", "give the lock.json of an artifact") from e


def versions() -> dict[str, str]:
    """Of mulshift, of its kernel library (verification runs it) and of every package that has a part in the bytes."""
    library = str(kernels.ABI_VERSION) if kernels.is_built() else "not built"
    packages = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {"mulshift": __version__, "kernels": library, **packages}


def sha256(data: bytes) -> str:
    """Hex digest."""
    return hashlib.sha256(data).hexdigest()


def model_sha256(model: ir.Model) -> str:
    """Hash of what a graph computes and of its names; neither paths nor notes of the exporter count."""
    copy = clean(model.clone())
    total = hashlib.sha256()
    for name in sorted(copy.graph.initializers):
        tensor = copy.graph.initializers[name].const_value
        if tensor is not None:
            total.update(f"{name} {tensor.dtype} {tuple(tensor.shape.numpy())}\n".encode())
            total.update(tensor.tobytes())
        copy.graph.initializers[name].const_value = None
    for value in (*copy.graph.inputs, *copy.graph.outputs):
        total.update(ir.serde.serialize_value(value).SerializeToString(deterministic=True))
    for node in copy.graph:
        total.update(ir.serde.serialize_node(node).SerializeToString(deterministic=True))
    for domain, version in sorted(copy.opset_imports.items()):
        total.update(f"{domain} {version}\n".encode())
    return total.hexdigest()


@dataclass
class HashedSamples:
    """Samples whose hash is taken the first time that they are read to the end.

    Attributes:
        samples: the caller's.
    """

    samples: Samples
    _digest: str | None = field(default=None, init=False)

    def __iter__(self) -> Iterator[Feeds]:
        total = hashlib.sha256()
        for feeds in self.samples:
            if self._digest is None:
                _update(total, feeds)
            yield feeds
        self._digest = self._digest or total.hexdigest()

    def __length_hint__(self) -> int:
        found = length_hint(self.samples, -1)
        return NotImplemented if found < 0 else found

    def sha256(self) -> str:
        """Over names, types, shapes and bytes of all feeds in order; reads them if nobody has yet."""
        if self._digest is None:
            for _ in self:
                pass
        assert self._digest is not None
        return self._digest


def _update(total: Any, feeds: Feeds) -> None:
    for name in sorted(feeds):
        array = np.ascontiguousarray(feeds[name])
        total.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        total.update(array.tobytes())
