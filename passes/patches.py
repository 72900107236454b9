"""The inputs that each output of a product sees, as rows: what rounding and regression need of a layer."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import onnx_ir as ir

from mulshift.ir import attribute, ints

if TYPE_CHECKING:
    import torch


def patches(node: ir.Node, x: torch.Tensor, kernel: tuple[int, ...], limit: int) -> torch.Tensor:
    """Rows that the weights of a layer are multiplied with, at evenly spaced output positions.

    Args:
        node: Conv (any rank, stride, dilation, group, padding), Gemm or MatMul with constant second operand.
        x: its input; [N, C, ...] for Conv, [..., K] else.
        kernel: spatial shape of the weights, empty for Gemm and MatMul.
        limit: about how many rows at most.

    Returns:
        [groups, rows, K] with K in the order of the flattened weights of one output channel.
    """
    if node.op_type != "Conv":
        rows = (x.T if node.op_type == "Gemm" and attribute(node, "transA", 0) else x).reshape(-1, x.shape[-1])
        return rows[:: -(-len(rows) // limit)][None]
    x = _padded(node, x, kernel)
    groups, n = attribute(node, "group", 1), len(kernel)
    strides, dilations = ints(node, "strides") or [1] * n, ints(node, "dilations") or [1] * n
    extents = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    outputs = [(size - e) // s + 1 for size, e, s in zip(x.shape[2:], extents, strides, strict=True)]
    step = math.ceil((math.prod(outputs) * len(x) / limit) ** (1 / n))
    for i, (e, s, d) in enumerate(zip(extents, strides, dilations, strict=True)):
        x = x.unfold(2 + i, e, s * max(step, 1))[..., ::d]
    # x: [N, C, positions..., kernel...]
    x = x.reshape(len(x), groups, x.shape[1] // groups, math.prod(x.shape[2 : 2 + n]), math.prod(kernel))
    return x.permute(1, 0, 3, 2, 4).reshape(groups, -1, x.shape[2] * x.shape[4])


def _padded(node: ir.Node, x: torch.Tensor, kernel: tuple[int, ...]) -> torch.Tensor:
    from torch.nn import functional

    n = len(kernel)
    pads = ints(node, "pads") or [0] * (2 * n)
    auto = attribute(node, "auto_pad", "NOTSET")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        strides, dilations = ints(node, "strides") or [1] * n, ints(node, "dilations") or [1] * n
        total = [
            max(0, (-(-size // s) - 1) * s + (k - 1) * d + 1 - size)
            for size, s, d, k in zip(x.shape[2:], strides, dilations, kernel, strict=True)
        ]
        small, large = [t // 2 for t in total], [t - t // 2 for t in total]
        pads = small + large if auto == "SAME_UPPER" else large + small
    if not any(pads):
        return x
    return functional.pad(x, [p for i in reversed(range(n)) for p in (pads[i], pads[n + i])])
