"""What a node does with a rotation `x R` along one axis of one of its values: pass it on, absorb it, or refuse it.

R is blockdiag(Q, ..., Q) with Q of some order; a row of the table is one kind of operator. `Y(x R) = Y(x) R` passes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import onnx_ir as ir

from mulshift.ir import attribute, constant, ints, is_float, rank
from mulshift.ir.float_functions import DOMAIN
from mulshift.passes.linear_weights import LINEAR
from mulshift.passes.shape_values import Dim, dims_of


@dataclass(frozen=True)
class Place:
    """Where a rotation meets a node.

    Attributes:
        value: rotated along `axis` (from 0), in runs of `order` channels.
        made: whether the node makes the value; else it reads it.
    """

    value: ir.Value
    axis: int
    order: int
    made: bool


@dataclass(frozen=True)
class Tie:
    """What follows for the node's other values.

    Attributes:
        values: (value, axis) that are rotated too.
        constants: (input, axis, channels) of constants to be rotated; a negative axis is one that broadcasting adds.
        makes, reads: the node's weights absorb the rotation of its output, or of its input.
        norm: it is a normalization over the channels, which passes a rotation once its scale is one.
    """

    values: tuple[tuple[ir.Value, int], ...] = ()
    constants: tuple[tuple[int, int, int], ...] = ()
    makes: bool = False
    reads: bool = False
    norm: bool = False


Rule: TypeAlias = Callable[[ir.Node, Place], "Tie | str"]


def tie(node: ir.Node, place: Place) -> Tie | str:
    """What a node asks for when one of its values is rotated, or why it allows none."""
    if node.op_type in ("Shape", "Size") and not place.made:
        return Tie()
    rule = _RULES.get((node.domain, node.op_type))
    if rule is None or any(rank(v) is None for v in (*_read(node)[:1], *node.outputs[:1])):
        return f"a rotation does not pass '{node.name}' ({node.op_type})"
    return rule(node, place)


def is_constant(value: ir.Value | None) -> bool:
    """Whether a value is an initializer or a Constant; its numbers are not loaded."""
    return value is not None and not value.is_graph_input() and ir.convenience.get_const_tensor(value) is not None


def is_weight(value: ir.Value | None) -> bool:
    """A constant, or the Transpose of a constant matrix (tied weights are stored once)."""
    node = None if value is None else value.producer()
    if node is not None and node.op_type == "Transpose" and node.domain == "":
        return is_constant(node.inputs[0]) and rank(node.inputs[0]) == 2 and ints(node, "perm", [1, 0]) == [1, 0]
    return is_constant(value)


def _read(node: ir.Node) -> list[ir.Value]:
    return [v for v in node.inputs if v is not None]


def refused(node: ir.Node, why: str) -> str:
    return f"'{node.name}' ({node.op_type}) {why}"


def dim_at(value: ir.Value | None, axis: int) -> Dim:
    dims = dims_of(value)
    return dims[axis] if dims is not None and 0 <= axis < len(dims) else 1


def _tied(operands: Sequence[tuple[int, ir.Value, int]], y: ir.Value, axis: int) -> Tie | str:
    """Operands (input, value, axis) and the output: constants are to be rotated, the others are rotated."""
    size = dim_at(y, axis)
    if not isinstance(size, int):
        return f"the number of channels of '{y.name}' is unknown"
    values = [(v, a) for _, v, a in operands if not is_constant(v)]
    constants = [(i, a, size) for i, v, a in operands if is_constant(v)]
    return Tie((*values, (y, axis)), tuple(constants))


# One input moves to the output ------------------------------------------------------------------------------------


Across: TypeAlias = Callable[[ir.Node, Place], "int | None"]
"""The axis on the other side of the node, None if the channels do not stay together."""


def mover(across: Across) -> Rule:
    def rule(node: ir.Node, place: Place) -> Tie | str:
        x, y = node.inputs[0], node.outputs[0]
        if x is None or not is_float(x) or not is_float(y) or place.value not in (x, y) or _read(node)[1:].count(x):
            return refused(node, "reads rotated channels in another way")
        other = across(node, place)
        if other is None:
            return refused(node, "does not keep the channels together")
        source, target = (other, place.axis) if place.made else (place.axis, other)
        return _tied([(0, x, source)], y, target)

    return rule


def same_axis(node: ir.Node, place: Place) -> int | None:
    return place.axis


def _reshape(node: ir.Node, place: Place) -> int | None:
    """Runs of `order` elements at one stride stay such: the axis with as many elements behind it, in whole runs."""
    near, far = dims_of(node.inputs[0]), dims_of(node.outputs[0])
    near, far = (far, near) if place.made else (near, far)
    if near is None or far is None:
        return None
    stride = _behind(near, place.axis)
    fits = (a for a, d in enumerate(far) if isinstance(d, int) and d and d % place.order == 0)
    return next((a for a in fits if stride is not None and _behind(far, a) == stride), None)


def _behind(dims: Sequence[Dim], axis: int) -> tuple[int, tuple[str, ...]] | None:
    """Elements behind an axis: a number and the names of dynamic dimensions."""
    rest = dims[axis + 1 :]
    names = tuple(sorted(d for d in rest if isinstance(d, str)))
    return None if None in rest else (math.prod(d for d in rest if isinstance(d, int)), names)


def _transpose(node: ir.Node, place: Place) -> int | None:
    perm = ints(node, "perm") or list(range(rank(node.inputs[0]) or 0))[::-1]
    return perm[place.axis] if place.made else perm.index(place.axis)


def _slice(node: ir.Node, place: Place) -> int | None:
    n = rank(node.inputs[0]) or 0
    given = node.inputs[3] if len(node.inputs) > 3 else None
    axes, starts = constant(given), dims_of(node.inputs[1])
    if axes is None:  # without axes, the first ones, as many as there are starts
        known = given is None and bool(starts) and isinstance(starts[0], int) if starts else False
        return place.axis if known and starts and place.axis >= int(str(starts[0])) else None
    return None if place.axis in [int(a) % n for a in axes.reshape(-1)] else place.axis


def _gather(node: ir.Node, place: Place) -> int | None:
    n, k = rank(node.inputs[0]), rank(node.inputs[1])
    if n is None or k is None:
        return None
    axis = int(attribute(node, "axis", 0)) % n
    if not place.made:
        return None if place.axis == axis else place.axis + (k - 1 if place.axis > axis else 0)
    if place.axis < axis:
        return place.axis
    return place.axis - (k - 1) if place.axis >= axis + k else None


def _expand(node: ir.Node, place: Place) -> int | None:
    x, y = node.inputs[0], node.outputs[0]
    shift = (rank(y) or 0) - (rank(x) or 0)
    source, target = (place.axis - shift, place.axis) if place.made else (place.axis, place.axis + shift)
    return (source if place.made else target) if source >= 0 and dim_at(x, source) == dim_at(y, target) else None


def _reduce(node: ir.Node, place: Place) -> int | None:
    n = rank(node.inputs[0]) or 0
    given = node.inputs[1] if len(node.inputs) > 1 else None
    found = constant(given) if given is not None else ints(node, "axes")
    axes = None if found is None else sorted(int(a) % n for a in found)
    if not axes:
        return None
    kept = list(range(n)) if attribute(node, "keepdims", 1) else [a for a in range(n) if a not in axes]
    source = kept[place.axis] if place.made else place.axis
    return None if source in axes else (source if place.made else kept.index(source))


def pool_axis(node: ir.Node, place: Place) -> int | None:
    return 1 if place.axis == 1 else None


# Several operands -------------------------------------------------------------------------------------------------


def target_axis(node: ir.Node, place: Place) -> int:
    """The axis in the output, operands aligned at the end."""
    return place.axis if place.made else place.axis + (rank(node.outputs[0]) or 0) - (rank(place.value) or 0)


def aligned(node: ir.Node, first: int, axis: int) -> list[tuple[int, ir.Value, int]] | str:
    """(input, value, axis) of the operands from input `first` on."""
    found: list[tuple[int, ir.Value, int]] = []
    for i, v in enumerate(node.inputs):
        n = rank(v)
        if v is None or n is None:
            return refused(node, "has an operand of unknown rank")
        if i >= first:
            found.append((i, v, axis - ((rank(node.outputs[0]) or 0) - n)))
    return found


def _join(first: int) -> Rule:
    """`a + b`, `[a; b]` or a choice between them; operands before `first` choose, the same for all channels."""

    def rule(node: ir.Node, place: Place) -> Tie | str:
        axis, y = target_axis(node, place), node.outputs[0]
        if node.op_type == "Concat" and int(attribute(node, "axis", 0)) % (rank(y) or 1) == axis:
            return refused(node, "joins channels with others")
        operands = aligned(node, first, axis)
        if isinstance(operands, str):
            return operands
        for v in node.inputs[:first]:
            if dim_at(v, axis - ((rank(y) or 0) - (rank(v) or 0))) != 1:
                return refused(node, "chooses by channel")
        if any(not is_constant(v) and dim_at(v, a) != dim_at(y, axis) for _, v, a in operands):
            return refused(node, "adds one number to all channels")
        return _tied(operands, y, axis)

    return rule


def _scale(node: ir.Node, place: Place) -> Tie | str:
    """`a * b` or `a / b` where b is the same for all channels."""
    axis, y = target_axis(node, place), node.outputs[0]
    operands = aligned(node, 0, axis)
    if isinstance(operands, str):
        return operands
    wide = [o for o in operands if dim_at(o[1], o[2]) != 1]
    if len(wide) != 1 or (node.op_type == "Div" and wide[0][0] == 1) or node.inputs[0] is node.inputs[1]:
        return refused(node, "scales channel by channel")
    return _tied(wide, y, axis)


# Linear operators -------------------------------------------------------------------------------------------------


def _linear(node: ir.Node, place: Place) -> Tie | str:
    """Conv, ConvTranspose and Gemm absorb a rotation of either side; MatMul see `_matmul`."""
    x, y = node.inputs[0], node.outputs[0]
    row = LINEAR[node.op_type]
    if not is_weight(node.inputs[1]) or int(attribute(node, "group", 1)) != 1 or attribute(node, "transA", 0):
        return refused(node, "has groups, a transposed input or weights that are not constant")
    if not place.made:
        fits = place.value is x and place.axis == row.axis_in(node) and node.inputs.count(x) == 1
        return Tie(((place.value, place.axis),), reads=True) if fits else refused(node, "mixes other axes")
    if place.axis != row.axis_out:
        return refused(node, "makes the channels along another axis")
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is None:
        return Tie(((y, place.axis),), makes=True)
    if not is_constant(bias):
        return refused(node, "has a bias that is not constant")
    made = _tied([(2, bias, (rank(bias) or 0) - 1)], y, place.axis)
    return made if isinstance(made, str) else Tie(made.values, made.constants, makes=True)


def _matmul(node: ir.Node, place: Place) -> Tie | str:
    """`a (b R) = (a b) R`: constant weights b absorb R, or b R^-1 where R comes in by a; other b pass it on."""
    a, b, y = node.inputs[0], node.inputs[1], node.outputs[0]
    weights = is_weight(b) and (rank(b) or 0) >= 2
    if a is b or place.axis != (rank(place.value) or 0) - 1 or (rank(a) or 0) < 2 or (rank(b) or 0) < 2:
        return refused(node, "mixes other axes")
    if place.value is a:
        return Tie(((a, place.axis),), reads=True) if weights else refused(node, "multiplies it with an activation")
    if weights:
        return Tie(((y, place.axis),), makes=True)
    return Tie() if b is None else _tied([(1, b, (rank(b) or 0) - 1)], y, (rank(y) or 0) - 1)


def _attention(node: ir.Node, place: Place) -> Tie | str:
    """`softmax(q k^T) v` with v of [.., .., .., channels]: `P (v R) = (P v) R`."""
    v, y = node.inputs[2], node.outputs[0]
    last, others = (rank(place.value) or 0) - 1, [x for i, x in enumerate(node.inputs) if i != 2]
    unread = not any(o.uses() or o.is_graph_output() for o in node.outputs[1:])
    if v is None or rank(v) != 4 or place.axis != last or v in others or place.value in others or not unread:
        return refused(node, "does not read it as values of heads")
    if any(x is not None for x in node.inputs[4:]):
        return refused(node, "reads values of earlier calls too")
    return _tied([(2, v, 3)], y, (rank(y) or 0) - 1)


def _norm(node: ir.Node, place: Place) -> Tie | str:
    """`RMSNorm(x Q) = RMSNorm(x) Q`; LayerNorm is RMSNorm of x without its mean (arXiv:2401.15024)."""
    x, y, n = node.inputs[0], node.outputs[0], rank(node.inputs[0]) or 0
    if x is None or place.value not in (x, y) or int(attribute(node, "axis", -1)) % n != n - 1 or place.axis != n - 1:
        return refused(node, "normalizes over other axes")
    if any(o.uses() or o.is_graph_output() for o in node.outputs[1:]):
        return refused(node, "has more outputs than one that are read")
    if dim_at(x, n - 1) != place.order or not all(is_vector(v) for v in node.inputs[1:] if v is not None):
        return refused(node, "has a scale that is not constant, or normalizes more channels than one run")
    return Tie(((x, n - 1), (y, n - 1)), norm=True)


def is_vector(value: ir.Value) -> bool:
    dims = dims_of(value)
    return is_constant(value) and dims is not None and all(d == 1 for d in dims[:-1])


PURE = (
    "Identity", "Cast", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Slice", "Gather", "Expand",
    "ReduceMean", "GlobalAveragePool",
)  # fmt: skip
"""Operators that pass on the same number added to a channel everywhere."""
ATTENTIONS = ("Attention", "MaskedAttention")
"""Operators that multiply their third input, [batch, .., .., channels], with probabilities that they compute."""
JOINS = ("Add", "Sub", "Where", "Concat")
NORMS = ("RMSNormalization", "LayerNormalization")

_ACROSS: dict[str, Across] = {
    **dict.fromkeys(("Identity", "Cast", "Neg"), same_axis),
    **dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze"), _reshape),
    **dict.fromkeys(("ReduceMean", "ReduceSum"), _reduce),
    **dict.fromkeys(("GlobalAveragePool", "AveragePool"), pool_axis),
    "Transpose": _transpose,
    "Slice": _slice,
    "Gather": _gather,
    "Expand": _expand,
}
_RULES: dict[tuple[str, str], Rule] = {
    **{("", op): mover(across) for op, across in _ACROSS.items()},
    **{("", op): _join(0) for op in ("Add", "Sub", "Concat")},
    ("", "Where"): _join(1),
    ("", "Mul"): _scale,
    ("", "Div"): _scale,
    **{("", op): _linear for op in ("Conv", "ConvTranspose", "Gemm")},
    ("", "MatMul"): _matmul,
    ("", "Attention"): _attention,
    **{(DOMAIN, op): _attention for op in ATTENTIONS},
    ("", "RMSNormalization"): _norm,
    (DOMAIN, "RMSNormalization"): _norm,
    ("", "LayerNormalization"): _norm,
}
