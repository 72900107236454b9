"""Types and shapes, inferred by ONNX."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import common


def infer_shapes(model: ir.Model) -> None:
    """Types and shapes as far as ONNX's inference goes; dimensions keep their names."""
    common.ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(model)
