"""A tiny network, its data and a recipe as files, for tests of the command line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

RECIPE = """
name: short
passes:
  - pass: canonicalize
  - pass: calibrate
  - pass: insert-fake-quant
  - pass: to-integer
"""
X = np.linspace(0, 1, 4 * 2 * 4 * 4, dtype=np.float32).reshape(4, 2, 4, 4)


def weight(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((3, 2, 3, 3)).astype(np.float32)


def save(path: Path, w: np.ndarray, tail: str = "Relu", domain: str = "") -> None:
    """x [N, C, 4, 4] -> Conv -> `tail` -> y."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["h"], name="conv"),
        helper.make_node(tail, ["h"], ["y"], name="tail", domain=domain),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", w.shape[1], 4, 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "net", [x], [y], [numpy_helper.from_array(w, "w")])
    opsets = [helper.make_opsetid("", 21)] + ([helper.make_opsetid(domain, 1)] if domain else [])
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)


def good(folder: Path) -> None:
    """Everything that a good call needs; a case then spoils one thing."""
    save(folder / "net.onnx", weight())
    np.savez(folder / "data.npz", x=X)
    (folder / "recipe.yaml").write_text(RECIPE)
