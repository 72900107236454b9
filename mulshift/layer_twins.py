"""A lowered graph in which each sparse product has its dense form, and each that was put back dense its sparse one."""

from __future__ import annotations

import math

import onnx_ir as ir

from mulshift.ir import DOMAIN, Array, add_initializer, attribute, constant, ints
from mulshift.ir.operators.low_bits import LOW_BITS, pack_bits, unpack_bits
from mulshift.ir.operators.packing import K4N16
from mulshift.ir.operators.sparse import least_zeros, pack_zeros, unpack_zeros
from mulshift.sparse_layers import LAYOUTS, is_put_back

_BASES = ("ConvNhwc", "GemmPacked")
_DENSE = {K4N16: (8, ""), **{layout: (bits, f"Int{bits}") for bits, layout in LOW_BITS.items()}}
"""Layout -> bits, suffix of the operator."""
_SUFFIX = {**{layout: suffix for layout, (_, suffix) in _DENSE.items()}, **{n: f.suffix for n, f in LAYOUTS.items()}}


def twins(lowered: ir.Model) -> tuple[ir.Model, dict[str, str]]:
    """A copy with the other forms.

    Args:
        lowered: for the kernel library; left as it is.

    Returns:
        The copy, and node -> operator that it has there, of those that changed.
    """
    copy = lowered.clone()
    changed: dict[str, str] = {}
    for node in copy.graph:
        made = _other(node)
        if made is None:
            continue
        layout, array = made
        base = next(b for b in _BASES if node.op_type.startswith(b))
        tail = node.op_type[len(base) + len(_SUFFIX[attribute(node, "layout")]) :]
        node.op_type = changed[str(node.name)] = f"{base}{_SUFFIX[layout]}{tail}"
        node.attributes["layout"] = ir.AttrString("layout", layout)
        node.replace_input_with(1, add_initializer(copy.graph, f"{node.name}.{layout}", array))
    return copy, changed


def _other(node: ir.Node) -> tuple[str, Array] | None:
    """Layout and weights of a node's other form; None where it has none."""
    layout = attribute(node, "layout", "")
    if node.domain != DOMAIN or not node.op_type.startswith(_BASES) or layout not in _SUFFIX:
        return None
    w, shape = constant(node.inputs[1]), ints(node, "w_shape") or []
    if w is None:
        return None
    fours = -(-(shape[0] if node.op_type.startswith("Gemm") else math.prod(shape[1:])) // 4)
    if layout in LAYOUTS:
        form = LAYOUTS[layout]
        packed = unpack_zeros(w, form)[:, :, :fours]
        return (LOW_BITS[4], pack_bits(packed, 4)) if form.bits == 4 else (K4N16, packed)
    if not is_put_back(node):
        return None
    bits = _DENSE[layout][0]
    packed = w if bits == 8 else unpack_bits(w, bits)[:, :, :fours]
    found = least_zeros(packed, bits)
    return None if found is None else (found.layout, pack_zeros(packed, found))
