"""Networks of many shapes through the whole main job: compiled, verified on stock ONNX Runtime, close to float."""

from __future__ import annotations

import inspect

import pytest
from zoo import ZOO, make

import mulshift

FLOATS: dict[str, set[str]] = {}
"""Operators that have no integer form yet, by network."""
LEAST_SQNR = 30.0
"""dB. 8-bit activations give about 6.02 * 8 - 10 = 38 dB for one rounding of a value that fills its range to a third
of the clip; these networks have a handful in a row."""


@pytest.mark.parametrize("name", ZOO)
def test_compiles_to_integers_close_to_float(name: str) -> None:
    module, example, samples = make(name)
    names = list(inspect.signature(module.forward).parameters)
    feeds = [{n: x.numpy() for n, x in zip(names, sample, strict=True)} for sample in samples]

    compiled = mulshift.compile(module, feeds, recipe="int8-fast", example_inputs=example)

    report = compiled.report
    assert report.verification.differences == 0
    assert report.verification.tensors > 0
    assert {layer.op for layer in report.layers if layer.float_reason} == FLOATS.get(name, set())
    assert all(db is None or db > LEAST_SQNR for db in report.totals.output_sqnr_db.values())
