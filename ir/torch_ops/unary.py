"""Functions of one tensor, element by element: activations, mathematics, rounding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import onnx_ir as ir

from mulshift.ir.graphs import attribute
from mulshift.ir.torch_ops.common import TorchOp, elementwise


def _functional(name: str, **defaults: float) -> TorchOp:
    """torch.nn.functional.NAME with the ONNX attributes, in the order given, as further arguments."""

    def run(node: ir.Node, v: Sequence[Any]) -> Any:
        from torch.nn import functional

        options = [attribute(node, key, default) for key, default in defaults.items()]
        return getattr(functional, name)(v[0], *options)

    return run


def _formula(f: Callable[..., Any], **defaults: float) -> TorchOp:
    """`f(x, *attributes)`."""

    def run(node: ir.Node, v: Sequence[Any]) -> Any:
        return f(v[0], *(attribute(node, key, default) for key, default in defaults.items()))

    return run


def _celu(x: Any, alpha: float) -> Any:
    import torch

    return x.clamp(min=0) + (alpha * torch.expm1(x / alpha)).clamp(max=0)


def _selu(x: Any, alpha: float, gamma: float) -> Any:
    import torch

    return gamma * torch.where(x > 0, x, alpha * torch.expm1(x.clamp(max=0)))


def _shrink(x: Any, bias: float, lambd: float) -> Any:
    import torch

    return torch.where(x < -lambd, x + bias, torch.where(x > lambd, x - bias, torch.zeros_like(x)))


def _gelu(node: ir.Node, v: Sequence[Any]) -> Any:
    from torch.nn import functional

    return functional.gelu(v[0], approximate=attribute(node, "approximate", "none"))


def _is_inf(node: ir.Node, v: Sequence[Any]) -> Any:
    import torch

    positive, negative = attribute(node, "detect_positive", 1), attribute(node, "detect_negative", 1)
    return (torch.isposinf(v[0]) & bool(positive)) | (torch.isneginf(v[0]) & bool(negative))


def _identity(node: ir.Node, v: Sequence[Any]) -> Any:
    return v[0]


def _dropout(node: ir.Node, v: Sequence[Any]) -> Any:
    training = len(v) > 2 and v[2] is not None and bool(v[2])
    return NotImplemented if training or len(node.outputs) > 1 else v[0]


_TORCH_NAMES = {
    "Abs": "abs",
    "Acos": "acos",
    "Acosh": "acosh",
    "Asin": "asin",
    "Asinh": "asinh",
    "Atan": "atan",
    "Atanh": "atanh",
    "BitwiseNot": "bitwise_not",
    "Ceil": "ceil",
    "Cos": "cos",
    "Cosh": "cosh",
    "Erf": "erf",
    "Exp": "exp",
    "Floor": "floor",
    "IsNaN": "isnan",
    "Log": "log",
    "Neg": "neg",
    "Not": "logical_not",
    "Reciprocal": "reciprocal",
    "Relu": "relu",
    "Round": "round",  # halves to even, as ONNX
    "Sigmoid": "sigmoid",
    "Sign": "sign",
    "Sin": "sin",
    "Sinh": "sinh",
    "Sqrt": "sqrt",
    "Tan": "tan",
    "Tanh": "tanh",
}

TABLE: dict[str, TorchOp] = {
    **{onnx: elementwise(name) for onnx, name in _TORCH_NAMES.items()},
    "Celu": _formula(_celu, alpha=1.0),
    "Dropout": _dropout,
    "Elu": _functional("elu", alpha=1.0),
    "Gelu": _gelu,
    "HardSigmoid": _formula(lambda x, alpha, beta: (alpha * x + beta).clamp(0, 1), alpha=0.2, beta=0.5),
    "HardSwish": _formula(lambda x: x * (x / 6 + 0.5).clamp(0, 1)),
    "Identity": _identity,
    "IsInf": _is_inf,
    "LeakyRelu": _functional("leaky_relu", alpha=0.01),
    "Mish": _functional("mish"),
    "Selu": _formula(_selu, alpha=1.67326319217681884765625, gamma=1.05070102214813232421875),
    "Shrink": _formula(_shrink, bias=0.0, lambd=0.5),
    "Softplus": _functional("softplus"),
    "Softsign": _functional("softsign"),
    "Swish": _formula(lambda x, alpha: x * (alpha * x).sigmoid(), alpha=1.0),
    "ThresholdedRelu": _formula(lambda x, alpha: x * (x > alpha), alpha=1.0),
}
