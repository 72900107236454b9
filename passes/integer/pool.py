"""Averages: AveragePool as a depthwise convolution of ones, GlobalAveragePool and reductions as ReduceMean."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from mulshift.ir import DOMAIN, AccumulatorOverflowError, Array, attribute, constant, describe, ints, rank
from mulshift.ir.dyadic import INT32_LIMIT, MAX_MANTISSA_BITS
from mulshift.passes.integer.conv import output_sizes, pads_of, spatial_sizes
from mulshift.passes.integer.forms import NoFormError, Output, Quantized
from mulshift.passes.integer.scales import dyadics, requantization

if TYPE_CHECKING:
    from mulshift.passes.integer.lowering import Lowering


def average_pool(low: Lowering, node: ir.Node, out: Output) -> ir.Value:
    """Sums by Conv, then `b / 2^c` of `s_x / (N * s_y)`: one number, or one a position where N differs."""
    x = low.as_unsigned(low.require(node.inputs[0]))
    kernel = tuple(ints(node, "kernel_shape") or [])
    dims = len(kernel)
    shape = node.inputs[0].shape if node.inputs[0] is not None else None
    channels = shape[1] if shape is not None else None
    if not isinstance(channels, int):
        raise NoFormError("its number of channels is not known")
    strides, dilations = ints(node, "strides") or [1] * dims, ints(node, "dilations") or [1] * dims
    pads = pads_of(node, kernel, strides, dilations, node.inputs[0])
    window: dict[str, Any] = {"strides": strides, "pads": pads, "dilations": dilations}
    counts, window = _counts(node, kernel, window)
    bound = int(np.prod(kernel)) * x.q.magnitude
    b, c, width = requantization(
        float(x.q.scale) / (counts.reshape(-1) * float(out.q.scale)), np.full(counts.size, bound), out.reach, out.free
    )
    name = str(out.value.name)
    ones = low.const(f"{name}.ones", np.ones((channels, 1, *kernel), np.int8))
    bias = low.const(f"{name}.bias", np.zeros((1,) * (dims + 1), np.int32))
    bc = [low.const(f"{name}.{k}", v.reshape(counts.shape)) for k, v in (("b", b), ("c", c))]
    attributes = {"x_zero_point": int(x.q.zero_point), "w_zero_point": 0, **window, "group": channels}
    if counts.size == 1:
        return low.mulshift("Conv", [x.value, ones, bias, *bc], attributes, out, bound, width)
    acc = low.write(
        "ConvAccumulate", [x.value, ones, bias], attributes, DOMAIN, [(ir.DataType.INT32, out.value.shape)]
    )[0]
    low.prove(acc, bound)
    return low.mulshift("Requantize", [acc, *bc], {"x_zero_point": 0}, out, bound, width)


def _counts(node: ir.Node, kernel: tuple[int, ...], window: dict[str, Any]) -> tuple[Array, dict[str, Any]]:
    """(N as [1] or [..., H, W], window with the end padding that ceil_mode asks for)."""
    dims = len(kernel)
    ceil, whole = bool(attribute(node, "ceil_mode", 0)), bool(attribute(node, "count_include_pad", 0))
    pads = window["pads"]
    if not ceil and (whole or not any(pads)):
        return np.asarray([float(np.prod(kernel))]), window
    sizes = spatial_sizes(node.inputs[0], dims)
    if any(s is None for s in sizes):
        raise NoFormError("AveragePool that counts its padding apart, of an input whose size is not known")
    known = [int(s) for s in sizes if s is not None]
    out = output_sizes(known, kernel, window, ceil)
    axes = [_axis_counts(known[i], out[i], kernel[i], window, i, whole) for i in range(dims)]
    counts: Array = np.ones(())
    for one in axes:
        counts = np.multiply.outer(counts, one)
    ends = [
        (out[i] - 1) * window["strides"][i] + (kernel[i] - 1) * window["dilations"][i] + 1 - known[i] - pads[i]
        for i in range(dims)
    ]
    if ceil:
        window = {**window, "pads": [*pads[:dims], *(max(e, p) for e, p in zip(ends, pads[dims:], strict=True))]}
        if output_sizes(known, kernel, window, False) != out:
            raise NoFormError("AveragePool whose ceil_mode leaves a window in the padding")
    if np.unique(counts).size == 1:
        return counts.reshape(-1)[:1], window
    return counts, window


def _axis_counts(size: int, out: int, kernel: int, window: dict[str, Any], i: int, whole: bool) -> Array:
    """Elements under the window at each position of one axis, padding counted or not."""
    dims = len(window["strides"])
    begin, end = window["pads"][i], window["pads"][i + dims]
    first, last = (-begin, size + end) if whole else (0, size)
    starts = np.arange(out) * window["strides"][i] - begin
    positions = starts[:, None] + np.arange(kernel)[None] * window["dilations"][i]
    inside = (positions >= first) & (positions < last)
    return np.asarray(np.maximum(inside.sum(1), 1), np.float64)


def global_average_pool(low: Lowering, node: ir.Node, out: Output) -> ir.Value:
    """The mean over all spatial axes."""
    dims = rank(node.inputs[0])
    if dims is None:
        raise NoFormError("its input's rank is not known")
    return _reduce(low, node, out, list(range(2, dims)), keepdims=True, mean=True)


def reduce_mean(low: Lowering, node: ir.Node, out: Output) -> ir.Value:
    """ReduceMean over constant axes."""
    return _reduce(low, node, out, _axes(node), bool(attribute(node, "keepdims", 1)), mean=True)


def reduce_sum(low: Lowering, node: ir.Node, out: Output) -> ir.Value:
    """ReduceSum over constant axes: the same operator, without the division."""
    return _reduce(low, node, out, _axes(node), bool(attribute(node, "keepdims", 1)), mean=False)


def _axes(node: ir.Node) -> list[int]:
    dims = rank(node.inputs[0])
    if dims is None:
        raise NoFormError("its input's rank is not known")
    given = node.inputs[1] if len(node.inputs) > 1 else None
    array = constant(given)
    if given is not None and array is None:
        raise NoFormError("its axes are not constant")
    found = [] if array is None else [int(a) for a in array.reshape(-1)]
    if not found and attribute(node, "noop_with_empty_axes", 0):
        raise NoFormError("a reduction over no axes")
    return sorted(a % dims for a in found) or list(range(dims))


def _reduce(low: Lowering, node: ir.Node, out: Output, axes: list[int], keepdims: bool, mean: bool) -> ir.Value:
    x = low.require(node.inputs[0])
    count = _count(node, axes)
    if count is None:
        return _reduce_unknown(low, x, node, out, axes, keepdims, mean)
    bound = count * x.q.magnitude
    if bound >= INT32_LIMIT:
        raise AccumulatorOverflowError(
            describe(node), f"its int32 accumulator may reach {bound}, beyond 2^31", "reduce in two steps"
        )
    ratio = float(x.q.scale) / ((count if mean else 1) * float(out.q.scale))
    b, c, width = requantization(np.asarray([ratio]), np.asarray([bound]), out.reach, out.free)
    attributes = {
        "x_zero_point": int(x.q.zero_point),
        "keepdims": int(keepdims),
        "multiplier": int(b[0]),
        "shift": int(c[0]),
    }
    constant_axes = low.const(f"{out.value.name}.axes", np.asarray(axes, np.int64))
    return low.mulshift("ReduceMean", [x.value, constant_axes], attributes, out, bound, width)


def _count(node: ir.Node, axes: list[int]) -> int | None:
    """Number of elements that one result sums, None if a size is not known."""
    shape = node.inputs[0].shape if node.inputs[0] is not None else None
    sizes = [shape[a] for a in axes] if shape is not None else [None]
    known = [s for s in sizes if isinstance(s, int)]
    return int(np.prod(known)) if len(known) == len(sizes) else None


def _reduce_unknown(
    low: Lowering, x: Quantized, node: ir.Node, out: Output, axes: list[int], keepdims: bool, mean: bool
) -> ir.Value:
    """The same where N is known at run time only: `b = (B + N / 2) / N` in shape arithmetic, `B / 2^c = s_x / s_y`.

    Assumes that `N * |x - z|` stays below 2^31, which the node records.
    """
    s32, s64, name = ir.DataType.INT32, ir.DataType.INT64, str(out.value.name)
    constant_axes = low.const(f"{name}.axes", np.asarray(axes, np.int64))
    wide = low.standard("Cast", [x.value], {"to": int(s32)}, s32, x.value.shape)
    centred = low.standard("Sub", [wide, low.const(f"{name}.z", x.q.zero_point)], {}, s32, x.value.shape)
    acc = low.standard("ReduceSum", [centred, constant_axes], {"keepdims": int(keepdims)}, s32, out.value.shape)
    b, c = dyadics(np.asarray(float(x.q.scale) / float(out.q.scale)), MAX_MANTISSA_BITS)
    whole = low.const(f"{name}.b", b.astype(np.int64))
    if mean:
        shape = low.standard("Shape", [x.value], {}, s64)
        sizes = low.standard("Gather", [shape, constant_axes], {"axis": 0}, s64, [len(axes)])
        count = low.standard("ReduceProd", [sizes], {"keepdims": 0}, s64, [])
        half = low.standard("Div", [count, low.const(f"{name}.two", np.asarray(2))], {}, s64, [])
        raised = low.standard("Add", [whole, half], {}, s64, [])
        whole = low.standard("Div", [raised, count], {}, s64, [])
    divided = low.standard("Cast", [whole], {"to": int(s32)}, s32, [])
    inputs = [acc, divided, low.const(f"{name}.c", c.astype(np.int32))]
    y = low.mulshift("Requantize", inputs, {"x_zero_point": 0}, out, INT32_LIMIT - 1, "wide")
    low.assume(y, f"at most {INT32_LIMIT // x.q.magnitude} elements in a sum")
    return y
