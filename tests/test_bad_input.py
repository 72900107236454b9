"""Bad input through the command line: one clear line on stderr, the exit code of its kind, and nothing written."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from cli_net import X, good, save, weight
from onnx import TensorProto, helper, numpy_helper

from mulshift.cli import run_command
from mulshift.ir import ExitCode

NETS = """
import torch
def nothing(): return None
def number(): return 3
def broken(): raise KeyError("the weights\\nare gone")
def three(): return 1, 2, 3
def missing_path(): return "gone.onnx"
def module(): return torch.nn.Linear(5, 2)
def control_flow():
    class Flow(torch.nn.Module):
        def forward(self, x): return x if x.sum() > 0 else -x
    return Flow()
constant = 3
def feeds(): return [{"y": 0}]
def labelled(): return [(torch.ones(1, 2, 4, 4), torch.ones(1))]
def failing():
    yield torch.ones(1, 2, 4, 4)
    raise OSError("disk gone")
"""


def not_a_model(folder: Path) -> None:
    (folder / "net.onnx").write_text("this is not a model")


def empty_model(folder: Path) -> None:
    (folder / "net.onnx").write_bytes(b"")


def truncated_model(folder: Path) -> None:
    data = (folder / "net.onnx").read_bytes()
    (folder / "net.onnx").write_bytes(data[: len(data) * 2 // 3])


def pickled_model(folder: Path) -> None:
    import torch

    torch.save(torch.nn.Linear(2, 2), folder / "net.onnx")


def nan_weight(folder: Path) -> None:
    w = weight()
    w[1, 0, 0, 0] = np.nan
    save(folder / "net.onnx", w)


def infinite_weight(folder: Path) -> None:
    w = weight()
    w[1, 0, 0, 0] = np.inf
    save(folder / "net.onnx", w)


def missing_external_data(folder: Path) -> None:
    model = onnx.load(folder / "net.onnx")
    onnx.save(model, folder / "net.onnx", save_as_external_data=True, location="net.data", size_threshold=0)
    (folder / "net.data").unlink()


def unknown_operator(folder: Path) -> None:
    save(folder / "net.onnx", weight(), "Magic", "my.company")


def no_integer_form(folder: Path) -> None:
    save(folder / "net.onnx", weight(), "Det")


def overflow(folder: Path) -> None:
    """70,000 products of at most 255 * 127 exceed 2^31."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 70_000])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 1])
    w = numpy_helper.from_array(np.full((70_000, 1), 1e-4, np.float32), "w")
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"], name="long")], "net", [x], [y], [w])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), folder / "net.onnx")
    np.savez(folder / "data.npz", x=np.tile(np.linspace(0, 1, 70_000, dtype=np.float32), (2, 1)))


def data(**arrays: np.ndarray) -> Callable[[Path], None]:
    return lambda folder: np.savez(folder / "data.npz", **arrays)


def pickled_data(folder: Path) -> None:
    np.savez(folder / "data.npz", x=np.array([{"a": 1}], object))


def truncated_data(folder: Path) -> None:
    whole = (folder / "data.npz").read_bytes()
    (folder / "data.npz").write_bytes(whole[: len(whole) // 2])


def text_as_data(folder: Path) -> None:
    (folder / "data.npz").write_text("x,y\n1,2\n")


def folders(folder: Path) -> None:
    (folder / "empty").mkdir()
    (folder / "mixed").mkdir()
    np.save(folder / "mixed" / "a.npy", X)
    (folder / "mixed" / "b.png").write_bytes(b"")
    (folder / "images").mkdir()
    (folder / "images" / "a.png").write_bytes(b"no image")


def damaged_image(folder: Path) -> None:
    folders(folder)
    save(folder / "net.onnx", np.ones((1, 3, 3, 3), np.float32))


def not_an_artifact(folder: Path) -> None:
    (folder / "out").mkdir()
    (folder / "out" / "thesis.txt").write_text("mine")


def nothing(folder: Path) -> None:
    pass


@dataclass(frozen=True)
class Case:
    """What is spoilt, the arguments that replace the good ones, and what must come of it."""

    name: str
    spoil: Callable[[Path], None]
    code: ExitCode
    words: str
    arguments: tuple[str, ...] = ()
    model: str = "net.onnx"
    calibration: str = "data.npz"


M, D, U = ExitCode.BAD_MODEL, ExitCode.BAD_DATA, ExitCode.USAGE
NAN = X.copy()
NAN[3] = np.nan

CASES = (
    Case("text for a model", not_a_model, M, "net.onnx: is not an ONNX model"),
    Case("empty model", empty_model, M, "net.onnx: is empty"),
    Case("truncated model", truncated_model, M, "net.onnx: "),
    Case("pickle for a model", pickled_model, M, "is a pickle"),
    Case("NaN weight", nan_weight, M, "'w' of node 'conv'"),
    Case("infinite weight", infinite_weight, M, "holds NaN or infinite values"),
    Case("missing external data", missing_external_data, M, "net.data' of initializer 'w' is missing"),
    Case("no such model", nothing, M, "no such file", model="other.onnx"),
    Case("folder for a model", folders, M, "is a folder", model="empty"),
    Case("no such module", nothing, M, "no module named 'netz'", model="netz:build"),
    Case("no such python file", nothing, M, "no such file 'other.py'", model="other.py:build"),
    Case("no such function", nothing, M, "has no 'build'; it has broken", model="nets.py:build"),
    Case("not a function", nothing, M, "is a int, not a function", model="nets.py:constant"),
    Case("function returns nothing", nothing, M, "returned None", model="nets.py:nothing"),
    Case("function returns three", nothing, M, "returned 3 things", model="nets.py:three"),
    Case("function returns a number", nothing, U, "is not a model", model="nets.py:number"),
    Case("function raises", nothing, M, "raised KeyError: 'the weights", model="nets.py:broken"),
    Case("function returns a lost path", nothing, M, "'gone.onnx', which does not exist", model="nets.py:missing_path"),
    Case("module that the data does not fit", nothing, M, "cannot export it", model="nets.py:module"),
    Case("module that cannot be exported", nothing, M, "cannot export it", model="nets.py:control_flow"),
    Case("unknown operator", unknown_operator, ExitCode.UNSUPPORTED, "node 'tail'"),
    Case("no integer form", no_integer_form, ExitCode.UNSUPPORTED, "node 'tail'", ("--float-islands", "forbid")),
    Case("accumulator overflow", overflow, ExitCode.OVERFLOW, "node 'long'"),
    Case("wrong name", data(image=X, mask=X), D, "has arrays 'image', 'mask' where the model has inputs 'x'"),
    Case("wrong height", data(x=X[:, :, :3]), D, "dimension 2 is 3 where the model has 4"),
    Case("wrong rank", data(x=X[0, 0]), D, "has rank 2 where the model has 4"),
    Case("wrong type", data(x=X.astype(np.uint8)), D, "is uint8 where the model has float32"),
    Case("NaN in the data", data(x=NAN), D, "data.npz, array 'x', input 'x', sample 3: holds NaN"),
    Case("no samples", data(x=X[:0]), D, "holds no samples"),
    Case("no arrays", data(), D, "holds no arrays"),
    Case("pickle in the data", pickled_data, D, "which mulshift never loads"),
    Case("truncated data", truncated_data, D, "data.npz: is not a readable .npz archive"),
    Case("text for data", text_as_data, D, "data.npz: is not a readable .npz archive"),
    Case("no such data", nothing, D, "no such file, folder or module:function", calibration="other.npz"),
    Case("empty folder", folders, D, "is an empty folder", calibration="empty"),
    Case("mixed folder", folders, D, "mixes .npy files and images", calibration="mixed"),
    Case("images without numbers", folders, D, "give --image-preset", calibration="images"),
    Case(
        "image of other channels", folders, D, "give --image-layout", ("--image-preset", "unit"), calibration="images"
    ),
    Case("damaged image", damaged_image, D, "a.png: is not a", ("--image-preset", "unit"), calibration="images"),
    Case("unknown data file", nothing, D, "unknown ending '.yaml'", calibration="recipe.yaml"),
    Case("feeds of other names", nothing, D, "has arrays 'y'", calibration="nets.py:feeds"),
    Case("feeds with labels", nothing, D, "has 2 arrays", calibration="nets.py:labelled"),
    Case("feeds that fail", nothing, D, "raised OSError: disk gone at nets.py", calibration="nets.py:failing"),
    Case("no such recipe", nothing, U, "no such recipe", ("--recipe", "int9")),
    Case("model for a recipe", nothing, U, "recipe 'net.onnx'", ("--recipe", "net.onnx")),
    Case("no such target", nothing, U, "no such target", ("--target", "abacus")),
    Case("no such choice", nothing, U, "'maybe' is not known", ("--float-islands", "maybe")),
    Case("uint8 without numbers", nothing, U, "needs the preprocessing", ("--input-uint8",)),
    Case("folder below a file", nothing, ExitCode.CANNOT_WRITE, "cannot be written", ("-o", "data.npz/deep/out")),
    Case("file for a folder", nothing, ExitCode.CANNOT_WRITE, "is not a folder", ("-o", "data.npz")),
    Case("folder of other things", not_an_artifact, ExitCode.CANNOT_WRITE, "'thesis.txt', which is no part"),
)


def line_for(words: str) -> str:
    return rf"(?:[^\n]*\n)*mulshift: error: [^\n]*{re.escape(words)}[^\n]*\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    good(tmp_path)
    (tmp_path / "nets.py").write_text(NETS)
    return tmp_path


def listing(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if "__pycache__" not in p.parts}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_one_line_the_right_code_and_nothing_written(
    case: Case, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case.spoil(folder)
    before = listing(folder)
    output = () if "-o" in case.arguments else ("-o", "out")
    given = ("compile", case.model, "-c", case.calibration, "--quiet", "--json", *output)
    recipe = () if "--recipe" in case.arguments else ("--recipe", "recipe.yaml")
    code = run_command([*given, *recipe, *case.arguments])
    out, err = capsys.readouterr()
    assert (code, out) == (case.code, ""), err
    assert re.fullmatch(r"mulshift: error: [^\n]*\n", err), err
    assert case.words in err
    assert listing(folder) == before


def test_the_good_input_of_these_tests_is_good(folder: Path) -> None:
    assert run_command(["compile", "net.onnx", "-c", "data.npz", "-r", "recipe.yaml", "-o", "out", "-q"]) == 0
    assert {"out/model.onnx", "out/report.json", "out/lock.json"} <= listing(folder)


ODD_NAMES = ("a b", "naïve 模型", 'it\'s "x" 100%s', "-dash", "a;b&c:d $HOME ~ [x] * {x}", "a\nb")


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names_work(folder: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "net.onnx").rename(folder / f"{name}.onnx")
    (folder / "data.npz").rename(folder / f"{name}.npz")
    arguments = ["compile", "-c", f"{name}.npz", "-r", "recipe.yaml", "-o", f"{name}.out", "-q", "--", f"{name}.onnx"]
    assert run_command(arguments) == 0, capsys.readouterr().err
    assert (folder / f"{name}.out" / "model.onnx").is_file()
    assert run_command(["verify", "-q", "--", f"{name}.out"]) == 0, capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["verify", "empty"], M, "lock.json': cannot be read"),
        (["run", "empty", "--data", "data.npz"], M, "holds no model.onnx"),
        (["inspect", "empty"], M, "is a folder"),
        (["inspect", "other"], M, "no such file"),
        (["inspect", "net.onnx", "--layer", "conv"], U, "is not an artifact"),
        (["diff", "net.onnx", "other.onnx"], M, "no such file"),
        (["bench", "empty"], M, "is no model"),
        (["bench", "data.npz"], M, "data.npz"),
        (["replay", "empty"], M, "cannot be read"),
        (["replay", "recipe.yaml"], M, "is not a lock"),
    ],
)
def test_other_commands(
    folder: Path, arguments: list[str], code: ExitCode, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folders(folder)
    before = listing(folder)
    assert run_command(arguments) == code
    err = capsys.readouterr().err
    assert re.fullmatch(line_for(words), err), err
    assert listing(folder) == before


def test_a_changed_artifact_is_noticed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["compile", "net.onnx", "-c", "data.npz", "-r", "recipe.yaml", "-o", "out", "-q"]) == 0
    assert run_command(["run", "out", "-d", "data.npz", "-o", "nowhere/y.npz", "-q"]) == ExitCode.CANNOT_WRITE
    assert run_command(["verify", "out", "-q"]) == 0
    model = bytearray((folder / "out" / "model.onnx").read_bytes())
    model[-1] ^= 1
    (folder / "out" / "model.onnx").write_bytes(model)
    capsys.readouterr()
    assert run_command(["verify", "out", "-q"]) in (ExitCode.FAILED_CHECK, ExitCode.BAD_MODEL)
    assert re.fullmatch(line_for("model.onnx"), capsys.readouterr().err)


IN_A_PROCESS = [case for case in CASES if case.name in ("truncated model", "pickle in the data")]


@pytest.mark.parametrize("case", IN_A_PROCESS, ids=lambda case: case.name)
def test_the_program_itself_tells_one_line(case: Case, folder: Path) -> None:
    case.spoil(folder)
    command = [sys.executable, "-m", "mulshift", "compile", case.model, "-c", case.calibration, "-o", "out", "-q"]
    done = subprocess.run([*command, "-r", "recipe.yaml"], capture_output=True, text=True)
    assert done.returncode == case.code
    assert re.fullmatch(r"mulshift: error: [^\n]*\n", done.stderr)
    assert case.words in done.stderr
    assert not (folder / "out").exists()
