"""Functions of several tensors, element by element with broadcasting: arithmetic, comparison, logic, choice."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

import onnx_ir as ir

from mulshift.ir.graphs import attribute
from mulshift.ir.torch_ops.common import TorchOp, elementwise


def _divide(node: ir.Node, v: Sequence[Any]) -> Any:
    import torch

    return torch.div(v[0], v[1], rounding_mode=None if v[0].is_floating_point() else "trunc")


def _modulo(node: ir.Node, v: Sequence[Any]) -> Any:
    import torch

    return torch.fmod(v[0], v[1]) if attribute(node, "fmod", 0) else torch.remainder(v[0], v[1])


def _power(node: ir.Node, v: Sequence[Any]) -> Any:
    import torch

    if not (v[0].is_floating_point() or v[1].is_floating_point()):
        return NotImplemented  # integer powers, negative exponents
    return torch.pow(v[0], v[1]).to(v[0].dtype)


def _prelu(node: ir.Node, v: Sequence[Any]) -> Any:
    import torch

    return torch.where(v[0] < 0, v[0] * v[1], v[0])


def _clip(node: ir.Node, v: Sequence[Any]) -> Any:
    import torch

    x, low, high = (*v, None, None)[:3]
    low = attribute(node, "min") if low is None else low
    high = attribute(node, "max") if high is None else high
    if low is None and high is None:
        return x
    bounds = [b if b is None else torch.as_tensor(b, dtype=x.dtype) for b in (low, high)]
    return torch.clamp(x, *bounds)


def _fold(name: str) -> TorchOp:
    """A torch function of two, folded over any number of inputs."""

    def run(node: ir.Node, v: Sequence[Any]) -> Any:
        import torch

        return reduce(getattr(torch, name), v)

    return run


def _mean(node: ir.Node, v: Sequence[Any]) -> Any:
    return reduce(lambda a, b: a + b, v) / len(v)


def _shift(node: ir.Node, v: Sequence[Any]) -> Any:
    import torch

    left = attribute(node, "direction") == "LEFT"
    return torch.bitwise_left_shift(v[0], v[1]) if left else torch.bitwise_right_shift(v[0], v[1])


_TORCH_NAMES = {
    "Add": "add",
    "And": "logical_and",
    "BitwiseAnd": "bitwise_and",
    "BitwiseOr": "bitwise_or",
    "BitwiseXor": "bitwise_xor",
    "Equal": "eq",
    "Greater": "gt",
    "GreaterOrEqual": "ge",
    "Less": "lt",
    "LessOrEqual": "le",
    "Mul": "mul",
    "Or": "logical_or",
    "Sub": "sub",
    "Where": "where",
    "Xor": "logical_xor",
}

TABLE: dict[str, TorchOp] = {
    **{onnx: elementwise(name) for onnx, name in _TORCH_NAMES.items()},
    "BitShift": _shift,
    "Clip": _clip,
    "Div": _divide,
    "Max": _fold("maximum"),
    "Mean": _mean,
    "Min": _fold("minimum"),
    "Mod": _modulo,
    "PRelu": _prelu,
    "Pow": _power,
    "Sum": _fold("add"),
}
