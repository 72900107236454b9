"""Data of every source as feeds: shapes, types, order, repeatability, and constant memory."""

from __future__ import annotations

import json
import operator
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mulshift.data import (
    DataRequest,
    InputSpec,
    digest,
    example_inputs,
    guess_inputs,
    input_specs,
    open_samples,
)
from mulshift.images import Normalization, Preprocessing, parse_preprocessing
from mulshift.ir import DataError, UsageError

F32 = np.dtype(np.float32)
I64 = np.dtype(np.int64)
IMAGE = InputSpec("x", F32, ("N", 3, 4, 4))
X = np.arange(5 * 3 * 4 * 4, dtype=np.float32).reshape(5, 3, 4, 4)


def feeds(data: Any, *inputs: InputSpec, **options: Any) -> list[dict[str, Any]]:
    return [dict(f) for f in open_samples(data, inputs, **options)]


def test_an_array_gives_one_feed_a_sample() -> None:
    got = feeds(X, IMAGE)
    assert len(got) == 5
    assert got[3]["x"].shape == (1, 3, 4, 4)
    assert np.array_equal(np.concatenate([f["x"] for f in got]), X)


@pytest.mark.parametrize(
    ("shape", "spec", "options", "sizes"),
    [
        ((5, 3, 4, 4), ("N", 3, 4, 4), {}, [(1, 3, 4, 4)] * 5),
        ((5, 3, 4, 4), ("N", 3, 4, 4), {"batch": 2}, [(2, 3, 4, 4), (2, 3, 4, 4), (1, 3, 4, 4)]),
        ((4, 3, 4, 4), (2, 3, 4, 4), {}, [(2, 3, 4, 4)] * 2),
        ((3, 4, 4), ("N", 3, 4, 4), {}, [(1, 3, 4, 4)]),
        ((5, 2, 3, 4, 4), (2, 3, 4, 4), {}, [(2, 3, 4, 4)] * 5),
        ((5, 7), ("N", "width"), {}, [(1, 7)] * 5),
        ((5,), (), {}, [()] * 5),
        ((), (), {}, [()]),
        ((5, 9), None, {}, [(1, 9)] * 5),
        ((5, 3, 4, 4), ("N", 3, 4, 4), {"limit": 2}, [(1, 3, 4, 4)] * 2),
        ((4, 3, 4, 4), (2, 3, 4, 4), {"limit": 1}, [(2, 3, 4, 4)]),
    ],
)
def test_rank_decides_how_axis_0_is_taken(
    tmp_path: Path, shape: tuple[int, ...], spec: Any, options: dict[str, Any], sizes: list[tuple[int, ...]]
) -> None:
    array = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    np.save(tmp_path / "a.npy", array)
    for data in (array, tmp_path / "a.npy"):
        samples = open_samples(data, (InputSpec("x", F32, spec),), **options)
        got = [f["x"] for f in samples]
        assert [g.shape for g in got] == sizes
        assert operator.length_hint(samples) == len(sizes)
        taken = np.concatenate([g.reshape(-1) for g in got])
        assert np.array_equal(taken, array.reshape(-1)[: taken.size])


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_streams_every_input_by_name(tmp_path: Path, save: Any) -> None:
    ids = np.arange(20).reshape(5, 4)
    save(tmp_path / "d.npz", mask=np.ones((5, 4), bool), ids=ids, labels=np.zeros(3))
    inputs = (InputSpec("ids", I64, ("N", 4)), InputSpec("mask", I64, ("N", 4)))
    samples = open_samples(tmp_path / "d.npz", inputs)
    first, second = list(samples), list(samples)
    assert np.array_equal(np.concatenate([f["ids"] for f in first]), ids)
    assert first[0]["mask"].dtype == I64
    assert digest(first) == digest(second) == digest(samples)
    assert digest(first) != digest(first[:-1])


def test_lone_array_serves_lone_input_whatever_its_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", arr_0=X)
    assert len(feeds(tmp_path / "d.npz", IMAGE)) == 5


def test_folders_give_files_in_order_of_names(tmp_path: Path) -> None:
    np.save(tmp_path / "b.npy", X[:2])
    np.save(tmp_path / "a.npy", X[4])
    (tmp_path / "sub").mkdir()
    np.save(tmp_path / "sub" / "c.npy", X[2:4])
    (tmp_path / "README.txt").write_text("not data")
    got = feeds(tmp_path, IMAGE)
    assert np.array_equal(np.concatenate([f["x"] for f in got]), X[[4, 0, 1, 2, 3]])


def test_fortran_order_is_read_right(tmp_path: Path) -> None:
    np.save(tmp_path / "f.npy", np.asfortranarray(X))
    np.savez(tmp_path / "f.npz", x=np.asfortranarray(X))
    for name in ("f.npy", "f.npz"):
        assert np.array_equal(np.concatenate([f["x"] for f in feeds(tmp_path / name, IMAGE)]), X)


@pytest.mark.parametrize("name", ["big.npy", "big.npz"])
def test_memory_does_not_grow_with_the_number_of_samples(tmp_path: Path, name: str) -> None:
    spec = InputSpec("x", F32, ("N", 64, 64))
    peaks = []
    for count in (20, 400):
        array = np.ones((count, 64, 64), np.float32)
        np.save(tmp_path / name, array) if name.endswith(".npy") else np.savez_compressed(tmp_path / name, x=array)
        del array
        tracemalloc.start()
        assert sum(1 for _ in open_samples(tmp_path / name, (spec,))) == count
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 100_000  # less than 7 of the 380 further samples of 16 kB


def test_every_item_form_of_an_iterable() -> None:
    import torch

    two = (InputSpec("a", F32, ("N", 2)), InputSpec("b", I64, ("N",)))
    tensor = torch.ones(1, 2, requires_grad=True)
    items = [
        {"b": np.array([3]), "a": [[1.0, 1.0]]},
        (np.ones((1, 2)), torch.tensor([3])),
        [tensor, 3],
        {"a": np.ones(2), "b": np.array([3], np.int8), "label": "cat"},
    ]
    got = feeds(items, *two)
    assert all(np.array_equal(f["a"], np.ones((1, 2), np.float32)) and f["b"].tolist() == [3] for f in got)
    assert {f["a"].dtype for f in got} == {F32}


def test_a_function_that_yields_is_called_for_each_pass() -> None:
    calls = []

    def samples() -> Any:
        calls.append(1)
        yield from X

    data = open_samples(samples, (IMAGE,), limit=3)
    assert len(list(data)) == len(list(data)) == 3
    assert len(calls) == 2


def test_casts_that_keep_values_are_allowed() -> None:
    assert feeds(X.astype(np.float64), IMAGE)[0]["x"].dtype == F32
    assert feeds(np.array([[1, 2]], np.int32), InputSpec("i", I64, ("N", 2)))[0]["i"].tolist() == [[1, 2]]
    assert feeds(np.array([[1, 2]]), InputSpec("i", np.dtype(np.uint8), ("N", 2)))[0]["i"].tolist() == [[1, 2]]


NAN, INFINITE = X.copy(), X.astype(np.float64)
NAN[2, 0, 0, 0] = np.nan
INFINITE[1, 0, 0, 0] = 1e300

BAD: list[tuple[str, Any, InputSpec, str]] = [
    ("nan", NAN, IMAGE, "sample 2: holds NaN"),
    ("too large for float32", INFINITE, IMAGE, "sample 1: holds infinity"),
    ("pixels for a float input", X.astype(np.uint8), IMAGE, "is uint8 where the model has float32"),
    ("floats for an int input", X, InputSpec("x", I64, ("N", 3, 4, 4)), "is float32 where the model has int64"),
    ("int out of range", np.array([[300]]), InputSpec("x", np.dtype(np.uint8), ("N", 1)), "values outside uint8"),
    ("channels last", X.transpose(0, 2, 3, 1), IMAGE, "dimension 1 is 4 where the model has 3"),
    ("channels last remedy", X.transpose(0, 2, 3, 1), IMAGE, "transpose the axes"),
    ("rank", np.ones((5, 3), np.float32), IMAGE, "has rank 2 where the model has 4"),
    ("lone sample of a batch of 2", X[0], InputSpec("x", F32, (2, 3, 4, 4)), "dimension 0 is 1 where the model has 2"),
    (
        "odd number for a batch of 2",
        X,
        InputSpec("x", F32, (2, 3, 4, 4)),
        "5 samples, no multiple of the model's batch",
    ),
    ("empty array", X[:0], IMAGE, "holds no samples"),
    ("empty dimension", X[:, :, :0], InputSpec("x", F32, ("N", 3, "h", 4)), "is empty"),
    ("empty list", [], IMAGE, "holds no samples"),
    ("wrong names", {"image": X, "label": X}, IMAGE, "has arrays 'image', 'label' where the model has inputs 'x'"),
    ("words", [["cat"]], IMAGE, "not numbers"),
    ("objects", np.array([object()]), IMAGE, "where the model has float32"),
    ("labels beside", [(X[0], 3)], IMAGE, "has 2 arrays where the model has inputs 'x'"),
    ("ragged", [[[1.0], [1.0, 2.0]]], IMAGE, "has 2 arrays"),
    ("iterator", iter([X]), IMAGE, "can be read only once"),
    ("number", 3, IMAGE, "is a int"),
    ("function of one feed", lambda: {"x": X}, IMAGE, "returned a single feed"),
    ("function of nothing", lambda: None, IMAGE, "returned a NoneType"),
    ("function that yields nothing", lambda: iter(()), IMAGE, "holds no samples"),
    ("function that raises", lambda: 1 / 0, IMAGE, "raised ZeroDivisionError: division by zero at test_data.py"),
    ("generator that raises", lambda: (1 / k for k in (1, 0)), InputSpec("x", F32, ()), "raised ZeroDivisionError"),
]


@pytest.mark.parametrize(("data", "spec", "words"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_data_that_does_not_fit_says_so(data: Any, spec: InputSpec, words: str) -> None:
    with pytest.raises(DataError) as caught:
        list(open_samples(data, (spec,)))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_inputs_must_agree_in_number(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", a=np.ones((3, 2), np.float32), b=np.ones((4, 2), np.float32))
    inputs = (InputSpec("a", F32, ("N", 2)), InputSpec("b", F32, ("N", 2)))
    with pytest.raises(DataError, match="'a' 3, 'b' 4"):
        open_samples(tmp_path / "d.npz", inputs)


def test_shapes_are_checked_before_anything_is_read(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", X)
    np.save(tmp_path / "b.npy", X[:, :2])
    with pytest.raises(DataError, match=r"b\.npy"):
        open_samples(tmp_path, (IMAGE,))


def test_a_file_cut_short_is_found_when_opened(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", X)
    whole = (tmp_path / "a.npy").read_bytes()
    for size in (0, 5, 60, len(whole) - 1):
        (tmp_path / "a.npy").write_bytes(whole[:size])
        with pytest.raises(DataError, match=r"not a readable \.npy"):
            open_samples(tmp_path / "a.npy", (IMAGE,))


def test_a_damaged_archive_is_found_when_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.tile(X, (50, 1, 1, 1)))  # longer than what reading the header takes in
    data = bytearray((tmp_path / "a.npz").read_bytes())
    data[len(data) // 2] ^= 1  # inside the numbers: only the checksum tells
    (tmp_path / "a.npz").write_bytes(data)
    with pytest.raises(DataError, match="cannot be read"):
        list(open_samples(tmp_path / "a.npz", (IMAGE,)))


def test_input_specs_leave_out_inputs_with_defaults() -> None:
    import onnx_ir as ir

    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["N", 3, None]))
    w = ir.Value(name="w", type=ir.TensorType(ir.DataType.FLOAT), const_value=ir.tensor(np.ones(3, np.float32)))
    graph = ir.Graph([x, w], [x], nodes=[], initializers=[w], opset_imports={"": 21})
    assert input_specs(ir.Model(graph, ir_version=10)) == (InputSpec("x", F32, ("N", 3, "?")),)


def test_guessed_inputs_take_axis_0_for_samples(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", ids=np.ones((5, 4), np.int32), x=np.ones((5, 2)))
    assert guess_inputs(tmp_path / "d.npz") == (
        InputSpec("ids", np.dtype(np.int32), ("N", 4)),
        InputSpec("x", F32, ("N", 2)),
    )
    assert guess_inputs([(X[:1], X[:1])])[1] == InputSpec("input_1", F32, ("N", 3, 4, 4))


# --- images ------------------------------------------------------------------------------------------------------


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    image = pytest.importorskip("PIL.Image")
    for k in range(3):
        pixels = np.zeros((8, 12, 3), np.uint8)
        pixels[..., 0] = 10 * k
        pixels[:, 6:, 1] = 200
        image.fromarray(pixels).save(tmp_path / f"{k}.png")
    return tmp_path


RAW = Preprocessing(Normalization(1.0))


def test_images_become_the_models_input(photos: Path) -> None:
    spec = InputSpec("x", F32, ("N", 3, 8, 8))
    got = feeds(photos, spec, images=RAW)
    assert [f["x"].shape for f in got] == [(1, 3, 8, 8)] * 3
    assert got[2]["x"][0, 0].tolist() == [[20.0] * 8] * 8
    assert got[0]["x"][0, 1, 0].tolist() == [0.0] * 4 + [200.0] * 4  # columns 2 to 9 of 12


@pytest.mark.parametrize(
    ("shape", "options", "position", "value"),
    [
        ((1, 8, 12, 3), {}, (0, 0, 11, 1), 200.0),
        ((1, 3, 8, 12), {"channels": "bgr"}, (0, 2, 0, 0), 20.0),
        ((1, 3, 4, 4), {"resize": "stretch"}, (0, 1, 0, 3), 200.0),
        ((1, 3, 12, 12), {"resize": "pad"}, (0, 0, 0, 0), 0.0),
        ((1, 3, 12, 12), {"resize": "pad"}, (0, 0, 6, 0), 20.0),
        ((1, 3, 8, 12), {"normalization": Normalization(0.5, (1.0, 2.0, 3.0), (2.0,))}, (0, 0, 0, 0), 4.5),
        ((1, 3, "h", "w"), {"size": (8, 12)}, (0, 0, 7, 11), 20.0),
    ],
)
def test_image_options(
    photos: Path, shape: Any, options: dict[str, Any], position: tuple[int, ...], value: float
) -> None:
    made = Preprocessing(**{"normalization": Normalization(1.0), **options})
    assert feeds(photos, InputSpec("x", F32, shape), images=made)[2]["x"][position] == value


def test_uint8_input_takes_the_pixels_as_they_are(photos: Path) -> None:
    got = feeds(photos, InputSpec("x", np.dtype(np.uint8), (1, 3, 8, 8)))
    assert got[1]["x"].dtype == np.uint8
    assert got[1]["x"][0, 0, 0, 0] == 10


def test_grey_images_for_one_channel(photos: Path) -> None:
    assert feeds(photos, InputSpec("x", F32, ("N", 1, 8, 8)), images=RAW)[0]["x"].shape == (1, 1, 8, 8)


@pytest.mark.parametrize(
    ("shape", "images", "words"),
    [
        (("N", 3, 8, 8), None, "give --image-preset"),
        (("N", 3, "h", "w"), RAW, "give --image-size"),
        (("N", 5, 8, 8), RAW, "cannot be told"),
        (("N", 3, 8, 3), RAW, "cannot be told"),
        ((2, 3, 8, 8), RAW, "3 images, no multiple of the model's batch 2"),
        (("N", 3), RAW, "4 dimensions"),
        (("N", 1, 8, 8), Preprocessing(Normalization(1.0, (1.0, 2.0, 3.0))), "3 numbers"),
    ],
)
def test_images_that_cannot_serve(photos: Path, shape: Any, images: Preprocessing | None, words: str) -> None:
    with pytest.raises(DataError, match=words):
        open_samples(photos, (InputSpec("x", F32, shape),), images=images)


def test_a_damaged_image_is_named(photos: Path) -> None:
    data = (photos / "1.png").read_bytes()
    (photos / "1.png").write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match=r"1\.png.*not a readable image"):
        feeds(photos, InputSpec("x", F32, ("N", 3, 8, 8)), images=RAW)


@pytest.mark.parametrize(
    "texts",
    [
        {"scale": "one"},
        {"scale": "1/0"},
        {"mean": "1,2"},
        {"std": "0"},
        {"scale": "-1"},
        {"preset": "none"},
        {"size": "big"},
        {"size": "0"},
        {"size": "1x2x3"},
        {"crop": 1.5},
        {"layout": "chwn"},
        {"channels": "rgba"},
        {"resize": "squash"},
        {"interpolation": "cubic"},
    ],
)
def test_options_that_cannot_be_read(texts: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        parse_preprocessing(**texts)


def test_options_are_read() -> None:
    made = parse_preprocessing(preset="imagenet", std="0.5", size="224x320", crop=0.875, layout=None)
    assert made.normalization == Normalization(1 / 255, (0.485, 0.456, 0.406), (0.5,))
    assert made.size == (224, 320)
    assert parse_preprocessing(scale="1/127.5", mean="1").normalization == Normalization(1 / 127.5, (1.0,))
    assert Preprocessing.from_dict(json.loads(json.dumps(made.as_dict()))) == made
    assert Preprocessing.from_dict(json.loads(json.dumps(Preprocessing().as_dict()))) == Preprocessing()


def test_a_request_is_opened_when_the_inputs_are_known() -> None:
    request = DataRequest(X, limit=4, batch=2)
    samples = open_samples(request, (IMAGE,))
    assert [f["x"].shape[0] for f in samples] == [2, 2]
    assert open_samples(samples, (IMAGE,)) is samples
    with pytest.raises(DataError):
        list(open_samples(samples, (InputSpec("x", F32, ("N", 3, 5, 5)),)))


def test_example_inputs_follow_the_names_of_forward() -> None:
    import torch

    class Two(torch.nn.Module):
        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            return a - b

    a, b = np.ones((3, 2)), np.zeros((3, 2))
    by_name = example_inputs(Two(), {"b": b, "a": a})
    assert isinstance(by_name, dict)
    assert by_name["a"].tolist() == [[1.0, 1.0]]
    in_order = example_inputs(Two(), {"first": b, "second": a})
    assert isinstance(in_order, tuple)
    assert in_order[0].tolist() == [[0.0, 0.0]]
