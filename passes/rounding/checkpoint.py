"""What a rounding pass has done so far, on disk: a file a block, so that a killed run loses no more than one block."""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from mulshift.ir import Array, DataError, Feeds, UsageError, show
from mulshift.passes.twins import FLOAT_ORIGIN


def run_key(model: ir.Model, options: Mapping[str, object], samples: Iterable[Feeds]) -> str:
    """A hash of all that the result depends on: graph, numbers (also the float model's), options, samples."""
    hashed = hashlib.sha256(show(model).encode())
    hashed.update(json.dumps(dict(options), sort_keys=True, default=str).encode())
    for name, value in sorted(model.graph.initializers.items()):
        for tensor in (value.const_value, value.meta.get(FLOAT_ORIGIN)):
            if tensor is not None:
                hashed.update(name.encode())
                hashed.update(np.ascontiguousarray(tensor.numpy()).tobytes())
    for feeds in samples:
        for name, array in sorted(feeds.items()):
            hashed.update(f"{name}{array.dtype}{array.shape}".encode())
            hashed.update(np.ascontiguousarray(array).tobytes())
    return hashed.hexdigest()


@dataclass(frozen=True)
class Checkpoints:
    """The files of one run in a folder that other runs may share.

    A file appears whole or not at all (written beside, then renamed), and its name begins with the pass and the run's
    key: what another model, option or sample made is never read. numpy's npz, without pickle.

    Attributes:
        folder: made if it is missing.
        name: of the pass.
        key: of `run_key`.
    """

    folder: Path
    name: str
    key: str

    def open(self, facts: Mapping[str, object]) -> int:
        """Note what this run is, as JSON beside its blocks; the number of files there that belong to other runs.

        Raises:
            UsageError: the folder cannot be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            text = json.dumps({"pass": self.name, "key": self.key, **facts}, indent=1, sort_keys=True, default=str)
            self._place(f"{self._stem}.json", text.encode())
        except OSError as e:
            raise UsageError(f"resume folder '{self.folder}'", str(e), "give one that can be written") from e
        return sum(not p.name.startswith(self._stem) for p in self.folder.glob(f"{self.name}-*.json"))

    def read(self, part: str) -> dict[str, Array] | None:
        """What `write` kept of a part; None if it did not come so far.

        Raises:
            DataError: the file is damaged.
        """
        path = self._path(part)
        if not path.is_file():
            return None
        try:
            with np.load(path, allow_pickle=False) as found:
                return {name: found[name] for name in found.files}
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as e:
            raise DataError(f"checkpoint '{path}'", f"cannot be read ({e})", "delete it") from e

    def write(self, part: str, arrays: Mapping[str, Array]) -> None:
        """Keep a part, in the place of what was kept of it before."""
        data = io.BytesIO()
        np.savez(data, **arrays)  # type: ignore[arg-type]
        self._place(self._path(part).name, data.getvalue())

    @property
    def _stem(self) -> str:
        return f"{self.name}-{self.key[:20]}"

    def _path(self, part: str) -> Path:
        return self.folder / f"{self._stem}-{part}.npz"

    def _place(self, name: str, data: bytes) -> None:
        staging = self.folder / f".{name}.{os.getpid()}"
        with staging.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        staging.replace(self.folder / name)
