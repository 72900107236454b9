"""Compile again from lock.json and prove that the same bytes come out, or say what differs first."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mulshift.compiler import Compiled, compile
from mulshift.data import DataRequest
from mulshift.image_input import ImageInput
from mulshift.images import Preprocessing
from mulshift.ir import UsageError
from mulshift.lock import Lock, read_lock, sha256
from mulshift.passes.pipeline import Progress, silent
from mulshift.passes.recipe import Recipe
from mulshift.sources import model_source


@dataclass(frozen=True)
class Replayed:
    """Attributes:
    differences: what is not as the lock says, causes before effects; empty if the bytes are the same.
    compiled: the new compilation.
    """

    differences: tuple[str, ...]
    compiled: Compiled

    @property
    def same(self) -> bool:
        """Whether every byte came out again."""
        return not self.differences


def replay(
    path: str | Path,
    model: Any = None,
    calibration: Any = None,
    *,
    example_inputs: Any = None,
    progress: Progress = silent,
) -> Replayed:
    """Compile again what a lock describes, and compare.

    Args:
        path: lock.json, or the artifact's folder (then its files are checked against the lock as well).
        model, calibration: as `compile` takes them, where the lock has no path or `module:function` for them, or
            where they have moved.
        example_inputs: as `compile` takes them.
        progress: as for `compile`.

    Raises:
        UsageError: a source is neither in the lock nor given.
        MulshiftError: whatever `compile` raises.
    """
    lock = read_lock(path)
    source, examples = _model(lock, model, example_inputs)
    options = dict(lock.options)
    image = options.pop("input_image")
    with tempfile.TemporaryDirectory(prefix="mulshift-replay-") as folder:
        made = compile(
            source,
            _data(lock, calibration),
            recipe=Recipe.model_validate(yaml.safe_load(lock.recipe)),
            output=Path(folder) / "artifact",
            example_inputs=examples,
            input_image=None if image is None else ImageInput.from_dict(image),
            sources=lock.sources,
            progress=progress,
            **options,
        )
    folder_of_lock = Path(path) if Path(path).is_dir() else Path(path).parent
    return Replayed((*_damage(lock, folder_of_lock), *_differences(lock, made.lock)), made)


def _model(lock: Lock, model: Any, example_inputs: Any) -> tuple[Any, Any]:
    if model is not None and not isinstance(model, str):
        return model, example_inputs
    text = model or lock.sources.model
    if text is None:
        raise UsageError("replay", "the lock does not say where the model is", "give the model")
    found = model_source(text)
    return found.source, found.example_inputs if example_inputs is None else example_inputs


def _data(lock: Lock, calibration: Any) -> Any:
    s = lock.sources
    data = s.calibration if calibration is None else calibration
    if data is None:
        raise UsageError("replay", "the lock does not say where the calibration data is", "give the data")
    images = None if s.images is None else Preprocessing.from_dict(s.images)
    return DataRequest(data, s.limit, s.batch, images)


def _damage(lock: Lock, folder: Path) -> list[str]:
    """Files beside the lock that are not what it says."""
    found = []
    for name, digest in lock.outputs.items():
        file = folder / name
        if file.is_file() and sha256(file.read_bytes()) != digest:
            found.append(f"{name} beside the lock was changed after it was written")
    return found


def _differences(old: Lock, new: Lock) -> list[str]:
    found = []
    if old.model_sha256 != new.model_sha256:
        found.append("the model is another one")
    if old.calibration_sha256 != new.calibration_sha256:
        found.append("the calibration data is other data")
    if old.recipe != new.recipe:
        found.append("the recipe is another one")
    changed = [name for name, digest in old.outputs.items() if new.outputs.get(name) != digest]
    if changed:
        names = sorted(old.versions.keys() | new.versions.keys())
        pairs = [(n, old.versions.get(n, "none"), new.versions.get(n, "none")) for n in names]
        found.extend(f"{n} was {a} and is {b}" for n, a, b in pairs if a != b)
    found.extend(f"{name} has other bytes" for name in changed)
    return found
