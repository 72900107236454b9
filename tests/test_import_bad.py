"""Bad models: one clear line each, of the right kind, and nothing unpickled."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from importing import text_model

from mulshift.ir import ModelError, MulshiftError, UnsupportedError, UsageError, load

RELU = "g (float[2] x) => (float[2] y) {y = Relu(x)}"


def refused(source: object, kind: type[MulshiftError] = ModelError) -> str:
    """The message of the refusal: one line."""
    with pytest.raises(kind) as caught:
        load(source)
    assert type(caught.value) is kind
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_missing_folder_and_empty(tmp_path: Path) -> None:
    (tmp_path / "empty.onnx").touch()
    assert refused(tmp_path / "none.onnx") == f"{tmp_path / 'none.onnx'}: no such file"
    assert "is a folder, not a model" in refused(tmp_path)
    assert refused(tmp_path / "empty.onnx").endswith("is empty")


@pytest.mark.parametrize(
    "content", [b"hello, I am no model\n", b"\x00" * 64, b"\xff" * 64, b"{}", b"PK\x03\x04 no zip"]
)
def test_not_a_model(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.onnx"
    path.write_bytes(content)
    assert refused(path).startswith(f"{path}: is ")


def test_truncated_anywhere(tmp_path: Path) -> None:
    """Every cut of a model is refused; none gives a smaller model silently."""
    text = "g (float[2,3] x) => (float[2,2] y) <float[3,2] w = {1,2,3,4,5,6}> {z = Relu(x) y = MatMul(z, w)}"
    whole = text_model(text).SerializeToString()
    path = tmp_path / "cut.onnx"
    for length in range(1, len(whole)):
        path.write_bytes(whole[:length])
        try:
            model = load(path)
        except ModelError as e:
            assert "\n" not in str(e)
        else:  # only what follows the graph is gone: nothing that computes
            assert [node.op_type for node in model.graph] == ["Relu", "MatMul"]


def test_pickles_and_torchscript_are_never_loaded(tmp_path: Path) -> None:
    module = torch.nn.Linear(2, 2)
    torch.save(module, tmp_path / "module.pt")
    torch.save(module.state_dict(), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    torch.save(module.state_dict(), tmp_path / "state.pth")
    torch.jit.trace(module, torch.zeros(1, 2)).save(str(tmp_path / "script.pt"))  # type: ignore[no-untyped-call]
    for name in ("module.pt", "old.pth", "state.pth", "script.pt"):
        message = refused(tmp_path / name)
        assert "is a pickle or TorchScript file" in message
        assert "torch.export.save" in message


def test_another_archive_is_no_program(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=np.zeros(3))
    assert "is an archive, but not of torch.export.save" in refused(tmp_path / "data.npz")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A .pt2 with a dynamic dimension."""
    path = tmp_path_factory.mktemp("pt2") / "good.pt2"
    shapes = ({0: torch.export.Dim("batch")},)
    torch.export.save(torch.export.export(torch.nn.Linear(2, 2), (torch.zeros(3, 2),), dynamic_shapes=shapes), path)
    return path


def _evil(folder: Path) -> bytes:
    """A pickle that writes a file when it is loaded."""

    class Evil:
        def __reduce__(self) -> tuple[Callable[..., object], tuple[str, str]]:
            return open, (str(folder / "ran"), "w")

    data = io.BytesIO()
    torch.save(((Evil(),), {}), data)
    return data.getvalue()


@pytest.mark.parametrize(
    "member, old, new, message",
    [
        ("sample_inputs", None, None, "is a pickle"),
        ("_weights_config.json", b'"use_pickle": false', b'"use_pickle": true', "is a pickle"),
        ("_weights_config.json", b'"weight_0"', b'"custom_obj_0"', "is a pickle"),
        ("models/", b"Symbol('s", b"open('s", "suspicious size expression"),
        ("models/", b'{"', b"", "is a broken archive"),
    ],
)
def test_a_program_that_could_run_code(
    tmp_path: Path, program: Path, member: str, old: bytes | None, new: bytes | None, message: str
) -> None:
    bad = tmp_path / "bad.pt2"
    with zipfile.ZipFile(program) as source, zipfile.ZipFile(bad, "w") as target:
        for name in source.namelist():
            data = source.read(name)
            if member in name:
                changed = _evil(tmp_path) if old is None or new is None else data.replace(old, new, 1)
                assert changed != data
                data = changed
            target.writestr(name, data)
    assert message in refused(bad)
    assert not (tmp_path / "ran").exists()


def test_compiled_code_in_a_program(tmp_path: Path, program: Path) -> None:
    bad = tmp_path / "bad.pt2"
    bad.write_bytes(program.read_bytes())
    with zipfile.ZipFile(bad, "a") as archive:
        archive.writestr("good/data/aotinductor/model/x.so", b"\x7fELF")
    assert "holds compiled code" in refused(bad)


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite(number: float) -> None:
    proto = text_model("g (float[2,2] x) => (float[2,2] y) <float[2,2] w = {1,2,3,4}> {[fc] y = MatMul(x, w)}")
    proto.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(np.array([[1, 2], [3, number]], np.float32), "w"))
    message = refused(proto)
    assert message == "initializer 'w' of node 'fc' (MatMul): holds NaN or infinite values; repair the weights"


def test_masks_and_starts_of_a_maximum_may_be_infinite() -> None:
    text = "g (float[2] x) => (float[2] y) <float[2] m = {0,1}, float s = {0}> {a = Add(x, m) y = Max(a, s)}"
    proto = text_model(text)
    for tensor, array in zip(proto.graph.initializer, ([0, -np.inf], -np.inf), strict=True):
        tensor.CopyFrom(onnx.numpy_helper.from_array(np.array(array, np.float32), tensor.name))
    load(proto)
    proto.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(np.array([0, np.nan], np.float32), "m"))
    assert "initializer 'm'" in refused(proto)


def _external(folder: Path) -> Path:
    proto = text_model("g (float[4] x) => (float[4] y) <float[4] w = {1,2,3,4}> {y = Add(x, w)}")
    proto.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(np.ones(4, np.float32), "w"))
    onnx.save(proto, folder / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    return folder / "m.onnx"


def test_external_data_missing_or_short(tmp_path: Path) -> None:
    path = _external(tmp_path)
    (tmp_path / "m.data").write_bytes(b"\0" * 15)
    assert "m.data' is too short for initializer 'w' (15 of 16 bytes)" in refused(path)
    (tmp_path / "m.data").unlink()
    assert f"external data file '{tmp_path / 'm.data'}' of initializer 'w' is missing" in refused(path)


def test_external_data_of_others_is_not_read(tmp_path: Path) -> None:
    path = _external(tmp_path)
    proto = onnx.load(path, load_external_data=False)
    for entry in proto.graph.initializer[0].external_data:
        if entry.key == "location":
            entry.value = "../secret"
    path.write_bytes(proto.SerializeToString())
    assert "lies outside the model's folder" in refused(path)


GRAPHS: dict[str, tuple[str, str]] = {
    "circle": (
        "g (float[2] x) => (float[2] y) {a = Add(x, b) b = Relu(a) y = Neg(b)}",
        r"graph: has nodes that feed each other in a circle",
    ),
    "undefined": (
        "g (float[2] x) => (float[2] y) {[n] y = Relu(q)}",
        "node 'n' (Relu): reads 'q', which nothing defines",
    ),
    "no output": ("g (float[2] x) => (float[2] y) {z = Relu(x)}", "output 'y': is not computed by any node"),
    "twice": ("g (float[2] x) => (float[2] y) {y = Relu(x) y = Neg(x)}", "the name 'y' is defined twice in graph 'g'"),
    "twice input": ("g (float[2] x) => (float[2] y) {x = Relu(x) y = Neg(x)}", "the name 'x' is defined twice"),
    "attribute": (
        "g (float[2] x) => (float[2] y) {[n] y = Cast(x)}",
        "node 'n' (Cast): is not valid (Required attribute",
    ),
    "inputs": ("g (float[2,2] x) => (float[2,2] y) {[n] y = Gemm(x)}", "node 'n' (Gemm): is not valid"),
    "types": ("g (float[2] x, int64[2] i) => (float[2] y) {y = Add(x, i)}", "has operators that do not fit together"),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_invalid_graphs(name: str) -> None:
    text, message = GRAPHS[name]
    assert message in refused(text_model(text))


def test_unknown_operators() -> None:
    text = "g (float[2] x) => (float[2] y) {y = %s(x)}"
    message = refused(text_model(text % "acme.Magic", extra=', "acme": 1'), UnsupportedError)
    assert message.startswith("node 'y' (Magic): operator 'Magic' of domain 'acme' is not known")
    assert "is no operator of opset 21" in refused(text_model(text % "Magic"), UnsupportedError)
    contrib = text_model(text % "com.microsoft.Magic", extra=', "com.microsoft": 1')
    assert "'com.microsoft'" in refused(contrib, UnsupportedError)


def test_no_model_at_all() -> None:
    assert "source of type int: is not a model" in refused(3, UsageError)
    assert "it has no graph" in refused(onnx.ModelProto())


def test_a_float_text_file_that_parses_by_chance(tmp_path: Path) -> None:
    """Protobuf accepts some rubbish as unknown fields: it still has no graph."""
    path = tmp_path / "x.onnx"
    path.write_bytes(b"\x0a\x00")
    assert "has no graph" in refused(path)


def test_good_program_is_read(program: Path) -> None:
    assert str(load(program).graph.inputs[0].dtype) == "FLOAT"
    assert RELU  # the smallest good model of this file
    assert len(load(text_model(RELU)).graph) == 1
