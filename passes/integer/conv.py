"""Conv, 1-D to 3-D, and the window arithmetic that pooling shares."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from mulshift.ir import attribute, ints
from mulshift.passes.integer.forms import NoFormError
from mulshift.passes.integer.linear import Product, channel_bias, channel_scale, weights_of

if TYPE_CHECKING:
    from mulshift.passes.integer.lowering import Lowering


def conv(low: Lowering, node: ir.Node) -> Product:
    """`y = conv(x, w) + bias`. w: [O, C/group, ...]."""
    x = low.as_unsigned(low.require(node.inputs[0]))
    w = weights_of(node.inputs[1], 0)
    rank = w.q.ndim - 2
    if rank not in (1, 2, 3):
        raise NoFormError(f"{rank}-dimensional convolution")
    channels = w.q.shape[0]
    bias = channel_bias(node.inputs[2] if len(node.inputs) > 2 else None, channels)
    return Product(
        node=node,
        op="Conv",
        x=x,
        weights=w.q,
        out_axis=0,
        w_zero_point=w.zero_point,
        scale=float(x.q.scale) * channel_scale(w, 0, channels),
        bias=bias,
        window=window(node, w.q.shape[2:], node.inputs[0]),
        tail=rank,
    )


def window(node: ir.Node, kernel: tuple[int, ...], x: ir.Value | None) -> dict[str, list[int] | int]:
    """Strides, pads, dilations and group with every default written out, auto_pad resolved.

    Raises:
        NoFormError: SAME padding of an input whose size is not known.
    """
    rank = len(kernel)
    strides = ints(node, "strides") or [1] * rank
    dilations = ints(node, "dilations") or [1] * rank
    return {
        "strides": strides,
        "pads": pads_of(node, kernel, strides, dilations, x),
        "dilations": dilations,
        "group": int(attribute(node, "group", 1)),
    }


def pads_of(
    node: ir.Node, kernel: tuple[int, ...], strides: list[int], dilations: list[int], x: ir.Value | None
) -> list[int]:
    """Explicit pads, begins then ends."""
    mode = attribute(node, "auto_pad", "NOTSET")
    rank = len(kernel)
    if mode == "NOTSET":
        return ints(node, "pads") or [0] * (2 * rank)
    if mode == "VALID":
        return [0] * (2 * rank)
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    sizes = spatial_sizes(x, rank)
    begin, end = [], []
    for extent, stride, size in zip(reach, strides, sizes, strict=True):
        if size is None and stride != 1:
            raise NoFormError(f"auto_pad {mode} of an input whose size is not known")
        out = 0 if size is None else -(-size // stride)
        total = extent - 1 if size is None else max((out - 1) * stride + extent - size, 0)
        small, large = total // 2, total - total // 2
        begin.append(small if mode == "SAME_UPPER" else large)
        end.append(large if mode == "SAME_UPPER" else small)
    return begin + end


def spatial_sizes(x: ir.Value | None, rank: int) -> list[int | None]:
    """Sizes after batch and channel; None where not known."""
    if x is None or x.shape is None or len(x.shape) != rank + 2:
        return [None] * rank
    return [d if isinstance(d, int) else None for d in x.shape.dims[2:]]


def output_sizes(sizes: list[int], kernel: tuple[int, ...], w: dict[str, list[int]], ceil: bool) -> list[int]:
    """Spatial sizes of a pooling or convolution result."""
    rank = len(kernel)
    found = []
    for i in range(rank):
        padded = sizes[i] + w["pads"][i] + w["pads"][i + rank] - ((kernel[i] - 1) * w["dilations"][i] + 1)
        steps = int(np.ceil(padded / w["strides"][i])) if ceil else padded // w["strides"][i]
        if ceil and steps * w["strides"][i] >= sizes[i] + w["pads"][i]:
            steps -= 1  # a window may not start in the padding at the end
        found.append(steps + 1)
    return found
