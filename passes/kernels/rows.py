"""An accumulator by rows and the Requantize that takes each row's own k off c, as one product.

q, k = RowQuantize(x)      Requantize(GemmPackedAccumulate(q, w, bias), b, c - k) = GemmPackedRows(q, w, bias, b, c, k)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from mulshift.ir import DOMAIN, Array, add_initializer, attribute, constant, inherit_origin, sole_user
from mulshift.ir.dyadic import MIN_SHIFT
from mulshift.ir.operators.packed import ROW_PRODUCTS
from mulshift.ir.operators.row_quantize import MOST_SHIFT
from mulshift.passes.base import Pass
from mulshift.passes.kernels.epilogue import take_over


@dataclass(frozen=True)
class _Rows:
    """What becomes one node with its accumulator.

    Attributes:
        shifts: Sub(c, k).
        requantize: by b and that.
        b: one a column, or one.
        c: as many.
    """

    shifts: ir.Node
    requantize: ir.Node
    b: ir.Value
    c: Array


def fuse_rows(owner: Pass, graph: ir.Graph) -> None:
    """Each accumulator that fits."""
    for node in list(graph):
        rows = _find(node) if node.domain == DOMAIN and node.op_type in ROW_PRODUCTS else None
        if rows is not None:
            owner.changed(_fuse(graph, node, rows), "its rows shift in the product")


def _find(product: ir.Node) -> _Rows | None:
    requantize = sole_user(product.outputs[0])
    if requantize is None or (requantize.domain, requantize.op_type) != (DOMAIN, "Requantize"):
        return None
    acc, b, shifted = requantize.inputs
    shifts = None if shifted is None else shifted.producer()
    if acc is not product.outputs[0] or attribute(requantize, "x_zero_point") or shifts is None:
        return None
    if shifts.op_type != "Sub" or not _is_of_rows(product, shifts.inputs[1]):
        return None
    b_array, c = constant(b), constant(shifts.inputs[0])
    columns = attribute(product, "w_shape")[1]
    if b is None or b_array is None or c is None or c.size != 1 or int(c.min()) - MOST_SHIFT < MIN_SHIFT:
        return None
    if b_array.shape not in ((1,), (columns,)):
        return None
    return _Rows(shifts, requantize, b, np.full(b_array.shape, c.reshape(-1)[0], np.int32))


def _is_of_rows(product: ir.Node, k: ir.Value | None) -> bool:
    """Whether k is of the very rows that the product reads."""
    made = None if k is None else k.producer()
    if made is None or (made.domain, made.op_type) != (DOMAIN, "RowQuantize"):
        return False
    return k is made.outputs[1] and product.inputs[0] is made.outputs[0]


def _fuse(graph: ir.Graph, product: ir.Node, rows: _Rows) -> ir.Node:
    """In the place of the Requantize."""
    old = rows.requantize
    c = add_initializer(graph, f"{rows.b.name}.c", rows.c)
    given = {k: a.value for k, a in product.attributes.items()}
    given |= {k: attribute(old, k) for k in old.attributes if k != "x_zero_point"}
    new = ir.node(
        ROW_PRODUCTS[product.op_type],
        [*product.inputs, rows.b, c, rows.shifts.inputs[1]],
        given,
        domain=DOMAIN,
        name=product.name,
    )
    new.metadata_props.update({**product.metadata_props, **old.metadata_props})
    inherit_origin([new], [product, old])
    graph.insert_before(old, new)
    take_over(old.outputs[0], new.outputs[0])
    for node in (old, product):
        graph.remove(node, safe=True)
    return new
