"""lock.json: hashes that see every change, and a replay that proves equal bytes or says what differs first."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import tiny

import mulshift
from mulshift.ir import ModelError, UsageError
from mulshift.lock import HashedSamples, Sources, model_sha256, read_lock
from mulshift.passes import PASSES


@pytest.fixture(autouse=True)
def _passes(monkeypatch: pytest.MonkeyPatch) -> None:
    for cls in tiny.PASSES.values():
        monkeypatch.setitem(PASSES, cls.name, cls)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An artifact compiled from files."""
    ir.save(tiny.float_model(), tmp_path / "net.onnx")
    np.savez(tmp_path / "data.npz", x=np.concatenate([s["x"] for s in tiny.samples(4)]))
    sources = Sources(model=str(tmp_path / "net.onnx"), calibration=str(tmp_path / "data.npz"), limit=3)
    from mulshift.data import DataRequest

    mulshift.compile(
        sources.model,
        DataRequest(sources.calibration, limit=3),
        recipe=tiny.RECIPE,  # type: ignore[arg-type]
        output=tmp_path / "a",
        sources=sources,
    )
    return tmp_path


def test_replay_proves_the_bytes(folder: Path) -> None:
    for path in (folder / "a", folder / "a" / "lock.json"):
        made = mulshift.replay(path)
        assert made.same, made.differences
    assert made.compiled.lock.text() == (folder / "a" / "lock.json").read_text()


def test_replay_from_sources_that_have_moved(folder: Path) -> None:
    (folder / "net.onnx").rename(folder / "moved.onnx")
    assert mulshift.replay(folder / "a", str(folder / "moved.onnx")).same
    assert mulshift.replay(folder / "a", tiny.float_model()).same


def test_other_data_is_named_before_its_effects(folder: Path) -> None:
    np.savez(folder / "data.npz", x=np.concatenate([s["x"] for s in tiny.samples(4, seed=9)]))
    assert mulshift.replay(folder / "a").differences[0] == "the calibration data is other data"


def test_another_model_is_named(folder: Path) -> None:
    made = mulshift.replay(folder / "a", tiny.float_model(seed=1))
    assert made.differences[0] == "the model is another one"
    assert "model.onnx has other bytes" in made.differences


def test_another_version_is_the_first_suspect(folder: Path) -> None:
    file = folder / "a" / "lock.json"
    lock = json.loads(file.read_text())
    lock["versions"]["torch"] = "1.0"
    lock["outputs"]["report.json"] = "0" * 64
    file.write_text(json.dumps(lock))
    found = mulshift.replay(file).differences
    assert found[0] == "report.json beside the lock was changed after it was written"
    assert found[1].startswith("torch was 1.0 and is ")
    assert found[2:] == ("report.json has other bytes",)


def test_a_changed_artifact_is_seen(folder: Path) -> None:
    (folder / "a" / "model.onnx").write_bytes(b"other")
    assert mulshift.replay(folder / "a").differences == ("model.onnx beside the lock was changed after it was written",)


def test_objects_of_python_must_be_given_again(tmp_path: Path) -> None:
    mulshift.compile(tiny.float_model(), tiny.samples(2), recipe=tiny.RECIPE, output=tmp_path / "a")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="does not say where the model is"):
        mulshift.replay(tmp_path / "a")
    with pytest.raises(UsageError, match="does not say where the calibration data is"):
        mulshift.replay(tmp_path / "a", tiny.float_model())
    assert mulshift.replay(tmp_path / "a", tiny.float_model(), tiny.samples(2)).same


@pytest.mark.parametrize("text", ["", "{}", "not json", '{"format": 1}'])
def test_a_file_that_is_no_lock(text: str, tmp_path: Path) -> None:
    (tmp_path / "lock.json").write_text(text)
    with pytest.raises(ModelError, match="is not a lock of mulshift"):
        read_lock(tmp_path)
    with pytest.raises(ModelError, match="cannot be read"):
        read_lock(tmp_path / "none.json")


def test_model_hash_sees_numbers_names_and_attributes_but_no_paths() -> None:
    hashes = {model_sha256(tiny.float_model())}
    same = tiny.float_model()
    same.graph.node(0).metadata_props["pkg.torch.onnx.stack_trace"] = "/home/x"
    same.producer_name = "someone"
    assert hashes == {model_sha256(same)}
    for change in ("weight", "attribute", "name"):
        model = tiny.float_model()
        if change == "weight":
            old = model.graph.initializers["w"].const_value
            assert old is not None
            array = old.numpy().copy()
            array[3, 2, 1, 0] = np.nextafter(array[3, 2, 1, 0], np.float32(9))
            model.graph.initializers["w"].const_value = ir.tensor(array)
        elif change == "attribute":
            model.graph.node(0).attributes["pads"] = ir.AttrInt64s("pads", [1, 1, 1, 0])
        else:
            model.graph.outputs[0].name = "z"
        hashes.add(model_sha256(model))
    assert len(hashes) == 4
    untouched = tiny.float_model()
    model_sha256(untouched)
    assert untouched.graph.initializers["w"].const_value is not None


def test_samples_are_hashed_while_they_are_read() -> None:
    reads = []

    class Data:
        def __iter__(self) -> object:
            reads.append(1)
            return iter(tiny.samples(2))

    hashed = HashedSamples(Data())  # type: ignore[arg-type]
    next(iter(hashed))  # a partial read counts for nothing
    list(hashed)
    assert len(reads) == 2
    first = hashed.sha256()
    assert len(reads) == 2
    assert first == HashedSamples(tiny.samples(2)).sha256()
    swapped = HashedSamples(list(reversed(tiny.samples(2)))).sha256()
    renamed = HashedSamples([{"z": s["x"]} for s in tiny.samples(2)]).sha256()
    assert len({first, swapped, renamed, HashedSamples(tiny.samples(1)).sha256()}) == 4


def test_paths_given_in_python_are_recorded_for_replay(folder: Path) -> None:
    paths = str(folder / "net.onnx"), str(folder / "data.npz")
    mulshift.compile(*paths, recipe=tiny.RECIPE, output=folder / "b")  # type: ignore[arg-type]
    assert read_lock(folder / "b").sources == Sources(model=paths[0], calibration=paths[1])
    assert mulshift.replay(folder / "b").same
