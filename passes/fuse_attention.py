"""Scaled dot-product attention that an exporter took apart, as one node of the domain `mulshift.float`.

    y = softmax(scale * q k^T + mask) v,    q [B, H, M, D], k [B, G, N, D], v [B, G, N, E]

Scales before and after the product, masks added or chosen, heads that are repeated for their groups (GQA), the check
for rows without a key: all become `Attention` or `MaskedAttention` on [batch, positions, heads, columns], as the
projections write them. What is not recognized stays MatMul, Softmax, MatMul, with a reason.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from mulshift.ir import add_initializer, attribute, constant, rank, scalar, sole_user, users
from mulshift.ir.float_functions import DOMAIN, domain_of
from mulshift.passes.base import Pass
from mulshift.passes.bool_masks import as_bool
from mulshift.passes.heads import SWAP, insert, one_head, positions_first, swapped, without_repeats
from mulshift.passes.masks import MASK

_SHARED = ("Identity", "Cast", "Dropout")
_LONGEST = 8


_Masks = dict[tuple[ir.Value, str], ir.Value | None]
"""Mask and how it masks -> its boolean."""


@dataclass
class _Scores:
    """`factor * product`, with masks: (value, how it masks)."""

    product: ir.Node
    factor: float = 1.0
    masks: list[tuple[ir.Value, str]] = field(default_factory=list)


def fuse_attention(owner: Pass, model: ir.Model) -> None:
    """Replace every softmax over the last axis between two products of activations on four axes."""
    known: _Masks = {}
    for softmax in list(model.graph):
        if softmax.op_type == "Softmax" and softmax.domain == "":
            reason = _try(owner, model, softmax, known)
            if reason:
                owner.skipped(softmax, f"no attention: {reason}")


def _try(owner: Pass, model: ir.Model, softmax: ir.Node, known: _Masks) -> str:
    graph = model.graph
    scores, mix = _scores(softmax.inputs[0]), _product_after(softmax)
    if scores is None and mix is None:
        return ""
    if scores is None or mix is None:
        return "one of its two products of activations is missing"
    if not _over_last_axis(softmax):
        return "the softmax runs over another axis than the last"
    q, key, value = scores.product.inputs[0], scores.product.inputs[1], mix.inputs[1]
    if q is None or key is None or value is None or {rank(v) for v in (q, key, value)} not in ({4}, {3}):
        return "its products do not have three or four axes"
    single = rank(q) == 3
    k = positions_first(graph, _unscaled(key, scores), mix)
    if k is None:
        return "its keys are no transposed matrix for each head"
    q = _unscaled(q, scores)
    masks = [_mask(graph, found, softmax, known) for found in scores.masks]
    if any(m is None for m in masks):
        return f"'{scores.masks[masks.index(None)][0].name}' is added to its scores and is no mask"
    operands: list[ir.Value | None]
    if single:
        operands = [one_head(graph, q, mix), k, one_head(graph, value, mix)]
        masks = [_of_one_head(graph, m, mix) for m in masks]
    else:
        operands = [swapped(graph, q, mix), _grouped(graph, k, mix), swapped(graph, without_repeats(value), mix)]
    for more in masks[1:]:
        masks[0] = insert(graph, mix, "And", [masks[0], more], {})
    name = "MaskedAttention" if masks else "Attention"
    domain_of(model, name)
    y = insert(graph, mix, name, operands + masks[:1], {"scale": scores.factor}, DOMAIN)
    made = _joined(graph, y, mix, single)
    owner.changed(softmax, f"{name}, scale {scores.factor:.6g}")
    ir.convenience.replace_nodes_and_values(graph, mix, [mix], [], mix.outputs, [made])
    return ""


def _joined(graph: ir.Graph, y: ir.Value, mix: ir.Node, single: bool) -> ir.Value:
    """y [B, M, H, E] in the layout of the product that it replaces."""
    out = mix.outputs[0]
    y.metadata_props.update(out.metadata_props)
    if single:
        y.shape = None if out.shape is None else ir.Shape([*out.shape[:2], 1, out.shape[2]])
        axes = add_initializer(graph, f"{mix.name}.axes", np.asarray([2], np.int64))
        made = insert(graph, mix, "Squeeze", [y, axes], {})
    else:
        y.shape = None if out.shape is None else ir.Shape([out.shape[i] for i in SWAP])
        made = insert(graph, mix, "Transpose", [y], {"perm": list(SWAP)})
    made.shape = out.shape
    return made


def _of_one_head(graph: ir.Graph, mask: ir.Value | None, before: ir.Node) -> ir.Value | None:
    """A mask of scores [B, M, N] as one of [B, 1, M, N]."""
    if mask is None or rank(mask) in (0, 1, 2):
        return mask
    axes = add_initializer(graph, f"{before.name}.axes", np.asarray([1], np.int64))
    return insert(graph, before, "Unsqueeze", [mask, axes], {})


def _grouped(graph: ir.Graph, k: ir.Value, before: ir.Node) -> ir.Value:
    """k [B, N, G, D] without the repeats for each head of a group."""
    turn = k.producer()
    if turn is None or turn.op_type != "Transpose" or turn.inputs[0] is None:
        return k
    inner = without_repeats(turn.inputs[0])
    return k if inner is turn.inputs[0] else swapped(graph, inner, before)


def _unscaled(value: ir.Value, scores: _Scores) -> ir.Value:
    """The value before products with one number, which go into the scale of the scores."""
    for _ in range(_LONGEST):
        found = _times_number(value.producer())
        if found is None:
            return value
        value, factor = found
        scores.factor *= factor
    return value


def _times_number(node: ir.Node | None) -> tuple[ir.Value, float] | None:
    if node is None or node.domain != "" or node.op_type not in ("Mul", "Div"):
        return None
    x, y = node.inputs
    cx, cy = scalar(x), scalar(y)
    if cy is not None and x is not None and constant(x) is None and cy != 0:
        return x, cy if node.op_type == "Mul" else 1 / cy
    return (y, cx) if cx is not None and y is not None and node.op_type == "Mul" and constant(y) is None else None


def _scores(value: ir.Value | None) -> _Scores | None:
    """From the softmax back to the product of queries and keys, through scales and masks."""
    factor = 1.0
    masks: list[tuple[ir.Value, str]] = []
    for _ in range(_LONGEST):
        node = None if value is None or constant(value) is not None else value.producer()
        if node is None or node.domain != "" or sole_user(node.outputs[0]) is None:
            return None
        if _is_product(node):
            return _Scores(node, factor, masks)
        scaled = _times_number(node)
        if scaled is not None:
            value, more = scaled
            factor *= more
        elif node.op_type in _SHARED:
            value = node.inputs[0]
        elif node.op_type == "Add":
            a, b = node.inputs
            value, mask = (a, b) if _leads_to_product(a) else (b, a)
            if mask is None:
                return None
            masks.append((mask, "added"))
        elif node.op_type == "Where" and (kept := _kept_branch(node)) is not None:
            condition = node.inputs[0]
            if condition is None:
                return None
            value = node.inputs[kept]
            masks.append((condition, "true attends" if kept == 1 else "false attends"))
        else:
            return None
    return None


def _leads_to_product(value: ir.Value | None) -> bool:
    for _ in range(_LONGEST):
        node = None if value is None else value.producer()
        if node is None or node.domain != "":
            return False
        if _is_product(node):
            return True
        scaled = _times_number(node)
        if scaled is None and node.op_type not in (*_SHARED, "Add", "Where"):
            return False
        value = scaled[0] if scaled is not None else node.inputs[0]
        if node.op_type == "Where":
            kept = _kept_branch(node)
            value = None if kept is None else node.inputs[kept]
    return False


def _kept_branch(node: ir.Node) -> int | None:
    """Which branch of a Where holds scores, where the other is a masking number."""
    for kept, other in ((1, 2), (2, 1)):
        number = scalar(node.inputs[other])
        if number is not None and number <= MASK:
            return kept
    return None


def _mask(graph: ir.Graph, found: tuple[ir.Value, str], before: ir.Node, known: _Masks) -> ir.Value | None:
    """The boolean of a mask, written once for all layers: a softmax stands before those that come later."""
    value, how = found
    if how == "true attends":
        return value
    if found not in known:
        known[found] = as_bool(graph, value, before) if how == "added" else insert(graph, before, "Not", [value], {})
    return known[found]


def _over_last_axis(softmax: ir.Node) -> bool:
    n = rank(softmax.inputs[0])
    return attribute(softmax, "axis", -1) in (-1, None if n is None else n - 1)


def _product_after(softmax: ir.Node) -> ir.Node | None:
    """The MatMul that alone reads the shares, through the check for rows that attend to nothing."""
    value = softmax.outputs[0]
    for _ in range(_LONGEST):
        checked = _checked(value)
        node = sole_user(value) if checked is None else checked
        if node is None or node.domain != "":
            return None
        if _is_product(node):
            return node if node.inputs[0] is value else None
        if checked is None and node.op_type not in _SHARED:
            return None
        value = node.outputs[0]
    return None


def _checked(value: ir.Value) -> ir.Node | None:
    """The Where of `Where(IsNaN(x), 0, x)`; None if the value is read by anything else."""
    readers = users(value)
    asks = [n for n in readers if n.op_type == "IsNaN"]
    chooses = [n for n in readers if n.op_type == "Where"]
    if len(readers) != 2 or len(asks) != 1 or len(chooses) != 1 or value.is_graph_output():
        return None
    where = chooses[0]
    fits = where.inputs[0] is asks[0].outputs[0] and scalar(where.inputs[1]) == 0 and where.inputs[2] is value
    return where if fits and sole_user(asks[0].outputs[0]) is where else None


def _is_product(node: ir.Node) -> bool:
    return node.op_type == "MatMul" and node.domain == "" and all(constant(v) is None for v in node.inputs)
