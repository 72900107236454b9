"""ConvTranspose as integer movers and one Conv, exactly.

`y = conv(insert(x), flip(w))`: s - 1 zero points go between neighbours, kernels are mirrored, each group's input and
output channels trade places, and padding becomes `d * (k - 1) - p` (plus output_padding at the end). Negative padding
is cut off.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from mulshift.ir import Array, attribute, ints
from mulshift.passes.integer.conv import spatial_sizes
from mulshift.passes.integer.forms import NoFormError, Quantized
from mulshift.passes.integer.linear import Product, channel_bias, weights_of

if TYPE_CHECKING:
    from mulshift.passes.integer.lowering import Lowering


def conv_transpose(low: Lowering, node: ir.Node) -> Product:
    """w: [C, O/group, ...] -> Conv weights [O, C/group, ...]."""
    x = low.as_unsigned(low.require(node.inputs[0]))
    w = weights_of(node.inputs[1], 1)
    rank = w.q.ndim - 2
    if rank not in (1, 2, 3):
        raise NoFormError(f"{rank}-dimensional transposed convolution")
    group = int(attribute(node, "group", 1))
    channels = w.q.shape[1] * group
    kernel = w.q.shape[2:]
    strides = ints(node, "strides") or [1] * rank
    dilations = ints(node, "dilations") or [1] * rank
    begin, end = _pads(node, kernel, strides, dilations)
    moved = _insert(low, x, strides, node.inputs[0])
    moved = _cut(low, moved, begin, end)
    return Product(
        node=node,
        op="Conv",
        x=moved,
        weights=_flipped(w.q, group),
        out_axis=0,
        w_zero_point=w.zero_point,
        scale=float(x.q.scale) * _scales(w.scale, w.axis, w.q.shape[1], group),
        bias=channel_bias(node.inputs[2] if len(node.inputs) > 2 else None, channels),
        window={
            "strides": [1] * rank,
            "pads": [max(p, 0) for p in (*begin, *end)],
            "dilations": dilations,
            "group": group,
        },
        tail=rank,
    )


def _flipped(q: Array, group: int) -> Array:
    """[g * c, o, ...] -> [g * o, c, ...], mirrored along the kernel."""
    c, o = q.shape[0] // group, q.shape[1]
    grouped = q.reshape(group, c, o, *q.shape[2:]).swapaxes(1, 2)
    return np.flip(grouped.reshape(group * o, c, *q.shape[2:]), tuple(range(2, q.ndim)))


def _scales(scale: Array, axis: int | None, per_group: int, group: int) -> Array:
    if scale.ndim == 0:
        return np.broadcast_to(scale, (per_group * group,))
    if axis != 1:
        raise NoFormError("its weights' scales do not run along the output channels")
    return np.tile(scale, group)


def _pads(
    node: ir.Node, kernel: Sequence[int], strides: list[int], dilations: list[int]
) -> tuple[list[int], list[int]]:
    """Padding of the equivalent Conv, possibly negative."""
    rank = len(kernel)
    extra = ints(node, "output_padding") or [0] * rank
    reach = [(k - 1) * d for k, d in zip(kernel, dilations, strict=True)]
    begin, end = _forward_pads(node, kernel, strides, reach, extra)
    return (
        [r - p for r, p in zip(reach, begin, strict=True)],
        [r - p + e for r, p, e in zip(reach, end, extra, strict=True)],
    )


def _forward_pads(
    node: ir.Node, kernel: Sequence[int], strides: list[int], reach: list[int], extra: list[int]
) -> tuple[list[int], list[int]]:
    rank = len(kernel)
    mode = attribute(node, "auto_pad", "NOTSET")
    asked = ints(node, "output_shape")
    if asked is None and mode in ("NOTSET", "VALID"):
        pads = (ints(node, "pads") if mode == "NOTSET" else None) or [0] * (2 * rank)
        return pads[:rank], pads[rank:]
    sizes = spatial_sizes(node.inputs[0], rank)
    if asked is not None and any(s is None for s in sizes):
        raise NoFormError("output_shape with an input whose size is not known")
    begin, end = [], []
    for i in range(rank):
        full = strides[i] * ((sizes[i] or 1) - 1) + extra[i] + reach[i] + 1
        wanted = (sizes[i] or 1) * strides[i] if asked is None else asked[-rank:][i]
        total = max(full - wanted, 0)
        small, large = total // 2, total - total // 2
        begin.append(small if mode == "SAME_UPPER" else large)
        end.append(large if mode == "SAME_UPPER" else small)
    return begin, end


def _insert(low: Lowering, x: Quantized, strides: list[int], like: ir.Value | None) -> Quantized:
    """`s - 1` zero points between neighbours, last axis first, so that one size a step may be unknown."""
    rank = len(strides)
    sizes = spatial_sizes(like, rank)
    value = x.value
    name = str(value.name)
    if sum(s is None for s in sizes) > 1:
        value = _insert_dynamic(low, x, strides, name)
        return low.hold(value, x.q, value) if value is not x.value else x
    for i in reversed(range(rank)):
        if strides[i] == 1:
            continue
        known = [1 if s is None else s for s in sizes]
        spread = low.standard("Unsqueeze", [value, low.const(f"{name}.axes", np.asarray([i + 3]))], {}, _U8)
        padded = _pad_end(low, spread, rank + 3, i + 3, strides[i] - 1, int(x.q.zero_point), name)
        # sizes before axis i are copied; those after it are as inserted already
        later = [(known[j] - 1) * strides[j] + 1 if sizes[j] is not None else -1 for j in range(i + 1, rank)]
        own = known[i] * strides[i] if sizes[i] is not None else -1
        shape = low.const(f"{name}.shape", np.asarray([0] * (i + 2) + [own, *later]))
        merged = low.standard("Reshape", [padded, shape], {}, _U8)
        value = _drop_end(low, merged, i + 2, strides[i] - 1, name)
    return low.hold(value, x.q, value) if value is not x.value else x


def _insert_dynamic(low: Lowering, x: Quantized, strides: list[int], name: str) -> ir.Value:
    """The same where several sizes are unknown: each axis in turn is brought last by Transpose, and back."""
    rank, value = len(strides), x.value
    for i in range(rank):
        if strides[i] == 1:
            continue
        perm = [a for a in range(rank + 2) if a != i + 2] + [i + 2]
        last = low.standard("Transpose", [value], {"perm": perm}, _U8)
        spread = low.standard("Unsqueeze", [last, low.const(f"{name}.axes", np.asarray([rank + 2]))], {}, _U8)
        padded = _pad_end(low, spread, rank + 3, rank + 2, strides[i] - 1, int(x.q.zero_point), name)
        merged = low.standard(
            "Reshape", [padded, low.const(f"{name}.shape", np.asarray([0] * (rank + 1) + [-1]))], {}, _U8
        )
        cut = _drop_end(low, merged, rank + 1, strides[i] - 1, name)
        value = low.standard("Transpose", [cut], {"perm": [perm.index(a) for a in range(rank + 2)]}, _U8)
    return value


_U8 = ir.DataType.UINT8


def _pad_end(low: Lowering, x: ir.Value, rank: int, axis: int, count: int, fill: int, name: str) -> ir.Value:
    pads = np.zeros(2 * rank, np.int64)
    pads[rank + axis] = count
    inputs = [x, low.const(f"{name}.pads", pads), low.const(f"{name}.fill", np.asarray(fill, np.uint8))]
    return low.standard("Pad", inputs, {}, _U8)


def _drop_end(low: Lowering, x: ir.Value, axis: int, count: int, name: str) -> ir.Value:
    return _slice(low, x, [axis], [0], [-count], name)


def _slice(low: Lowering, x: ir.Value, axes: list[int], starts: list[int], ends: list[int], name: str) -> ir.Value:
    parts = {"starts": starts, "ends": ends, "axes": axes}
    inputs = [x, *(low.const(f"{name}.{k}", np.asarray(v, np.int64)) for k, v in parts.items())]
    return low.standard("Slice", inputs, {}, _U8)


def _cut(low: Lowering, x: Quantized, begin: list[int], end: list[int]) -> Quantized:
    """Negative padding: rows that the result never sees."""
    axes = [i for i, (p, q) in enumerate(zip(begin, end, strict=True)) if min(p, q) < 0]
    if not axes:
        return x
    starts = [max(-begin[i], 0) for i in axes]
    ends = [min(end[i], 0) or 2**31 - 1 for i in axes]
    value = _slice(low, x.value, [i + 2 for i in axes], starts, ends, str(x.value.name))
    return low.hold(value, x.q, value)
