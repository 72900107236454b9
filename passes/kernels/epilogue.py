"""What follows a packed product into its epilogue: Add of another tensor, Table, Requantize (`operators.epilogue`).

An Affine by one power of two, w = 2^k, and no bias is Requantize(x, b, c - k), which a Rescale takes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from mulshift.ir import DOMAIN, add_initializer, attribute, constant, inherit_origin, sole_user, users
from mulshift.ir.dyadic import MIN_SHIFT
from mulshift.ir.levels import BOUND, WIDTH
from mulshift.ir.operators.epilogue import STAGES
from mulshift.ir.operators.packed import PRODUCTS, RESCALING, ROW_PRODUCTS
from mulshift.passes.base import Pass
from mulshift.passes.shape_values import dims_of

_BYTES = (ir.DataType.UINT8, ir.DataType.INT8)
_PRODUCTS = frozenset((*PRODUCTS, *ROW_PRODUCTS.values()))


@dataclass
class _Step:
    """A node that becomes a stage.

    Attributes:
        node: an Add, Table, Requantize, or the Affine that is a Rescale.
        inputs: what it reads beside the result so far.
        attributes: of the plain operator, as if the result so far were its first operand.
    """

    node: ir.Node
    inputs: list[ir.Value]
    attributes: dict[str, Any]


def fuse_epilogues(owner: Pass, graph: ir.Graph) -> None:
    """Each product with the stages that fit; of two products that an Add sums, the later one takes it."""
    for node in reversed(list(graph)):
        if node.domain != DOMAIN or node.op_type not in _PRODUCTS:
            continue
        steps = _steps(node, {n: i for i, n in enumerate(graph)})
        if steps:
            new = _fuse(graph, node, steps)
            owner.changed(new, f"{node.op_type} takes {', '.join(steps)} into its epilogue")


def _steps(product: ir.Node, order: dict[ir.Node, int]) -> dict[str, _Step]:
    """Stages in their order, as far as they fit."""
    made, found = product.outputs[0], {}
    for name, match in (("Add", _add), ("Table", _table)):
        node = sole_user(made)
        step = match(product, node, made) if node is not None and _is(node, name) else None
        if step is not None:
            found[name], made = step, step.node.outputs[0]
    if product.op_type == RESCALING and list(found) == ["Table"]:
        node, columns = sole_user(made), attribute(product, "w_shape")[1]
        step = _rescale(node, made, columns) if node is not None and _is(node, "Affine") else None
        if step is not None:
            return found | {"Rescale": step}
    readers = sorted((n for n in users(made) if n in order and _is(n, "Requantize")), key=order.__getitem__)
    steps = [step for step in (_requantize(n, made) for n in readers) if step is not None]
    return found | ({"Requantize": steps[0]} if steps else {})


def _is(node: ir.Node, op: str) -> bool:
    return node.domain == DOMAIN and node.op_type == op


def _add(product: ir.Node, node: ir.Node, t: ir.Value) -> _Step | None:
    """Add of a tensor of the same shape, either way round."""
    index = list(node.inputs).index(t)
    other = node.inputs[1 - index]
    shapes = [dims_of(v) for v in (t, other)]
    if other is None or other is t or shapes[0] != shapes[1] or shapes[0] is None or None in shapes[0]:
        return None
    own, theirs = ("x_", "y_") if index == 0 else ("y_", "x_")
    if attribute(node, f"{own}zero_point") != attribute(product, "zero_point"):
        return None
    turned = {"x_multiplier": f"{own}multiplier", "y_multiplier": f"{theirs}multiplier"}
    turned |= {"x_zero_point": f"{own}zero_point", "y_zero_point": f"{theirs}zero_point"}
    attributes = {k: attribute(node, turned.get(k, k)) for k in node.attributes}
    return _Step(node, [other], attributes)


def _table(product: ir.Node, node: ir.Node, t: ir.Value) -> _Step | None:
    """A constant table, indexed by the 8-bit result so far."""
    table = node.inputs[1]
    if table is None or node.inputs[0] is not t or constant(table) is None or t.dtype not in _BYTES:
        return None
    assert table.dtype is not None
    return _Step(node, [table], {"table_dtype": int(table.dtype)})


def _rescale(node: ir.Node, y: ir.Value, columns: int) -> _Step | None:
    """An Affine of words to bytes or words that only scales, by one number a column or one for all."""
    w, bias, b, c = (constant(v) for v in node.inputs[1:])
    if node.inputs[0] is not y or y.dtype != ir.DataType.INT16 or w is None or bias is None or b is None or c is None:
        return None
    k, kinds = int(w.max()).bit_length() - 1, (*_BYTES, ir.DataType.INT16)
    if k < 0 or (w != 1 << k).any() or bias.any() or int(c.min()) - k < MIN_SHIFT or node.outputs[0].dtype not in kinds:
        return None
    if any(v.shape not in ((), (1,), (columns,)) for v in (w, bias, b, c)):
        return None
    size, graph = max(v.size for v in (w, b, c)), node.graph
    assert graph is not None
    numbers = {"b": b, "c": c - k}
    inputs = [
        add_initializer(graph, f"{node.outputs[0].name}.rescale_{name}", np.full(size, v.reshape(-1), np.int32))
        for name, v in numbers.items()
    ]
    return _Step(node, inputs, {k: attribute(node, k) for k in node.attributes})


def _requantize(node: ir.Node, y: ir.Value) -> _Step | None:
    """By one constant b / 2^c."""
    numbers = [v for v in node.inputs[1:] if v is not None]
    arrays = [constant(v) for v in numbers]
    if node.inputs[0] is not y or any(a is None or a.size != 1 for a in arrays):
        return None
    return _Step(node, numbers, {k: attribute(node, k) for k in node.attributes})


def _fuse(graph: ir.Graph, product: ir.Node, steps: dict[str, _Step]) -> ir.Node:
    """One node in the place of the last one that makes the first output."""
    chain = [product, *(s.node for name, s in steps.items() if name != "Requantize")]
    old = [chain[-1].outputs[0], *(s.node.outputs[0] for name, s in steps.items() if name == "Requantize")]
    attributes: dict[str, Any] = {k: a.value for k, a in product.attributes.items()}
    for name, step in steps.items():
        stage = STAGES[name]
        attributes |= {fused: step.attributes[plain] for plain, fused in stage.own.items()}
        attributes |= {key: step.attributes[key] for key in stage.extra}
    new = ir.node(
        "".join((product.op_type, *steps)),
        [*product.inputs, *(v for s in steps.values() for v in s.inputs)],
        attributes,
        domain=DOMAIN,
        num_outputs=len(old),
        name=product.name,
    )
    gone = [product, *(s.node for s in steps.values())]
    new.metadata_props.update({k: v for n in gone for k, v in _proofs(n, steps)})
    inherit_origin([new], gone)
    graph.insert_before(chain[-1], new)
    for before, after in zip(old, new.outputs, strict=True):
        take_over(before, after)
    for node in reversed(gone):
        graph.remove(node, safe=True)
    return new


def _proofs(node: ir.Node, steps: dict[str, _Step]) -> Iterator[tuple[str, str]]:
    """Bound and width of a product as they are, of a stage (not a Rescale) under its name; other notes as they are."""
    stage = next((name.lower() for name, s in steps.items() if s.node is node), None)
    for key, value in node.metadata_props.items():
        own = stage is not None and key in (BOUND, WIDTH)
        if not own or stage != "rescale":
            yield (key.replace("mulshift", f"mulshift.{stage}", 1) if own else key), value


def take_over(before: ir.Value, after: ir.Value) -> None:
    """`after` becomes `before`, name and notes too."""
    after.type, after.shape = before.type, before.shape
    after.metadata_props.update(before.metadata_props)
    name = before.name
    before.replace_all_uses_with(after, replace_graph_outputs=True)
    before.name, after.name = None, name
