"""Weights in files beside the model: found from any folder, and an artifact that does not need them any more."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

import mulshift


def test_an_island_keeps_its_weights_when_the_files_are_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], name="product"),
        helper.make_node("LayerNormalization", ["h", "scale"], ["y"], name="norm"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [
            numpy_helper.from_array(rng.normal(size=(64, 64)).astype(np.float32), "w"),
            numpy_helper.from_array(rng.uniform(0.5, 1.5, 64).astype(np.float32), "scale"),
        ],
    )
    path = tmp_path / "model.onnx"
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.save(proto, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    monkeypatch.chdir("/")
    samples = [{"x": rng.normal(size=(1, 64)).astype(np.float32)} for _ in range(4)]

    compiled = mulshift.compile(str(path), samples, recipe="int8-fast", output=tmp_path / "artifact")

    (tmp_path / "weights.bin").unlink()
    session = ort.InferenceSession(str(tmp_path / "artifact" / "model.onnx"))
    assert np.array_equal(session.run(None, samples[0])[0], compiled.run(samples[0])["y"])
