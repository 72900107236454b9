"""Attention, rotary embeddings and Hadamard transforms: operators of the domain `mulshift.float`."""

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


def _hadamard(node: ir.Node, v: Sequence[Any]) -> Any:
    """x [..., n], h [g, g], n a multiple of g: `x h` on each group of g."""
    x, h = v
    return (x.reshape(*x.shape[:-1], x.shape[-1] // h.shape[0], h.shape[0]) @ h).reshape(x.shape)


TABLE: dict[str, TorchOp] = {
    "Attention": _attention,
    "MaskedAttention": _attention,
    "RotaryEmbedding": _rotary,
    "Hadamard": _hadamard,
}
