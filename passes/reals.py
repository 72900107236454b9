"""Feeds and outputs of a graph whose inputs or outputs hold integers that stand for reals, told by their metadata."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from mulshift.ir import Array, Feeds, get_qparams, is_float


def is_quantized(value: ir.Value) -> bool:
    """Whether a value holds integers that stand for reals."""
    return not is_float(value) and get_qparams(value) is not None


def as_integers(model: ir.Model, feeds: Feeds) -> Feeds:
    """Float feeds of integer inputs as the integers that QuantizeLinear makes of them; others as they are."""
    inputs = {str(v.name): v for v in model.graph.inputs if is_quantized(v)}
    made: dict[str, Array] = dict(feeds)
    for name, value in inputs.items():
        q, array = get_qparams(value), feeds.get(name)
        if q is not None and array is not None and array.dtype.kind == "f" and value.dtype is not None:
            made[name] = q.quantize(array).astype(value.dtype.numpy())
    return made


def as_reals(model: ir.Model, outputs: Mapping[str, Array]) -> dict[str, Array]:
    """Integer outputs as the reals that they stand for; others as they are."""
    made = dict(outputs)
    for value in model.graph.outputs:
        q, name = get_qparams(value), str(value.name)
        if q is not None and is_quantized(value) and name in made:
            made[name] = q.dequantize(made[name])
    return made
