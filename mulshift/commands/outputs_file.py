"""The .npz file that `mulshift run` writes: whole or not at all."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mulshift.ir import Array, Feeds, OutputError

if TYPE_CHECKING:
    from mulshift.data import Dataset
    from mulshift.progress import Progress


def check_file(path: Path) -> None:
    """Raise OutputError if the file's folder is not there or cannot be written; before the work, not after it."""
    if path.is_dir():
        raise OutputError(str(path), "is a folder", "name a file")
    if not path.parent.is_dir():
        raise OutputError(str(path), f"'{path.parent}' is not a folder", "make it first")
    if not os.access(path.parent, os.W_OK):
        raise OutputError(str(path), "the folder cannot be written", "choose another")


def write_outputs(
    path: Path, run: Callable[[Feeds], Mapping[str, Array]], samples: Dataset, progress: Progress
) -> dict[str, tuple[int, ...]]:
    """Run all samples and store each output, samples along axis 0; the results are held in memory.

    Outputs whose shape differs from sample to sample are stored one by one, as `NAME/0`, `NAME/1`, ...

    Returns:
        Shape of each array in the file.

    Raises:
        OutputError: the file cannot be written.
    """
    check_file(path)
    results: dict[str, list[Array]] = {}
    for done, feeds in enumerate(samples):
        progress("run", done, samples.count)
        for name, array in run(feeds).items():
            results.setdefault(name, []).append(array)
    arrays = {key: array for name, made in results.items() for key, array in _joined(name, made).items()}
    part = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with zipfile.ZipFile(part, "w") as archive:
            for key, array in arrays.items():
                with archive.open(zipfile.ZipInfo(f"{key}.npy"), "w", force_zip64=True) as stream:
                    np.lib.format.write_array(stream, array, allow_pickle=False)
        part.replace(path)
    except OSError as e:
        raise OutputError(str(path), f"cannot be written ({e.strerror or e})", "choose another place") from e
    finally:
        part.unlink(missing_ok=True)
    return {key: tuple(array.shape) for key, array in arrays.items()}


def _joined(name: str, made: Sequence[Array]) -> dict[str, Array]:
    if made[0].ndim == 0:
        return {name: np.stack(made)}
    if len({a.shape[1:] for a in made}) == 1:
        return {name: np.concatenate(made)}
    return {f"{name}/{k}": array for k, array in enumerate(made)}
