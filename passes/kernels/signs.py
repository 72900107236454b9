"""Bytes that are only read less 128 are made signed by the product itself; what only moves them stands between.

    Requantize(Reshape(GemmPacked(x))) = Reshape(GemmPacked'(x))      b = 2^c, from u8 to s8, zero points 128 apart

Such a Requantize shifts every integer by -128, so the product's zero point and clamp can be 128 lower instead. Keys and
values of attention are s8, linear operators make u8.
"""

from __future__ import annotations

import onnx_ir as ir

from mulshift.ir import DOMAIN, QParams, QuantSpec, attribute, constant, fresh_name, get_qparams, set_qparams, sole_user
from mulshift.ir.operators.packed import PRODUCTS
from mulshift.passes.base import Pass

_SHIFT = 128
_MOVES = ("Reshape", "Transpose", "Unsqueeze", "Squeeze", "Identity")
_WHOLE = {"qmin": -_SHIFT, "qmax": _SHIFT - 1, "dtype": int(ir.DataType.INT8)}


def make_signed(owner: Pass, graph: ir.Graph) -> None:
    """Each such Requantize goes."""
    for node in list(graph):
        path = _path(node) if _is_shift(node) else None
        if path is not None:
            product = _rewrite(graph, node, path)
            owner.changed(product, f"{product.op_type} makes s8")


def _is_shift(node: ir.Node) -> bool:
    """Whether y = x - 128 for every u8."""
    if (node.domain, node.op_type) != (DOMAIN, "Requantize"):
        return False
    x, numbers = node.inputs[0], [constant(v) for v in node.inputs[1:]]
    if x is None or x.dtype is not ir.DataType.UINT8 or any(a is None or a.size != 1 for a in numbers):
        return False
    b, c = (int(a.item()) for a in numbers if a is not None)
    apart = attribute(node, "x_zero_point") - attribute(node, "zero_point")
    return b == 2**c and apart == _SHIFT and all(attribute(node, k) == v for k, v in _WHOLE.items())


def _path(node: ir.Node) -> list[ir.Value] | None:
    """What the product makes, and what moves make of it, up to the input of `node`; None if others read it too."""
    value, found = node.inputs[0], list[ir.Value]()
    while value is not None and sole_user(value) is not None:
        found.insert(0, value)
        maker = value.producer()
        if maker is None:
            return None
        if maker.domain == DOMAIN and maker.op_type in PRODUCTS:
            return found
        value = maker.inputs[0] if maker.domain == "" and maker.op_type in _MOVES else None
    return None


def _rewrite(graph: ir.Graph, node: ir.Node, path: list[ir.Value]) -> ir.Node:
    """Take `node` away; all values of the path become s8, the last one its output."""
    product, old = path[0].producer(), node.outputs[0]
    assert product is not None
    for key in ("zero_point", "qmin", "qmax"):
        product.attributes[key] = ir.AttrInt64(key, attribute(product, key) - _SHIFT)
    product.attributes["dtype"] = ir.AttrInt64("dtype", _WHOLE["dtype"])
    for value in path:
        value.dtype = ir.DataType.INT8
        value.name = fresh_name(graph, f"{value.name}.s8")
        q = get_qparams(value)
        if q is not None:
            set_qparams(value, QParams(q.scale, q.zero_point - _SHIFT, QuantSpec(q.spec.bits, True, q.spec.symmetric)))
    name, last = old.name, path[-1]
    last.metadata_props.update(old.metadata_props)
    old.replace_all_uses_with(last, replace_graph_outputs=True)
    graph.remove(node, safe=True)
    old.name, last.name = None, name
    return product
