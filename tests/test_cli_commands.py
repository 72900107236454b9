"""Every command on a tiny network, as people and as machines see it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_net import X, good, save, weight

from mulshift.cli import run_command

COMPILE = ("compile", "net.onnx", "-c", "data.npz", "-r", "recipe.yaml", "-o", "out")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("cli")
    good(made)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(made)
        assert run_command([*COMPILE, "-q"]) == 0
    return made


@pytest.fixture(autouse=True)
def inside(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path])


@pytest.fixture
def ask(capsys: pytest.CaptureFixture[str]) -> Any:
    def run(*arguments: str, code: int = 0) -> Any:
        capsys.readouterr()
        assert run_command(arguments) == code, capsys.readouterr().err
        out, err = capsys.readouterr()
        return json.loads(out) if "--json" in arguments else out + err

    return run


def test_compile_tells_people_and_machines(ask: Any) -> None:
    made = ask(*COMPILE, "--json")
    assert made["folder"] == str(Path("out").absolute())
    assert made["report"] == json.loads(Path("out/report.json").read_text())
    assert made["report"]["totals"]["integer_fraction"] == 1.0
    shown = ask(*COMPILE)
    for words in ("0 differences in", "SQNR of y", "nodes in integers", f"written to {Path('out').absolute()}"):
        assert words in shown


def test_json_leaves_stdout_to_the_object_and_progress_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command([*COMPILE, "--json"]) == 0
    out, err = capsys.readouterr()
    assert out == json.dumps(json.loads(out), indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    assert "verify: 0/?" in err
    assert run_command([*COMPILE, "--json", "--quiet"]) == 0
    assert capsys.readouterr() == (out, "")


def test_default_output_is_named_after_the_model(ask: Any) -> None:
    ask(*COMPILE[:-2], "-q")
    assert Path("net.mulshift/model.onnx").read_bytes() == Path("out/model.onnx").read_bytes()


def test_verify(ask: Any) -> None:
    assert " of the kernel library; " in ask("verify", "out")
    found = ask("verify", "out", "--data", "data.npz", "--limit", "3", "--json")["verified"]
    assert (found["samples"], found["differences"]) == (3, 0)


def test_run_writes_what_the_artifact_gives(ask: Any) -> None:
    import onnxruntime

    made = ask("run", "out", "--data", "data.npz", "-o", "y.npz", "--json")
    assert made == {"output": "y.npz", "shapes": {"y": [4, 3, 2, 2]}}
    session = onnxruntime.InferenceSession("out/model.onnx", providers=["CPUExecutionProvider"])
    with np.load("y.npz", allow_pickle=False) as file:
        assert np.array_equal(file["y"], session.run(None, {"x": X})[0])
    first = Path("y.npz").read_bytes()
    assert "y: [4, 3, 2, 2] in y.npz" in ask("run", "out", "--data", "data.npz", "-o", "y.npz")
    assert Path("y.npz").read_bytes() == first


def test_bench(ask: Any) -> None:
    arguments = ("bench", "out", "net.onnx", "--data", "data.npz", "--seconds", "0.01")
    rows = ask(*arguments, "--json")["latencies"]
    assert [r["name"] for r in rows] == ["out", "net.onnx"]
    assert all(r["milliseconds"] > 0 and r["runs"] >= 10 for r in rows)
    assert [r["kernels"] is None for r in rows] == [False, True]  # a float model has no nodes for them
    assert all(r["kernels"] is None for r in ask(*arguments, "--no-kernels", "--json")["latencies"])
    shown = ask(*arguments)
    assert "times as fast" in shown and rows[0]["kernels"] in shown


def test_inspect(ask: Any) -> None:
    assert "1 Conv, 1 Relu" in ask("inspect", "net.onnx")
    report = json.loads(Path("out/report.json").read_text())
    assert ask("inspect", "out", "--json")["report"] == report
    shown = ask("inspect", "out")
    for layer in report["layers"]:
        assert layer["name"] in shown
    chosen = ask("inspect", "out", "--layer", "CONV", "--json")["layers"]
    assert chosen
    assert all("conv" in f"{row['name']} {row['node']} {row['origin']}".lower() for row in chosen)
    detail = ask("inspect", "out", "--layer", "conv")
    assert "insert-fake-quant" in detail
    assert "did you mean" in ask("inspect", "out", "--layer", "cnv", code=2)


def test_diff(ask: Any) -> None:
    assert "no difference" in ask("diff", "out", "out")
    save(Path("other.onnx"), weight(1))
    assert "no difference" in ask("diff", "net.onnx", "other.onnx")  # the nodes are alike
    found = ask("diff", "net.onnx", "other.onnx", "--data", "data.npz", "--json", code=1)
    assert not found["same"]
    assert {v["name"] for v in found["values"]} == {"h", "y"}
    save(Path("other.onnx"), weight(), "Sigmoid")
    assert "- node 'tail' (Relu)" in ask("diff", "net.onnx", "other.onnx", code=1)


def test_replay(ask: Any) -> None:
    assert ask("replay", "out/lock.json", "--json", "-q") == {"differences": [], "same": True}
    save(Path("other.onnx"), weight(1))
    shown = ask("replay", "out", "--model", "other.onnx", code=1)
    assert "the model is another one" in shown
    assert "not the same bytes" in shown


def test_module_and_samples_by_function(ask: Any) -> None:
    Path("nets_of_test.py").write_text(
        "import torch\n"
        "def build():\n"
        "    torch.manual_seed(0)\n"
        "    return torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.ReLU())\n"
        "def with_inputs(): return build(), (torch.zeros(1, 6),)\n"
        "def samples():\n"
        "    generator = torch.Generator().manual_seed(0)\n"
        "    for _ in range(4): yield torch.rand(1, 6, generator=generator)\n"
    )
    tail = ("-c", "nets_of_test.py:samples", "-r", "recipe.yaml", "-q")
    ask("compile", "nets_of_test:build", *tail)
    assert Path("build.mulshift/lock.json").is_file()
    ask("compile", "nets_of_test.py:with_inputs", *tail, "-o", "same")
    assert Path("same/model.onnx").read_bytes() == Path("build.mulshift/model.onnx").read_bytes()
    ask("verify", "same")
    assert "Gemm" in ask("inspect", "nets_of_test.py:with_inputs")


@pytest.fixture
def photos(folder: Path) -> str:
    image = pytest.importorskip("PIL.Image")
    (folder / "photos").mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    for k in range(4):
        image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(folder / "photos" / f"{k}.png")
    save(folder / "rgb.onnx", np.random.default_rng(1).standard_normal((2, 3, 3, 3)).astype(np.float32))
    return "photos"


NUMBERS = ("--image-preset", "imagenet", "--image-crop", "0.5")


def test_images(ask: Any, photos: str) -> None:
    ask("compile", "rgb.onnx", "-c", photos, "-r", "recipe.yaml", "-o", "rgb", "-q", *NUMBERS)
    assert "4 samples" in ask("verify", "rgb")  # with the preprocessing of the lock
    assert "the same bytes" in ask("replay", "rgb", "-q")


def test_uint8_input_takes_pixels(ask: Any, photos: str) -> None:
    ask("compile", "rgb.onnx", "-c", photos, "-r", "recipe.yaml", "-o", "u8", "-q", "--input-uint8", *NUMBERS)
    assert "uint8" in ask("inspect", "u8", "--json")["inputs"][0]
    ask("run", "u8", "--data", photos, "-o", "u8.npz", "-q", "--image-crop", "0.5")
    ask("compile", "rgb.onnx", "-c", photos, "-r", "recipe.yaml", "-o", "f32", "-q", *NUMBERS)
    ask("run", "f32", "--data", photos, "-o", "f32.npz", "-q", *NUMBERS)
    with np.load("u8.npz", allow_pickle=False) as a, np.load("f32.npz", allow_pickle=False) as b:
        assert np.corrcoef(a["y"].ravel(), b["y"].ravel())[0, 1] > 0.99  # two quantizations of one function
