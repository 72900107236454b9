"""Channels-last forms of what looks at or makes neighbouring positions: Pad, Resize, MaxPool."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from mulshift.ir import DOMAIN, attribute, constant, ints, static_shape
from mulshift.passes.integer.conv import pads_of
from mulshift.passes.integer.forms import NoFormError
from mulshift.passes.kernels.axes import at_axes, axes_of, spread
from mulshift.passes.kernels.relayout import Relayout, StaysError
from mulshift.passes.shape_values import dims_of


def pad(state: Relayout, node: ir.Node) -> None:
    """Constant amounts, for all axes (ONNX Runtime 1.31 loses track of `axes` when it moves Transposes)."""
    r = state.ranked(node.inputs[0])
    given = node.inputs[1]
    amounts = constant(given)
    if amounts is None or given is None:
        raise StaysError("its amounts are not constant")
    axes = axes_of(node, 3, range(r), r)
    begin, end = (at_axes(axes, part, [0] * r) for part in np.split(amounts, 2))
    moved = np.asarray(spread(begin, r, 0) + spread(end, r, 0), np.int64)
    amount = state.derived(given, f"pads{r}{axes}", "nhwc", moved)
    state.rewrite(node, [state.twin(node.inputs[0], node), amount, *node.inputs[2:3]], node.attributes, r)


def resize(state: Relayout, node: ir.Node) -> None:
    """Constant scales or sizes, for all axes (as Pad)."""
    r = state.ranked(node.inputs[0])
    plain = attribute(node, "keep_aspect_ratio_policy", "stretch") == "stretch"
    if not plain or attribute(node, "coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize":
        raise StaysError("it crops, or keeps proportions")
    axes = [a % r for a in ints(node, "axes") or range(r)]
    inputs = [state.twin(node.inputs[0], node), None, *node.inputs[2:]]
    for i, given in enumerate(inputs[2:], 2):
        if given is None or static_shape(given) == (0,):
            continue
        numbers, others = constant(given), [1] * r if i == 2 else dims_of(node.inputs[0])
        if numbers is None or others is None:
            raise StaysError("its scales or sizes are not constant")
        moved = spread(at_axes(axes, numbers, others), r, 1)
        if not all(isinstance(d, int | float | np.number) for d in moved):
            raise StaysError("sizes that it keeps are not known")
        inputs[i] = state.derived(given, f"resize{r}{axes}", "nhwc", np.asarray(moved, numbers.dtype))
    state.rewrite(node, inputs, {k: v for k, v in node.attributes.items() if k != "axes"}, r)


def max_pool(state: Relayout, node: ir.Node) -> None:
    """MaxPoolNhwc."""
    x, r = node.inputs[0], state.ranked(node.inputs[0])
    dims = r - 2
    if x is None or x.dtype not in (ir.DataType.UINT8, ir.DataType.INT8):
        raise StaysError("its input is not of 8 bits")
    if any(v.name for v in node.outputs[1:]):
        raise StaysError("it returns indices")
    kernel = ints(node, "kernel_shape") or []
    strides, dilations = ints(node, "strides") or [1] * dims, ints(node, "dilations") or [1] * dims
    try:
        pads = pads_of(node, tuple(kernel), strides, dilations, x)
    except NoFormError as e:
        raise StaysError(str(e)) from e
    height = [1] * (2 - dims)
    attributes = {
        "kernel_shape": height + kernel,
        "strides": height + strides,
        "pads": [0] * (2 - dims) + pads[:dims] + [0] * (2 - dims) + pads[dims:],
        "dilations": height + dilations,
        "ceil_mode": int(attribute(node, "ceil_mode", 0)),
    }
    state.rewrite(node, [state.twin(x, node)], attributes, r, "MaxPoolNhwc", DOMAIN)
