"""Normalization and softmax, at inference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx_ir as ir

from mulshift.ir.graphs import attribute
from mulshift.ir.torch_ops.common import TorchOp


def _batch(node: ir.Node, v: Sequence[Any]) -> Any:
    if attribute(node, "training_mode", 0) or len(node.outputs) > 1:
        return NotImplemented
    x, scale, bias, mean, var = (v[0], *(p.reshape(-1, *[1] * (v[0].ndim - 2)) for p in v[1:]))
    return (x - mean) * (scale * (var + attribute(node, "epsilon", 1e-5)).rsqrt()) + bias


def _layer(node: ir.Node, v: Sequence[Any]) -> Any:
    import torch

    x, scale, bias = (*v, None)[:3]
    axis = attribute(node, "axis", -1) % x.ndim
    axes = tuple(range(axis, x.ndim))
    if x.dtype == torch.float32 and len(node.outputs) == 1 and scale.shape == x.shape[axis:]:
        shape = list(x.shape[axis:])
        bias = None if bias is None else bias.expand(shape)
        return torch.nn.functional.layer_norm(x, shape, scale, bias, attribute(node, "epsilon", 1e-5))
    wide = x if x.dtype == torch.float64 else x.to(torch.float32)
    mean = wide.mean(axes, keepdim=True)
    centred = wide - mean
    inverse = (centred.square().mean(axes, keepdim=True) + attribute(node, "epsilon", 1e-5)).rsqrt()
    y = (centred * inverse).to(x.dtype) * scale
    return (y if bias is None else y + bias, mean, inverse)[: len(node.outputs)]


def _rms(node: ir.Node, v: Sequence[Any]) -> Any:
    import torch

    x, scale = v
    axes = tuple(range(attribute(node, "axis", -1) % x.ndim, x.ndim))
    wide = x if x.dtype == torch.float64 else x.to(torch.float32)
    inverse = (wide.square().mean(axes, keepdim=True) + attribute(node, "epsilon", 1e-5)).rsqrt()
    return (wide * inverse).to(x.dtype) * scale


def _instance(node: ir.Node, v: Sequence[Any]) -> Any:
    from torch.nn import functional

    x, scale, bias = v
    return functional.group_norm(x, x.shape[1], scale, bias, attribute(node, "epsilon", 1e-5))


def _group(node: ir.Node, v: Sequence[Any]) -> Any:
    from torch.nn import functional

    x, scale, bias = v
    if scale.shape[0] != x.shape[1]:
        return NotImplemented  # opset 18: one scale a group
    return functional.group_norm(x, attribute(node, "num_groups"), scale, bias, attribute(node, "epsilon", 1e-5))


def _lp(node: ir.Node, v: Sequence[Any]) -> Any:
    import torch

    norm = torch.linalg.vector_norm(v[0], attribute(node, "p", 2), attribute(node, "axis", -1), keepdim=True)
    return torch.where(norm == 0, torch.zeros_like(v[0]), v[0] / norm)


def _softmax(name: str) -> TorchOp:
    def run(node: ir.Node, v: Sequence[Any]) -> Any:
        import torch

        imports = node.graph.opset_imports if node.graph is not None else {}
        if imports.get("", 13) < 13:
            return NotImplemented  # flattened to two dimensions
        return getattr(torch, name)(v[0], attribute(node, "axis", -1))

    return run


TABLE: dict[str, TorchOp] = {
    "BatchNormalization": _batch,
    "GroupNormalization": _group,
    "InstanceNormalization": _instance,
    "LayerNormalization": _layer,
    "LogSoftmax": _softmax("log_softmax"),
    "LpNormalization": _lp,
    "RMSNormalization": _rms,
    "Softmax": _softmax("softmax"),
}
