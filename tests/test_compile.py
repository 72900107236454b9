"""The main job on a small network: what is written, what is reported, and that nothing is written when it fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import tiny

import mulshift
from mulshift import compiler
from mulshift.backends.verify import Verified
from mulshift.image_input import ImageInput, adapter
from mulshift.ir import (
    DataError,
    Level,
    ModelError,
    MulshiftError,
    OutputError,
    UnsupportedError,
    UsageError,
    VerificationError,
)
from mulshift.measure import SAMPLED, thinned
from mulshift.passes import PASSES
from mulshift.passes.recipe import load_recipe
from mulshift.report import Report

FILES = ["lock.json", "model.onnx", "report.json", "timing.json"]


@pytest.fixture(autouse=True)
def _passes(monkeypatch: pytest.MonkeyPatch) -> None:
    for cls in tiny.PASSES.values():
        monkeypatch.setitem(PASSES, cls.name, cls)


def compile_tiny(output: Path | None = None, **options: object) -> mulshift.Compiled:
    given = {"recipe": tiny.RECIPE, **options}
    return mulshift.compile(tiny.float_model(), tiny.samples(3), output=output, **given)  # type: ignore[arg-type]


def test_folder_holds_the_artifact(tmp_path: Path) -> None:
    made = compile_tiny(tmp_path / "new" / "artifact")
    assert made.folder == tmp_path / "new" / "artifact"
    assert sorted(p.name for p in made.folder.iterdir()) == FILES
    assert [p.name for p in made.folder.parent.iterdir()] == ["artifact"]
    assert (made.folder / "model.onnx").read_bytes() == made.artifact.serialize()
    x = tiny.samples(1)[0]
    assert np.array_equal(made.run(x)["y"], mulshift.Interpreter(made.levels[Level.INTEGER]).run(x)["y"].numpy())


def test_report_tells_every_layer(tmp_path: Path) -> None:
    made = compile_tiny(tmp_path / "a")
    report = Report.model_validate(json.loads((tmp_path / "a" / "report.json").read_bytes()))
    assert report == made.report
    conv = next(layer for layer in report.layers if layer.op == "mulshift::Conv")
    assert (conv.name, conv.node, conv.origin, conv.weight_bits, conv.width) == ("h", "conv", ("conv",), 8, "wide")
    assert conv.activation is not None
    assert (conv.activation.bits, conv.activation.signed) == (8, False)
    assert conv.activation.scale == (1 / 32, 1 / 32)
    assert conv.dyadic is not None and conv.dyadic.bits == 31
    assert conv.macs == 4 * 6 * 6 * 27
    assert conv.accumulator_bound is not None and 128 * 127 < conv.accumulator_bound < 2**31
    totals = report.totals
    assert (totals.nodes, totals.integer_nodes, totals.integer_fraction) == (1, 1, 1.0)
    assert totals.weights_before == 4 * (108 + 4)
    assert totals.macs == 4 * 6 * 6 * 27
    db = totals.output_sqnr_db["y"]
    assert db is not None and 30 < db < 50
    assert [p.name for p in report.passes] == ["tiny-qdq", "tiny-integer"]
    assert (report.verification.samples, report.verification.differences) == (2, 0)


def test_same_input_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        compile_tiny(tmp_path / name)
    for file in set(FILES) - {"timing.json"}:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes(), file


@pytest.mark.parametrize("target", ["onnxruntime-portable", "onnxruntime-qdq"])
def test_other_targets(target: str, tmp_path: Path) -> None:
    recipe = {"name": "q", "passes": tiny.RECIPE["passes"][:1]} if target.endswith("qdq") else tiny.RECIPE
    made = compile_tiny(tmp_path / "a", target=target, recipe=recipe)
    assert {n.domain for n in made.artifact.model.graph} == {""}
    assert made.report.verification.differences == 0
    assert made.report.target == target


def test_an_old_artifact_is_replaced_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    folder.mkdir()
    compile_tiny(folder)
    (folder / "model.onnx").write_bytes(b"damaged")
    compile_tiny(folder)
    assert (folder / "model.onnx").stat().st_size > 100
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"holds 'notes\.txt', which is no part of an artifact"):
        compile_tiny(folder)
    assert (folder / "notes.txt").read_text() == "mine"


def test_a_foreign_model_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"someone's only copy")
    with pytest.raises(OutputError, match=r"holds 'model\.onnx'"):
        compile_tiny(tmp_path)
    assert (tmp_path / "model.onnx").read_bytes() == b"someone's only copy"


def test_an_unwritable_place_is_told_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler, "load", lambda *_: pytest.fail("the work began"))
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/mulshift")):
        with pytest.raises(OutputError) as caught:
            compile_tiny(place)
        assert "\n" not in str(caught.value)


def test_a_failed_verification_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def differs(*_: object) -> Verified:
        raise VerificationError("node 'conv'", "1 of 2 differ")

    monkeypatch.setattr(compiler, "verify_integer", differs)
    with pytest.raises(VerificationError):
        compile_tiny(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_the_old_artifact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = compile_tiny(tmp_path / "a")
    before = (tmp_path / "a" / "model.onnx").read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(compiler, "write_text", full)
    with pytest.raises(OutputError, match="No space left"):
        compile_tiny(tmp_path / "a")
    assert (tmp_path / "a" / "model.onnx").read_bytes() == before == made.artifact.serialize()
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"target": "onnxruntim"}, UsageError, "did you mean 'onnxruntime'"),
        ({"recipe": "int9"}, UsageError, "did you mean 'int8'"),
        ({"float_islands": "allow"}, UsageError, "use report or forbid"),
        ({"verify_samples": 0}, UsageError, "at least 1"),
        ({"target": "onnxruntime", "recipe": {"name": "q", "passes": [{"pass": "tiny-qdq"}]}}, UsageError, "INTEGER"),
    ],
)
def test_wrong_options(options: dict[str, object], error: type[MulshiftError], message: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=message):
        compile_tiny(tmp_path / "a", **options)
    assert list(tmp_path.iterdir()) == []


def test_wrong_data() -> None:
    for data in ([], [{"z": np.zeros((1, 3, 6, 6), np.float32)}], [{"x": np.zeros((1, 3, 5, 6), np.float32)}]):
        with pytest.raises(DataError):
            mulshift.compile(tiny.float_model(), data, recipe=tiny.RECIPE)


def test_float_islands_can_be_forbidden(monkeypatch: pytest.MonkeyPatch) -> None:
    assert compile_tiny(float_islands="forbid").report.totals.integer_fraction == 1
    monkeypatch.setattr(compiler, "islands_of", lambda _: [("node 'nms'", "no integer form"), ("node 'b'", "x")])
    with pytest.raises(UnsupportedError, match=r"^node 'nms': has no integer form: no integer form \(and 1 more\)"):
        compile_tiny(float_islands="forbid")


def test_progress_names_the_stages() -> None:
    stages: list[str] = []
    compile_tiny(progress=lambda stage, done, total: stages.append(stage))
    assert stages == ["load", "tiny-qdq", "tiny-integer", "passes", "verify", "report", "done"]


def test_import_is_light() -> None:
    code = "import mulshift, sys; print(sorted({'torch', 'onnx', 'onnxruntime', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_public_names_exist() -> None:
    assert all(getattr(mulshift, name) is not None for name in mulshift.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = mulshift.nothing


def test_verify_an_artifact_on_disk(tmp_path: Path) -> None:
    compile_tiny(tmp_path / "a")
    found = mulshift.verify(tmp_path / "a", tiny.samples(2, seed=5))
    assert (found.samples, found.tensors, found.differences) == (2, 3, 0)
    with (tmp_path / "a" / "model.onnx").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x00")
    with pytest.raises(MulshiftError):
        mulshift.verify(tmp_path / "a", tiny.samples(1))
    with pytest.raises(ModelError, match=r"holds no model\.onnx"):
        mulshift.verify(tmp_path, tiny.samples(1))


def test_inspect_and_diff(tmp_path: Path) -> None:
    compile_tiny(tmp_path / "a")
    wrong = {"name": "w", "passes": [{"pass": "tiny-qdq"}, {"pass": "tiny-integer", "options": {"wrong": 400}}]}
    compile_tiny(tmp_path / "b", recipe=wrong)
    seen = mulshift.inspect(tmp_path / "a")
    assert (seen.level, seen.inputs) == ("INTEGER", ("x: float [N, 3, 6, 6]",))
    assert seen.operators["mulshift::ConvFromNchw"] == 1
    assert seen.report is not None and seen.report.recipe == "tiny"
    assert mulshift.inspect(tiny.float_model()).level == "FLOAT"
    assert mulshift.diff(tmp_path / "a", tmp_path / "a", tiny.samples(1)).same
    found = mulshift.diff(tmp_path / "a", tmp_path / "b", tiny.samples(2))
    assert found.nodes == () and [v.name for v in found.values] == ["h", "y"]
    assert found.values[0].largest == float(tiny.Y.scale)
    assert mulshift.diff(tiny.float_model(), tmp_path / "a").nodes[0].startswith("- node 'conv'")


def test_bench_times_in_processes(tmp_path: Path) -> None:
    compile_tiny(tmp_path / "a")
    (found,) = mulshift.bench(tmp_path / "a", threads=(1,), seconds=0.01)
    assert (found.name, found.threads) == ("a", 1)
    assert found.runs >= 10 and 0 < found.milliseconds < 1000
    assert found.kernels == mulshift.kernels.instruction_set()
    (stock,) = mulshift.bench(tmp_path / "a", seconds=0.01, kernels=False)
    assert stock.kernels is None
    with pytest.raises(ModelError, match="no model and no artifact"):
        mulshift.bench(tmp_path / "none")


def test_pixels_are_what_floats_came_from() -> None:
    image = ImageInput((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), layout="nhwc")
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 4, 5)).astype(np.uint8)
    mean, std = (np.float32(v).reshape(1, 3, 1, 1) for v in (image.mean, image.std))
    x = ((pixels / np.float32(255)) - mean) / std
    assert np.array_equal(image.pixels(x.astype(np.float32)), pixels.transpose(0, 2, 3, 1))
    with pytest.raises(DataError, match="whole pixels"):
        image.pixels(x.astype(np.float32) + np.float32(0.001))
    assert ImageInput.from_dict(json.loads(json.dumps(image.as_dict()))) == image
    model = tiny.float_model()
    feeds = {"x": x.astype(np.float32)}
    assert adapter(image)(model, feeds)["x"] is feeds["x"]
    model.graph.inputs[0].type = ir.TensorType(ir.DataType.UINT8)
    assert adapter(image)(model, feeds)["x"].dtype == np.uint8


def test_thinning_keeps_small_values_whole() -> None:
    small = np.arange(SAMPLED).reshape(2, -1)
    assert np.array_equal(thinned(small), small.reshape(-1))
    assert SAMPLED / 2 < thinned(np.arange(10 * SAMPLED)).size <= SAMPLED


def test_fold_input_is_put_before_what_it_feeds() -> None:
    image = ImageInput((0.5,), (0.25,), name="x")
    recipe = load_recipe({"name": "r", "passes": [{"pass": "canonicalize"}, {"pass": "calibrate"}]})
    steps = compiler._with_image(recipe, image).passes
    assert [s.name for s in steps] == ["canonicalize", "fold-input", "calibrate"]
    assert steps[1].options == {"mean": [0.5], "std": [0.25], "scale": 1 / 255, "layout": "nchw", "input": "x"}
    again = compiler._with_image(load_recipe({"name": "r", "passes": [{"pass": "fold-input"}]}), image)
    assert again.passes == (steps[1],)
    assert compiler._with_image(recipe, None) is recipe
