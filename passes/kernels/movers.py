"""Channels-last forms of what stands between products: a rule an operator, each exact because it only moves axes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import onnx_ir as ir

from mulshift.ir import DOMAIN, attribute, rank, static_shape
from mulshift.ir.layout import AXES
from mulshift.passes.kernels.axes import axes_input, axes_of, check_order
from mulshift.passes.kernels.relayout import Relayout, StaysError
from mulshift.passes.kernels.reshapes import flatten, reshape, shape, squeeze, transpose, unsqueeze
from mulshift.passes.kernels.windows import max_pool, pad, resize

Rule: TypeAlias = Callable[[Relayout, ir.Node], None]
"""Rewrites a node whose first twin exists; raises StaysError where the node must keep its layout."""


def elementwise(*data: int) -> Rule:
    """Operands at these indices (all if none is given) broadcast against each other; the others stay as they are."""

    def rule(state: Relayout, node: ir.Node) -> None:
        indices = data or range(len(node.inputs))
        out = max((state.rank(node.inputs[i]) or 0 for i in indices if i < len(node.inputs)), default=0)
        if out not in AXES:
            raise StaysError(f"its operands have {out} axes")
        inputs = [state.operand(v, out, node) if i in indices else v for i, v in enumerate(node.inputs)]
        state.rewrite(node, inputs, node.attributes, out)

    return rule


def concat(state: Relayout, node: ir.Node) -> None:
    """All inputs are data."""
    r = max(state.ranked(v) for v in node.inputs)
    inputs = [state.twin(v, node) for v in node.inputs]
    state.rewrite(node, inputs, _moved_axis(node, r), r)


def along_axis(state: Relayout, node: ir.Node) -> None:
    """The first input is data, what else there is does not depend on the layout."""
    r = state.ranked(node.inputs[0])
    state.rewrite(node, [state.twin(node.inputs[0], node), *node.inputs[1:]], _moved_axis(node, r), r)


def gather(state: Relayout, node: ir.Node) -> None:
    """By a list of indices."""
    if rank(node.inputs[1]) != 1:
        raise StaysError("its indices are not a list")
    along_axis(state, node)


def lerp(state: Relayout, node: ir.Node) -> None:
    """Indices along an axis, weights that broadcast from there on."""
    r = state.ranked(node.inputs[0])
    weights = [state.operand(v, r, node) for v in node.inputs[3:]]
    inputs = [state.twin(node.inputs[0], node), *node.inputs[1:3], *weights]
    state.rewrite(node, inputs, _moved_axis(node, r), r)


def _moved_axis(node: ir.Node, r: int) -> dict[str, Any]:
    return {**node.attributes, "axis": AXES[r][int(attribute(node, "axis", 0)) % r]}


def slice_(state: Relayout, node: ir.Node) -> None:
    """Constant axes."""
    r = state.ranked(node.inputs[0])
    starts = static_shape(node.inputs[1])
    axes = axes_of(node, 3, range(starts[0]) if starts else None, r)
    inputs = [state.twin(node.inputs[0], node), *node.inputs[1:3], axes_input(state, node, 3, axes, r)]
    state.rewrite(node, [*inputs, *node.inputs[4:]], node.attributes, r)


def reduce(state: Relayout, node: ir.Node) -> None:
    """Constant axes. Without keepdims the result is plain if what is left keeps its order."""
    r = state.ranked(node.inputs[0])
    axes = axes_of(node, 1, None, r)
    if attribute(node, "keepdims", 1):
        inputs = [state.twin(node.inputs[0], node), axes_input(state, node, 1, axes, r)]
        state.rewrite(node, inputs, node.attributes, r)
        return
    check_order(axes, r)
    node.replace_input_with(1, axes_input(state, node, 1, axes, r, lifted=True))
    node.replace_input_with(0, state.twin(node.inputs[0], node))


MOVERS: dict[tuple[str, str], Rule] = {
    **{(DOMAIN, name): elementwise() for name in ("Add", "Mul", "Affine", "Requantize")},
    (DOMAIN, "Table"): elementwise(0),
    (DOMAIN, "ReduceMean"): reduce,
    (DOMAIN, "Lerp"): lerp,
    **{("", name): elementwise() for name in ("Clip", "Max", "Min", "Where", "Add", "Sub", "Mul")},
    **{("", name): elementwise(0) for name in ("Cast", "Identity")},
    ("", "Concat"): concat,
    ("", "Split"): along_axis,
    ("", "Gather"): gather,
    ("", "Slice"): slice_,
    ("", "Pad"): pad,
    ("", "Resize"): resize,
    **{("", name): reduce for name in ("ReduceMax", "ReduceMin", "ReduceSum")},
    ("", "MaxPool"): max_pool,
    ("", "Transpose"): transpose,
    ("", "Flatten"): flatten,
    ("", "Reshape"): reshape,
    ("", "Squeeze"): squeeze,
    ("", "Unsqueeze"): unsqueeze,
    ("", "Shape"): shape,
}

__all__ = ["MOVERS", "Rule"]
