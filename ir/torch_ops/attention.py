"""Attention, rotary embeddings, Hadamard transforms, rows in 8 bits: operators of the domain `mulshift.float`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx_ir as ir

from mulshift.ir.graphs import attribute
from mulshift.ir.torch_ops.common import TorchOp


def _attention(node: ir.Node, v: Sequence[Any]) -> Any:
    """q [B, M, H, D], k [B, N, G, D], v [B, N, G, E], mask of bool to broadcast to [B, H, M, N] -> [B, M, H, E]."""
    import torch

    q, k, values = (t.transpose(1, 2) for t in v[:3])
    batch, heads, rows, columns = q.shape
    groups = k.shape[1]
    grouped = q.reshape(batch, groups, heads // groups, rows, columns)
    scores = grouped @ k.transpose(2, 3).unsqueeze(2) * attribute(node, "scale", 1.0)
    scores = scores.reshape(batch, heads, rows, -1)
    if len(v) > 3:
        scores = torch.where(v[3], scores, -3e38)
    shares = torch.softmax(scores, -1)
    if len(v) > 3:
        shares = torch.where(v[3], shares, 0.0)
    mixed = shares.reshape(batch, groups, heads // groups, rows, -1) @ values.unsqueeze(2)
    return mixed.reshape(batch, heads, rows, -1).transpose(1, 2)


def _rotary(node: ir.Node, v: Sequence[Any]) -> Any:
    """x [B, S, H, 2 L], cos and sin [B or 1, S, 1, L]."""
    import torch

    x, cos, sin = v
    first, second = x.chunk(2, -1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)


def _row_quantize(node: ir.Node, v: Sequence[Any]) -> Any:
    """Rows of the last axis rounded to 8 bits with a power of two each; gradients pass straight through."""
    import torch

    step, x = attribute(node, "step", 1.0), v[0]
    with torch.no_grad():
        steps = torch.round(x / step)
        largest = steps.abs().amax(-1, keepdim=True)
        bits = (largest >= torch.tensor([2.0**i for i in range(16)], dtype=x.dtype)).sum(-1, keepdim=True)
        unit = torch.exp2(torch.clamp(bits - 7, min=0).to(x.dtype))
        y = torch.clamp(torch.floor(steps / unit + 0.5), -128, 127) * unit * step
    return x + (y - x).detach() if x.requires_grad else y


def _hadamard(node: ir.Node, v: Sequence[Any]) -> Any:
    """x [..., n], h [g, g], n a multiple of g: `x h` on each group of g."""
    x, h = v
    return (x.reshape(*x.shape[:-1], x.shape[-1] // h.shape[0], h.shape[0]) @ h).reshape(x.shape)


TABLE: dict[str, TorchOp] = {
    "Attention": _attention,
    "MaskedAttention": _attention,
    "RotaryEmbedding": _rotary,
    "RowQuantize": _row_quantize,
    "Hadamard": _hadamard,
}
