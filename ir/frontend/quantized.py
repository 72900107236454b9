"""Models that come quantized: QDQ of any style and QOperator models, into the QDQ level with their scales."""

from __future__ import annotations

import onnx_ir as ir

from mulshift.ir.metadata import get_level, set_level
from mulshift.ir.types import Level

QDQ = frozenset({"QuantizeLinear", "DequantizeLinear"})


def read_quantized(model: ir.Model) -> ir.Model:
    """Record the level."""
    if get_level(model) is Level.INTEGER:
        return model
    quantized = any(node.op_type in QDQ for node in model.graph)
    set_level(model, Level.QDQ if quantized else Level.FLOAT)
    return model
