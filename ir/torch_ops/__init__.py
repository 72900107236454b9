"""Standard ONNX operators in torch, differentiable: (domain, operator) -> function of (node, inputs).

A function may return NotImplemented for a form that it does not cover; ONNX Runtime then runs the node. Element types
that torch lacks travel in one that holds them exactly: 4 bits and less in 8, float8 in float32 (`mulshift.ir.tensors`).
"""

from __future__ import annotations

from mulshift.ir.float_functions import DOMAIN
from mulshift.ir.torch_ops import (
    arithmetic,
    attention,
    index,
    linear,
    normalize,
    pool,
    quantize,
    reduction,
    resize,
    shape,
    unary,
)
from mulshift.ir.torch_ops.common import TorchOp

_FAMILIES = (arithmetic, index, linear, normalize, pool, quantize, reduction, resize, shape, unary)

TORCH_OPS: dict[tuple[str, str], TorchOp] = {
    ("", name): run for family in _FAMILIES for name, run in family.TABLE.items()
}
_NEWER = ("Swish", "RMSNormalization")
"""Standard from opset 24 and 23; before, fuse writes them as functions of the domain `mulshift.float`."""
TORCH_OPS |= {(DOMAIN, name): TORCH_OPS["", name] for name in _NEWER}
TORCH_OPS |= {(DOMAIN, name): run for name, run in attention.TABLE.items()}
