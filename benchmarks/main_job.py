"""The main job on real models, one line a criterion: `python benchmarks/main_job.py [--quick] [--json FILE]`.

Every tool quantizes the same ONNX file on the same calibration data, in a process of its own; SQNR is that of the
logits on the scored images, against the float model. `--quick` scores fewer images and leaves out slow peers.
"""

from __future__ import annotations

import argparse
import json
import logging
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import models
import numpy as np
from bad_input import bad_input_rows
from borders import float_nodes
from peers import METHODS
from rows import Row, at_least, at_most, exactly, finish, show

HERE = Path(__file__).resolve().parent
PUBLISHED = {"efficientnet-lite0": 19.5, "resnet20": 29.1}
"""dB that the best peer reached on another machine of this kind."""
LOSS = {"efficientnet-lite0": 0.75, "resnet20": 0.2}
"""Points of top-1 that may be lost."""
SLOW_PEERS = ("nncf full bias correction", "nncf on openvino")
QUICK_SCORED = {"efficientnet-lite0": 400, "resnet20": 2000}
FORMS = {"integer": "onnxruntime", "portable": "onnxruntime-portable", "qdq": "onnxruntime-qdq"}


@dataclass(frozen=True)
class Files:
    """One case on disk: an ONNX file and its data."""

    name: str
    folder: Path
    labels: np.ndarray

    def path(self, what: str) -> str:
        """`model.onnx`, `calibration.npy`, `scored.npy`, or an output."""
        return str(self.folder / f"{self.name}-{what}")


def prepare(name: str, folder: Path, quick: bool) -> Files:
    """Export the float model with a dynamic batch, and save its data."""
    import torch

    case = models.load(name)
    count = QUICK_SCORED[name] if quick else len(case.scored)
    files = Files(name, folder, case.labels[:count])
    np.save(files.path("calibration.npy"), case.calibration)
    np.save(files.path("scored.npy"), case.scored[:count])
    example = (torch.from_numpy(case.calibration[:2]),)
    shapes = [{0: torch.export.Dim("batch")}]
    # One file: not every peer finds weights that lie in another.
    options = {"dynamo": True, "dynamic_shapes": shapes, "external_data": False, "verbose": False}
    torch.onnx.export(case.module, example, files.path("model.onnx"), **options)
    return files


def peer_outputs(files: Files, method: str) -> np.ndarray | None:
    """Outputs of a peer on the scored images; None where it failed."""
    out = files.path(f"{method}.npy")
    inputs = [files.path(what) for what in ("model.onnx", "calibration.npy", "scored.npy")]
    done = _python("peers.py", method, *inputs, out)
    if done.returncode:
        print(f"  {method}: failed ({(done.stderr.strip().splitlines() or ['no message'])[-1][:120]})")
        return None
    return np.load(out)


def compile_case(files: Files, form: str, recipe: str = "int8") -> dict[str, Any]:
    """Compile with mulshift into `NAME-FORM/`; what the process printed."""
    data = files.path("model.onnx"), files.path("calibration.npy")
    done = _python("compile_case.py", *data, recipe, FORMS[form], files.path(form))
    if done.returncode:
        raise SystemExit(f"mulshift could not compile {files.name} ({form}):\n{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _python(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(HERE / script), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def our_outputs(files: Files, form: str) -> np.ndarray:
    """Outputs of an artifact on stock ONNX Runtime with default options, nothing of ours in the process."""
    import onnxruntime as ort

    session = ort.InferenceSession(f"{files.path(form)}/model.onnx", providers=["CPUExecutionProvider"])
    name, scored = session.get_inputs()[0].name, np.load(files.path("scored.npy"))
    return np.concatenate([session.run(None, {name: scored[i : i + 1]})[0] for i in range(len(scored))])


def quality_rows(files: Files, quick: bool) -> Iterator[Row]:
    """Accuracy and SQNR beside the peers', as a table and as rows."""
    reference = peer_outputs(files, "float")
    assert reference is not None, "ONNX Runtime runs the float model"
    best = 0.0
    print(f"\n{files.name}: {'method':<28} {'top-1':>7} {'SQNR dB':>8}")
    print(f"{'':<{len(files.name)}}  {'float':<28} {models.top1(reference, files.labels):7.2f}")
    for method in METHODS:
        if method == "float" or (quick and method in SLOW_PEERS):
            continue
        got = peer_outputs(files, method)
        if got is None:
            continue
        best = max(best, models.sqnr_db(reference, got))
        _print_quality(files, method, reference, got)
    ours = our_outputs(files, "integer")
    _print_quality(files, "mulshift int8, integer-only", reference, ours)
    loss = models.top1(reference, files.labels) - models.top1(ours, files.labels)
    sqnr = models.sqnr_db(reference, ours)
    yield at_most(f"{files.name}: top-1 lost on {len(files.labels)} images, points", loss, LOSS[files.name])
    yield at_least(f"{files.name}: output SQNR against the best peer of this run, dB", sqnr, best)
    yield at_least(f"{files.name}: output SQNR against the best published peer, dB", sqnr, PUBLISHED[files.name])


def _print_quality(files: Files, method: str, reference: np.ndarray, got: np.ndarray) -> None:
    top1, sqnr = models.top1(got, files.labels), models.sqnr_db(reference, got)
    print(f"{'':<{len(files.name)}}  {method:<28} {top1:7.2f} {sqnr:8.2f}", flush=True)


def exactness_rows(files: Files) -> Iterator[Row]:
    """Integer between the borders, and the same bits on ONNX Runtime as in Python."""
    for form in FORMS:
        made = compile_case(files, form)
        verified = made["verification"]
        compared = f"{files.name}, {form}: of {verified['elements']:,} values in {verified['tensors']} tensors"
        if form == "qdq":
            rate = verified["differences"] / max(verified["elements"], 1)
            yield at_most(f"{compared}, share off by one step", rate, 1e-4, ".1e")
            continue
        yield exactly(f"{compared}, different from Python", verified["differences"])
        floats = float_nodes(f"{files.path(form)}/model.onnx")
        yield exactly(f"{files.name}, {form}: float nodes between the borders", len(floats))
        if form == "integer" and files.name == "efficientnet-lite0":
            yield at_most(f"{files.name}: compiled from 100 images, seconds", made["seconds"], 60, ".1f")


def memory_rows(files: Files, quick: bool) -> Iterator[Row]:
    """Peak memory of calibration on 100 and on 1,000 samples."""
    methods = ("mse",) if quick else ("min-max", "percentile", "mse", "entropy")
    for method in methods:
        peaks = [_calibration_peak(files, count, method) for count in (100, 1000)]
        growth = (peaks[1] / peaks[0] - 1) * 100
        yield at_most(f"calibrate {method}: growth of peak memory, 1,000 against 100 samples, %", growth, 5)


def _calibration_peak(files: Files, count: int, method: str) -> int:
    data = files.path("model.onnx"), files.path("calibration.npy")
    done = _python("calibration_memory.py", *data, str(count), method)
    if done.returncode:
        raise SystemExit(f"calibration failed:\n{done.stderr[-2000:]}")
    return int(done.stdout.splitlines()[-1])


def replay_rows(files: Files) -> Iterator[Row]:
    """The same bytes from lock.json alone."""
    command = [sys.executable, "-m", "mulshift", "replay", f"{files.path('integer')}/lock.json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    yield exactly(f"{files.name}: exit status of replay (0: the same bytes)", done.returncode)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer images and peers, under 5 minutes")
    parser.add_argument("--json", metavar="FILE", help="write the rows as JSON")
    options = parser.parse_args()
    if models.available():
        raise SystemExit(models.available())
    logging.disable(logging.WARNING)  # torch's exporter speaks of torchvision and of its own future
    warnings.filterwarnings("ignore")
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="main-job-") as folder:
        cases = [prepare(name, Path(folder), options.quick) for name in ("efficientnet-lite0", "resnet20")]
        steps: list[Callable[[], Iterator[Row]]] = []
        for files in cases:
            steps += [lambda f=files: exactness_rows(f), lambda f=files: quality_rows(f, options.quick)]  # type: ignore[misc]
        steps += [lambda: replay_rows(cases[1]), lambda: memory_rows(cases[1], options.quick), bad_input_rows]
        for step in steps:
            for row in step():
                print(show(row), flush=True)
                rows.append(row)
    print()
    for row in rows:
        print(show(row))
    return finish(rows, options.json)


if __name__ == "__main__":
    sys.exit(main())
