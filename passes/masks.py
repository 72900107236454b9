"""Values that a mask drives towards minus infinity, which no 8-bit range can hold beside real numbers."""

from __future__ import annotations

from collections.abc import Container
from typing import TYPE_CHECKING

import onnx_ir as ir

from mulshift.ir import constant, is_float

if TYPE_CHECKING:
    import torch

MASK = -1e4
"""The mildest number that rules an element out of a softmax (BERT's); others are -1e9, float32's lowest and -inf."""

_CARRIERS = frozenset(
    """
    Add Cast Concat Expand Flatten Gather GatherElements GatherND Identity Min Mul Reshape ScatterElements ScatterND
    Slice Split Squeeze Sub Tile Transpose Trilu Unsqueeze Where
    """.split()
)
"""Operators that bring a mask in from a constant, or hand it on."""


def is_masked(value: ir.Value, tensor: torch.Tensor, masked: Container[ir.Value]) -> bool:
    """Whether a mask's number reached this tensor: it holds one, and a constant or a masked operand brought it.

    Args:
        value: what the graph computed.
        tensor: its numbers; NaN and +inf are never a mask.
        masked: values found before.
    """
    node = value.producer()
    if node is None or node.op_type not in _CARRIERS or not tensor.numel() or float(tensor.min()) > MASK:
        return False
    if bool(tensor.isnan().any() | tensor.isposinf().any()):
        return False
    return any(v in masked or _holds_mask(v) for v in node.inputs if v is not None)


def _holds_mask(value: ir.Value) -> bool:
    array = constant(value) if is_float(value) else None
    return array is not None and array.size > 0 and float(array.min()) <= MASK
