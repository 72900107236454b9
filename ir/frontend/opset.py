"""Bring old models to opset 21: ONNX's own converter on the skeleton, big weights set aside meanwhile."""

from __future__ import annotations

import onnx_ir as ir

OPSET = 21
"""What import upgrades to: 16-bit and 4-bit QuantizeLinear came with it. Newer models keep theirs."""


def upgrade(model: ir.Model) -> ir.Model:
    """The model at opset 21 or newer.

    Raises:
        ModelError: names the operator that the converter cannot take there.
    """
    version = model.opset_imports.get("", OPSET)
    if version >= OPSET:
        return model
    from onnxscript import version_converter

    version_converter.convert_version(model, OPSET, fallback=True)
    return model
