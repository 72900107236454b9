"""Conv and Gemm with constant weights on the library's layouts: weights packed here, activations channels last.

Weights that all fit 4, 2 or 1 bits are packed to that; so are 4-bit numbers times one multiplier a block of k, and
weights of which at most two of four along k are not zero. Of those that hold the weights, the layout of fewest bytes is
taken.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir

from mulshift.ir import DOMAIN, Array, attribute, constant, ints
from mulshift.ir.operators.low_bits import BLOCK_SIZES, BLOCKS, LOW_BITS, least_bits, least_blocks, pack_bits
from mulshift.ir.operators.packing import K4N16, TAPS, pack_conv, pack_gemm, pack_taps
from mulshift.ir.operators.sparse import least_zeros, pack_zeros
from mulshift.passes.kernels.relayout import Relayout, StaysError

FEW_CHANNELS = 4
"""With at most so many, reading pixels as they lie is cheaper than a Transpose."""
KERNEL, DENSE = "mulshift.kernel", "dense"
"""Node metadata: what runs a product; a dense one keeps its zeros."""
_REQUANTIZED = ("zero_point", "qmin", "qmax", "dtype")


def conv(state: Relayout, node: ir.Node) -> str:
    """ConvNhwc, ConvFromNchw or DepthwiseNhwc in the place of a 1-D or 2-D Conv; 1-D is 2-D of height 1."""
    weights = _weights(node)
    rank = weights.ndim
    if rank not in (3, 4):
        raise StaysError(f"{rank - 2}-D convolution")
    w = weights if rank == 4 else weights[:, :, None]
    group = int(attribute(node, "group", 1))
    channels = _channel_numbers(state, node, w.shape[0])
    attributes: dict[str, Any] = {"w_shape": list(w.shape), "group": group, **_window(node, rank - 2)}
    x = node.inputs[0]
    if group > 1 and w.shape[:2] == (group, 1):
        name, layout, packed = "DepthwiseNhwc", TAPS, pack_taps(w)
    elif rank == 4 and w.shape[1] * group <= FEW_CHANNELS and not state.has_twin(x):
        name, layout, packed = "ConvFromNchw", K4N16, pack_conv(w, group)
    else:
        name, layout, packed = _smallest("ConvNhwc", pack_conv(w, group), w, math.prod(w.shape[1:]), node)
    attributes["layout"], name = layout, _suffixed(name, node)
    held = _packed(state, node, f"{layout} {group}", layout, packed)
    moved = x if name.startswith("ConvFromNchw") else state.twin(x, node, rank)
    state.rewrite(node, [moved, held, *channels], _numbers(node) | attributes, rank, name, DOMAIN)
    return name


def gemm(state: Relayout, node: ir.Node) -> str:
    """GemmPacked in the place of Gemm."""
    w = _weights(node)
    channels = _channel_numbers(state, node, w.shape[1])
    name, layout, packed = _smallest("GemmPacked", pack_gemm(w), w, w.shape[0], node)
    attributes = _numbers(node) | {"w_shape": list(w.shape), "layout": layout}
    held = _packed(state, node, f"{layout} gemm", layout, packed)
    node.op_type = _suffixed(name, node)
    for i, value in enumerate((held, *channels)):
        node.replace_input_with(i + 1, value)
    node.attributes.clear()
    for key, value in attributes.items():
        node.attributes[key] = ir.convenience.convert_attribute(key, value)
    return node.op_type


def _smallest(name: str, packed: Array, w: Array, depth: int, node: ir.Node) -> tuple[str, str, Array]:
    """Operator, layout and weights of k4n16, packed so that they take the fewest bytes; the first of equal ones.

    Two of four weights are kept only where that saves bytes, so not for sums of 16 and fewer, and not on 2 bits.
    """
    found = _in_few_bits(name, packed, w, depth)
    if node.metadata_props.get(KERNEL) == DENSE:
        return found
    form = least_zeros(packed, least_bits(w, depth))
    kept = None if form is None else pack_zeros(packed, form)
    if form is None or kept is None or kept.nbytes >= found[2].nbytes:
        return found
    return f"{name}{form.suffix}", form.layout, kept


def _in_few_bits(name: str, packed: Array, w: Array, depth: int) -> tuple[str, str, Array]:
    """Operator, layout and weights of k4n16, packed to as few bits as hold all of w."""
    bits = least_bits(w, depth)
    if bits < 8:
        return f"{name}Int{bits}", LOW_BITS[bits], pack_bits(packed, bits)
    blocks = least_blocks(packed) if depth >= BLOCK_SIZES[0] else None
    if blocks is not None and blocks.nbytes < packed.nbytes:
        return f"{name}Int4Blocks", BLOCKS, blocks
    return name, K4N16, packed


def _suffixed(name: str, node: ir.Node) -> str:
    return f"{name}Accumulate" if node.op_type.endswith("Accumulate") else name


def _weights(node: ir.Node) -> Array:
    """Constant s8 weights. Raises StaysError."""
    x, w = node.inputs[0], constant(node.inputs[1])
    if w is None:
        raise StaysError("its weights are not constant")
    if w.dtype != np.int8 or attribute(node, "w_zero_point", 0) != 0:
        raise StaysError("its weights are not s8 with zero point 0")
    if x is None or x.dtype is not ir.DataType.UINT8:
        raise StaysError("its input is not known to be u8")
    return w


def _channel_numbers(state: Relayout, node: ir.Node, channels: int) -> list[ir.Value]:
    """bias, b and c: one a channel, or one for all of b or c. Raises StaysError."""
    found: list[ir.Value] = []
    for value in node.inputs[2:]:
        array = constant(value)
        if value is None or array is None or array.size not in (1, channels):
            raise StaysError("its bias, b or c is not one constant a channel")
        if not found and array.size != channels:
            value = state.derived(value, f"{channels} channels", "channels", np.repeat(array.reshape(-1), channels))
        found.append(value)
    return found


def _packed(state: Relayout, node: ir.Node, key: str, layout: str, array: Array) -> ir.Value:
    w = node.inputs[1]
    assert w is not None
    return state.derived(w, key, layout, array)


def _numbers(node: ir.Node) -> dict[str, Any]:
    """Attributes that do not depend on the layout."""
    names = ("x_zero_point", *_REQUANTIZED)
    return {name: attribute(node, name) for name in names if attribute(node, name) is not None}


def _window(node: ir.Node, dims: int) -> dict[str, list[int]]:
    """Strides, pads and dilations of two axes."""
    pads = ints(node, "pads", [0] * (2 * dims)) or []
    found = {key: ints(node, key, [1] * dims) or [] for key in ("strides", "dilations")}
    if dims == 2:
        return found | {"pads": pads}
    return {key: [1, *one] for key, one in found.items()} | {"pads": [0, pads[0], 0, pads[1]]}


PRODUCTS: dict[tuple[str, str], Callable[[Relayout, ir.Node], str]] = {
    (DOMAIN, "Conv"): conv,
    (DOMAIN, "ConvAccumulate"): conv,
    (DOMAIN, "Gemm"): gemm,
    (DOMAIN, "GemmAccumulate"): gemm,
}
"""Each rewrites its node and returns the operator that took its place."""
