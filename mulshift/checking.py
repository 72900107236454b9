"""Check an artifact on disk: its files against the lock, its integers against the specification."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import onnx_ir as ir

from mulshift.backends import Artifact, find_target
from mulshift.backends.artifact import MODEL_FILE
from mulshift.backends.verify import Verified, verify_integer, verify_runtime
from mulshift.data import input_specs, open_samples
from mulshift.ir import Feeds, ModelError, VerificationError, load
from mulshift.lock import read_lock, sha256


def open_artifact(folder: str | Path, threads: int | None = None) -> Artifact:
    """An artifact from its folder.

    Raises:
        ModelError: the folder holds none, or a damaged one.
    """
    path = Path(folder) / MODEL_FILE
    if not path.is_file():
        raise ModelError(f"'{folder}'", f"holds no {MODEL_FILE}", "give the folder of an artifact")
    target = find_target(read_lock(folder).options["target"])
    return Artifact(_read(path, target.name), target, threads)


def _read(path: Path, target: str) -> ir.Model:
    if target == "onnxruntime":
        return load(str(path))
    from mulshift.ir.frontend.onnx import read_onnx

    return read_onnx(str(path))


def verify(folder: str | Path, samples: Any, limit: int | None = None) -> Verified:
    """Compare an artifact's integers on stock ONNX Runtime with the specification.

    The integer form is its own specification: its nodes are run by Python arithmetic. The portable and qdq forms
    do not hold the formulas any more; for them the optimized session is compared with the graph run as it is written.

    Args:
        folder: of an artifact.
        samples: as `mulshift.data.open_samples` takes them.
        limit: most samples to run.

    Raises:
        ModelError: the folder is no artifact.
        DataError: the samples do not fit.
        VerificationError: a file was changed, or a number differs.
    """
    artifact = open_artifact(folder)
    for name, digest in read_lock(folder).outputs.items():
        file = Path(folder) / name
        if not file.is_file() or sha256(file.read_bytes()) != digest:
            raise VerificationError(f"'{file}'", "is not the file that was written with lock.json", "compile again")
    feeds: Iterable[Feeds] = islice(open_samples(samples, input_specs(artifact.model)), limit)
    if artifact.target.name == "onnxruntime":
        return verify_integer(artifact, artifact.model, feeds)
    return verify_runtime(artifact, feeds)
