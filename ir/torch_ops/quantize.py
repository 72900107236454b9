"""QuantizeLinear and DequantizeLinear: per tensor, per axis, per block; 2 to 16 bits (and s32 into DequantizeLinear).

Gradients: an integer tensor cannot carry one, so where `x` or `scale` asks for a gradient the integers travel in a
float tensor, the same numbers exactly, and rounding passes the gradient straight through inside the clamp and stops it
outside (Bengio et al. 2013; with a trainable scale this is LSQ, Esser et al. 2020, without its step factor). Movers
between the pair need nothing special.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx_ir as ir

from mulshift.ir.graphs import attribute
from mulshift.ir.torch_ops.common import TorchOp, element_type, torch_type

_RANGES = {
    ir.DataType.UINT8: (0, 255),
    ir.DataType.INT8: (-128, 127),
    ir.DataType.UINT16: (0, 65535),
    ir.DataType.INT16: (-32768, 32767),
    ir.DataType.UINT4: (0, 15),
    ir.DataType.INT4: (-8, 7),
}
_CARRIERS = {ir.DataType.UINT4: ir.DataType.UINT8, ir.DataType.INT4: ir.DataType.INT8}


def _quantize(node: ir.Node, v: Sequence[Any]) -> Any:
    import torch

    x, scale, zero_point = (*v, None)[:3]
    kind = _output_type(node, zero_point)
    if kind not in _RANGES or attribute(node, "precision", 0) or not x.is_floating_point():
        return NotImplemented
    low, high = _RANGES[kind]
    s = _spread(node, scale.to(torch.float32), x)
    z = 0 if zero_point is None else _spread(node, zero_point.to(torch.float32), x)
    u = x.to(torch.float32) / s
    if u.requires_grad:
        inside = u.clamp(low - z, high - z)
        return inside.round().detach() + (inside - inside.detach()) + z
    q = u.round_().add_(z).clamp_(low, high)
    return q.to(torch_type(_CARRIERS.get(kind, kind)))


def _dequantize(node: ir.Node, v: Sequence[Any]) -> Any:
    import torch

    x, scale, zero_point = (*v, None)[:3]
    code = attribute(node, "output_dtype", 0)
    kind = torch_type(code) if code else scale.dtype
    if kind is None:
        return NotImplemented
    wide = x if x.is_floating_point() else x.to(torch.int32)
    if zero_point is not None:
        wide = wide - _spread(node, zero_point.to(wide.dtype), x)
    return (wide.to(torch.float32) * _spread(node, scale.to(torch.float32), x)).to(kind)


def _output_type(node: ir.Node, zero_point: Any) -> ir.DataType | None:
    code = attribute(node, "output_dtype", 0)
    if code:
        return ir.DataType(code)
    if zero_point is None:
        return ir.DataType.UINT8
    return element_type(node.inputs[2]) or element_type(node.outputs[0])


def _spread(node: ir.Node, p: Any, x: Any) -> Any:
    """A scale or zero point shaped to broadcast against x."""
    block = attribute(node, "block_size", 0)
    if p.numel() == 1:
        return p.reshape(())
    axis = attribute(node, "axis", 1) % x.ndim
    if block:
        return p.repeat_interleave(block, dim=axis).narrow(axis, 0, x.shape[axis])
    return p.reshape([-1 if i == axis else 1 for i in range(x.ndim)])


TABLE: dict[str, TorchOp] = {"QuantizeLinear": _quantize, "DequantizeLinear": _dequantize}
