"""What a node does with a permutation of channels: as with a rotation, and what works channel by channel passes it."""

from __future__ import annotations

import onnx_ir as ir

from mulshift.ir import attribute, constant, rank
from mulshift.ir.float_functions import DOMAIN
from mulshift.passes.rotation.ties import (
    Place,
    Rule,
    Tie,
    aligned,
    dim_at,
    is_constant,
    is_vector,
    mover,
    pool_axis,
    refused,
    same_axis,
    target_axis,
    tie,
)


def permuting(node: ir.Node, place: Place) -> Tie | str:
    """What a node asks for when the channels of one of its values change places, or why they must stay."""
    rule = _RULES.get(node.op_type) if node.domain in ("", "ai.onnx", DOMAIN) else None
    depthwise = node.op_type == "Conv" and node.domain == "" and int(attribute(node, "group", 1)) != 1
    if rule is None and not depthwise:
        found = tie(node, place)
        return (
            found.replace("a rotation does not pass", "a permutation does not pass")
            if isinstance(found, str)
            else found
        )
    if any(rank(v) is None for v in (*node.inputs[:1], *node.outputs[:1])):
        return f"a permutation does not pass '{node.name}' ({node.op_type})"
    return (rule or _depthwise)(node, place)


def _each(node: ir.Node, place: Place) -> Tie | str:
    """An operator on operands that broadcast, element by element."""
    axis, y = target_axis(node, place), node.outputs[0]
    operands, channels = aligned(node, 0, axis), dim_at(y, axis)
    if isinstance(operands, str):
        return operands
    if not isinstance(channels, int) or any(dim_at(v, a) not in (1, channels) for _, v, a in operands):
        return refused(node, "has another number of channels")
    wide = [o for o in operands if dim_at(o[1], o[2]) == channels]
    values = [(v, a) for _, v, a in wide if not is_constant(v)]
    return Tie((*values, (y, axis)), tuple((i, a, channels) for i, v, a in wide if is_constant(v)))


def _by_channel(first: int) -> Rule:
    """A normalization over channels or of each; inputs from `first` on are constants, one number a channel."""

    def rule(node: ir.Node, place: Place) -> Tie | str:
        x, y, n = node.inputs[0], node.outputs[0], rank(node.inputs[0]) or 0
        axis = 1 if node.op_type == "BatchNormalization" else n - 1
        last = node.op_type == "BatchNormalization" or int(attribute(node, "axis", -1)) % n == n - 1
        if x is None or place.value not in (x, y) or place.axis != axis or not last:
            return refused(node, "normalizes over other axes")
        given = [(i, v) for i, v in enumerate(node.inputs) if i >= first and v is not None]
        if not all(is_vector(v) for _, v in given) or any(o.uses() for o in node.outputs[1:]):
            return refused(node, "has a scale that is not constant, or more outputs that are read")
        channels = dim_at(x, axis)
        whole = node.op_type == "BatchNormalization" or channels == place.order
        if not isinstance(channels, int) or not whole:
            return refused(node, "normalizes more channels than one run")
        return Tie(((x, axis), (y, axis)), tuple((i, (rank(v) or 1) - 1, channels) for i, v in given))

    return rule


def _depthwise(node: ir.Node, place: Place) -> Tie | str:
    """A convolution of each channel by itself."""
    x, y, w = node.inputs[0], node.outputs[0], constant(node.inputs[1])
    if x is None or w is None or w.shape[1] != 1 or w.shape[0] != dim_at(x, 1) or place.axis != 1:
        return refused(node, "has groups of more than a channel, or weights that are not constant")
    if place.value not in (x, y) or (len(node.inputs) > 2 and not is_constant(node.inputs[2])):
        return refused(node, "has a bias that is not constant")
    constants = tuple((i, 0, len(w)) for i in range(1, len(node.inputs)) if node.inputs[i] is not None)
    return Tie(((x, 1), (y, 1)), constants)


_RULES: dict[str, Rule] = {
    **dict.fromkeys(
        (
            "Relu", "LeakyRelu", "Clip", "Sigmoid", "Tanh", "Gelu", "Swish", "HardSigmoid", "HardSwish", "Mish", "Elu",
            "Selu", "Celu", "Softplus", "Softsign", "ThresholdedRelu", "Erf", "Exp", "Log", "Sqrt", "Abs", "Reciprocal",
        ),
        mover(same_axis),
    ),
    **dict.fromkeys(("Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "PRelu", "Where"), _each),
    **dict.fromkeys(("MaxPool", "GlobalMaxPool"), mover(pool_axis)),
    **dict.fromkeys(("LayerNormalization", "RMSNormalization", "BatchNormalization"), _by_channel(1)),
}  # fmt: skip
