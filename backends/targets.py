"""The table of targets, and `lower`."""

from __future__ import annotations

import importlib

import onnx_ir as ir

from mulshift.backends.artifact import Artifact
from mulshift.ir import Level, Target, UsageError, get_level
from mulshift.passes.recipe import suggest

TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        Target(
            "onnxruntime",
            "onnxruntime",
            Level.INTEGER,
            note="mulshift:: nodes with function bodies; integer-only, bit-exact on stock ONNX Runtime",
        ),
        Target(
            "onnxruntime-portable",
            "onnxruntime",
            Level.INTEGER,
            note="the bodies inlined: standard operators only; the same bits, slower",
        ),
        Target(
            "onnxruntime-qdq",
            "onnxruntime",
            Level.QDQ,
            note="standard Q/DQ, u8 x s8, for OpenVINO, QNN and others; float scales, within 1 step of the integers",
        ),
        Target(
            "tensorrt",
            "onnxruntime",
            Level.QDQ,
            signed_activations=True,
            note="standard Q/DQ, s8 x s8, zero points 0, float biases: INT8 in and out, as its sparse kernels ask",
        ),
    )
}
DEFAULT_TARGET = "onnxruntime"


def find_target(name: str) -> Target:
    """A row of TARGETS; UsageError with the closest name if there is none."""
    if name not in TARGETS:
        raise UsageError(f"target '{name}'", "no such target", suggest(name, TARGETS))
    return TARGETS[name]


def lower(model: ir.Model, target: Target | str) -> Artifact:
    """The model in the target's form; the model itself is left as it is.

    Args:
        model: at the level that the target wants.
        target: row of TARGETS, or its name.

    Raises:
        UsageError: the model is at another level, or there is no such target.
        UnsupportedError: the target cannot run a node.
    """
    row = find_target(target) if isinstance(target, str) else target
    level = get_level(model)
    if level is not row.level:
        raise UsageError(f"target '{row.name}'", f"wants a graph at level {row.level}, not {level}")
    backend = importlib.import_module(f"mulshift.backends.{row.backend}")
    made: Artifact = backend.lower(model, row)
    return made
