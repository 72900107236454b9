"""Latency on this machine: minimum of many runs, one process a configuration, for sessions disturb each other."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from mulshift.backends.artifact import MODEL_FILE, has_kernels
from mulshift.data import input_specs, open_samples
from mulshift.fitting import InputSpec
from mulshift.ir import DataError, Feeds, ModelError
from mulshift.ir.frontend.onnx import read_onnx
from mulshift.latency_worker import KERNELS, STOCK
from mulshift.workers import measured

_DYNAMIC = 1
"""Size of a dynamic dimension where no data is given."""


@dataclass(frozen=True)
class Latency:
    """Attributes:
    name: of the model, as the caller calls it.
    threads: of one operator.
    milliseconds: minimum over `runs`.
    runs: how many were timed.
    kernels: instruction set of the kernel library that ran; None for ONNX Runtime alone.
    """

    name: str
    threads: int
    milliseconds: float
    runs: int
    kernels: str | None = None


def bench(
    models: str | Path | Mapping[str, str | Path],
    feeds: Any = None,
    threads: Sequence[int] = (1,),
    seconds: float = 2.0,
    kernels: bool = True,
) -> list[Latency]:
    """Time models on ONNX Runtime with the same feed; artifacts with the kernel library where it is built.

    Args:
        models: an artifact's folder or an .onnx file, or several by name (say integer, qdq and float).
        feeds: as `mulshift.data.open_samples` takes them, the first is used; None draws random numbers with seed 0,
            dynamic dimensions 1.
        threads: configurations to time.
        seconds: of timing, a configuration.
        kernels: False times the bodies of our operators on stock ONNX Runtime.

    Raises:
        ModelError: a model cannot be read or run.
        DataError: the feeds do not fit.
    """
    named = dict(models) if isinstance(models, Mapping) else {Path(models).name: models}
    found = []
    with tempfile.TemporaryDirectory(prefix="mulshift-bench-") as folder:
        for name, source in named.items():
            path = _file(Path(source))
            model = read_onnx(str(path))
            data = Path(folder) / "feeds.npz"
            np.savez(data, **first_feeds(model, feeds))
            runtime = KERNELS if kernels and has_kernels(model) else STOCK
            found += [_time(name, path, data, count, seconds, runtime) for count in threads]
    return found


def _file(path: Path) -> Path:
    file = path / MODEL_FILE if path.is_dir() else path
    if not file.is_file():
        raise ModelError(f"'{path}'", "is no model and no artifact", "give an .onnx file or an artifact's folder")
    return file


def first_feeds(model: ir.Model, feeds: Any) -> dict[str, Any]:
    """The first sample of the data, or random numbers, as `bench` takes them."""
    specs = input_specs(model)
    if feeds is None:
        rng = np.random.default_rng(0)
        return {spec.name: _random(rng, spec) for spec in specs}
    first: Feeds = next(iter(open_samples(feeds, specs, limit=1)))
    return dict(first)


def _random(rng: np.random.Generator, spec: InputSpec) -> Any:
    if spec.shape is None:
        raise DataError(f"input '{spec.name}'", "has no known rank", "give data to time with")
    shape = [d if isinstance(d, int) else _DYNAMIC for d in spec.shape]
    if spec.dtype.kind == "f":
        return rng.standard_normal(shape).astype(spec.dtype)
    return rng.integers(0, 2 if spec.dtype.kind == "b" else 128, shape).astype(spec.dtype)


def _time(name: str, model: Path, data: Path, threads: int, seconds: float, runtime: str) -> Latency:
    made = measured("latency_worker", f"'{model}'", model, data, threads, seconds, runtime)
    return Latency(name, threads, made["milliseconds"], made["runs"], made["kernels"])
