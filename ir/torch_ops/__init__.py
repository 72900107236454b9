"""Standard ONNX operators in torch, differentiable: (domain, operator) -> function of (node, inputs).

A function may return NotImplemented for a form that it does not cover; ONNX Runtime then runs the node.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mulshift.ir.torch_ops import basic

TORCH_OPS: dict[tuple[str, str], Callable[..., Any]] = {("", name): run for name, run in basic.TABLE.items()}
