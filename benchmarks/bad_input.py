"""Bad input through the command line: one clear line, a non-zero exit, nothing half-written. A row a kind of input."""

from __future__ import annotations

import pickle
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from rows import Row, exactly


@dataclass
class Case:
    """Arguments of `mulshift compile` for one kind of bad input, made in a folder."""

    model: Path
    data: Path
    output: Path
    options: list[str] = field(default_factory=list)


def _model(
    path: Path, weight: np.ndarray | None = None, op: str = "Relu", shape: tuple[object, ...] = ("n", 3, 8, 8)
) -> Path:
    """x -> Conv -> `op` -> y with a 4x3x3x3 weight."""
    if weight is None:
        weight = np.random.default_rng(0).normal(0, 0.2, (4, 3, 3, 3))
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["h"], name="conv", kernel_shape=list(weight.shape[2:])),
        helper.make_node(op, ["h"], ["y"], name="tail"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(shape))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(weight.astype(np.float32), "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)
    return path


def _data(path: Path, array: np.ndarray | None = None) -> Path:
    if array is None:
        array = np.random.default_rng(1).normal(0, 1, (4, 3, 8, 8)).astype(np.float32)
    np.save(path, array)
    return path


def _case(folder: Path) -> Case:
    return Case(_model(folder / "model.onnx"), _data(folder / "data.npy"), folder / "out")


def _text_as_model(c: Case) -> None:
    c.model.write_text("this is no model\n")


def _truncated(c: Case) -> None:
    c.model.write_bytes(c.model.read_bytes()[:-100])


def _nan_weight(c: Case) -> None:
    weight = np.ones((4, 3, 3, 3))
    weight[1, 2, 0, 0] = np.nan
    _model(c.model, weight)


def _infinite_weight(c: Case) -> None:
    _model(c.model, np.full((4, 3, 3, 3), np.inf))


def _no_external(c: Case) -> None:
    proto = onnx.load(c.model)
    onnx.save(proto, c.model, save_as_external_data=True, location="weights.bin", size_threshold=0)
    (c.model.parent / "weights.bin").unlink()


def _wrong_name(c: Case) -> None:
    c.data = c.data.with_suffix(".npz")
    np.savez(c.data, picture=np.zeros((2, 3, 8, 8), np.float32), other=np.zeros((2, 1), np.float32))


def _wrong_shape(c: Case) -> None:
    _data(c.data, np.zeros((4, 5, 8, 8), np.float32))


def _wrong_dtype(c: Case) -> None:
    _data(c.data, np.array([["a", "b"]]))


def _empty(c: Case) -> None:
    _data(c.data, np.zeros((0, 3, 8, 8), np.float32))


def _unsupported(c: Case) -> None:
    _model(c.model, op="Det")
    c.options += ["--float-islands", "forbid"]


def _overflow(c: Case) -> None:
    _model(c.model, np.ones((2, 80_000, 1, 1)), shape=("n", 80_000, 1, 1))
    _data(c.data, np.random.default_rng(0).uniform(0, 1, (2, 80_000, 1, 1)).astype(np.float32))


def _unwritable(c: Case) -> None:
    c.output.parent.joinpath("file").write_text("")
    c.output = c.output.parent / "file" / "out"


def _pickled(c: Case) -> None:
    c.model = c.model.with_suffix(".pt")
    c.model.write_bytes(pickle.dumps({"weight": [1.0]}))


def _pickled_data(c: Case) -> None:
    np.save(c.data, np.array([{"x": 1}], dtype=object), allow_pickle=True)


def _no_recipe(c: Case) -> None:
    c.options += ["--recipe", "int88"]


KINDS: dict[str, Callable[[Case], None]] = {
    "not a model": _text_as_model,
    "truncated model": _truncated,
    "NaN weight": _nan_weight,
    "infinite weight": _infinite_weight,
    "missing external data": _no_external,
    "wrong calibration name": _wrong_name,
    "wrong calibration shape": _wrong_shape,
    "wrong calibration dtype": _wrong_dtype,
    "empty calibration": _empty,
    "unsupported operator": _unsupported,
    "accumulator overflow": _overflow,
    "unwritable folder": _unwritable,
    "pickled model": _pickled,
    "pickled data": _pickled_data,
    "unknown recipe": _no_recipe,
}


def run(case: Case) -> subprocess.CompletedProcess[str]:
    """`mulshift compile` as a user runs it."""
    command = [sys.executable, "-m", "mulshift", "compile", str(case.model), "--calibration", str(case.data)]
    command += ["-o", str(case.output), "--quiet", *case.options]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def faults(kind: str, folder: Path) -> str:
    """Empty if the input was refused in one line with nothing written, else what went wrong."""
    case = _case(folder)
    KINDS[kind](case)
    done = run(case)
    lines = done.stderr.strip().splitlines()
    if done.returncode == 0:
        return "was accepted"
    if len(lines) != 1 or "Traceback" in done.stderr:
        return f"{len(lines)} lines on stderr, the last: {lines[-1] if lines else ''}"
    if case.output.exists() or list(folder.glob("*.tmp*")):
        return "left a folder behind"
    print(f"  {kind}: exit {done.returncode}, {lines[0]}", flush=True)
    return ""


def bad_input_rows() -> Iterator[Row]:
    """All kinds, and one file name with odd characters that must work."""
    wrong = 0
    for kind in KINDS:
        with tempfile.TemporaryDirectory() as folder:
            found = faults(kind, Path(folder))
        if found:
            print(f"  {kind}: {found}", flush=True)
            wrong += 1
    yield exactly(f"bad input: of {len(KINDS)} kinds, not refused in one line with nothing written", wrong)
    with tempfile.TemporaryDirectory() as folder:
        case = _case(Path(folder))
        case.model = case.model.rename(Path(folder) / "my 'odd' % modèle [1];$x.onnx")
        done = run(case)
        if done.returncode:
            print(done.stderr.strip()[-300:])
        yield exactly("a file name with odd characters: exit status of compile", done.returncode)


if __name__ == "__main__":
    for row in bad_input_rows():
        print(row)
