"""What the import tests share: models in ONNX text, and stock ONNX Runtime beside them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from onnx import parser

from mulshift.ir import Array


def text_model(text: str, opset: int = 21, ir_version: int = 10, extra: str = "") -> onnx.ModelProto:
    """The model of a graph in ONNX text; `extra` holds more opset imports, each after a comma."""
    return parser.parse_model(f'<ir_version: {ir_version}, opset_import: ["": {opset}{extra}]>\n{text}')


def run(model: onnx.ModelProto | ir.Model | Path | str, feeds: Mapping[str, Array], optimize: bool = True) -> list[Any]:
    """Outputs of stock ONNX Runtime, one thread."""
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    if not optimize:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    if isinstance(model, ir.Model):
        model = ir.serde.serialize_model(model)
    source = model.SerializeToString() if isinstance(model, onnx.ModelProto) else str(model)
    session = ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    return list(session.run(None, dict(feeds)))


def random_feeds(model: ir.Model, seed: int = 0, **dims: int) -> dict[str, Array]:
    """A feed for every graph input: normal floats, integers 0 to 255, True; `dims` gives the dynamic dimensions."""
    rng = np.random.default_rng(seed)
    feeds: dict[str, Array] = {}
    for value in model.graph.inputs:
        assert value.shape is not None and value.dtype is not None
        shape = [d if isinstance(d, int) else dims[str(d.value)] for d in value.shape]
        numbers = rng.standard_normal(shape) if value.dtype.is_floating_point() else rng.integers(0, 256, shape)
        feeds[str(value.name)] = np.asarray(numbers).astype(value.dtype.numpy())
    return feeds
