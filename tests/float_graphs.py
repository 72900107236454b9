"""Small FLOAT graphs from ONNX text, and their outputs by ONNX Runtime and by the interpreter."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from mulshift.ir import Array, Feeds, Interpreter, load
from mulshift.passes import Pass
from mulshift.passes.structure import check_structure, signature

TOLERANCE = 1e-4
"""Of the largest output: float32 has 6e-8, sums of up to 1e3 terms in another order lose two digits."""


def graph(text: str, weights: Mapping[str, Array] | None = None, opset: int = 21) -> ir.Model:
    """A model from the body of an ONNX text graph; `weights` become initializers. Loaded as users' models are."""
    model = ir.from_onnx_text(f'<ir_version: 10, opset_import: ["" : {opset}]>\n{text}')
    declared = {name: v for name in weights or {} for v in _reads(model, name)}
    for name, array in (weights or {}).items():
        tensor = ir.tensor(array, name=name)
        value = ir.Value(name=name, const_value=tensor, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape))
        if name in declared:
            declared[name].replace_all_uses_with(value)
        model.graph.register_initializer(value)
    return load(model)


def _reads(model: ir.Model, name: str) -> list[ir.Value]:
    found = [v for n in model.graph.all_nodes() for v in n.inputs if v is not None and v.name == name]
    return found[:1]


def random(shape: tuple[int, ...], seed: int = 0, low: float = -1.0, high: float = 1.0) -> Array:
    """Seeded uniform float32."""
    return np.random.default_rng(seed).uniform(low, high, shape).astype(np.float32)


def batch_norm(channels: int, prefix: str = "", seed: int = 7) -> dict[str, Array]:
    """Parameters s, o, m, v of a BatchNormalization that is far from the identity."""
    low_high = {"s": (0.5, 1.5), "o": (-1.0, 1.0), "m": (-1.0, 1.0), "v": (0.3, 2.0)}
    return {prefix + k: random((channels,), seed + i, *lh) for i, (k, lh) in enumerate(low_high.items())}


def by_ort(model: ir.Model, feeds: Feeds) -> list[Array]:
    """Graph outputs on stock ONNX Runtime, nothing fused."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    proto = ir.to_proto(model).SerializeToString()
    session = ort.InferenceSession(proto, options, providers=["CPUExecutionProvider"])
    return list(session.run(None, dict(feeds)))


def apply(step: Pass, model: ir.Model, feeds: Feeds, tolerance: float = TOLERANCE) -> Pass:
    """Run a pass; check structure, numbers by both runners, and that a second run changes nothing."""
    expected, outputs = by_ort(model, feeds), signature(model)
    step(model)
    check_structure(model, outputs, step.name)
    _compare(expected, by_ort(model, feeds), tolerance)
    _compare(expected, [t.numpy() for t in Interpreter(model).run(feeds).values()], tolerance)
    again = type(step)(**{k: v for k, v in vars(step).items() if k != "log"})
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    assert not again(model).modified, again.log.changed
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before
    return step


def _compare(expected: list[Array], got: list[Array], tolerance: float) -> None:
    for a, b in zip(expected, got, strict=True):
        assert a.shape == b.shape
        assert a.dtype == b.dtype
        np.testing.assert_allclose(b, a, rtol=0, atol=tolerance * max(1.0, float(np.abs(a).max(initial=0.0))))


def ops(model: ir.Model) -> list[str]:
    """Operators in order."""
    return [node.op_type for node in model.graph]


def reasons(step: Pass) -> str:
    """Everything that the pass declined, as one text."""
    return "\n".join(f"{note.where}: {note.what}" for note in step.log.skipped)
