"""Tensors whose channels must have one order, and all constants that the order decides.

Channels are axis 1 of a plain tensor [N, C, ...]. An operator that works channel by channel ties its output to its
inputs; a product with weights of group 1 ends one space and begins another. What else reads or makes a tensor binds its
space to the order that it has, and so does being an input or output of the graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeAlias

import onnx_ir as ir

from mulshift.ir import DOMAIN, attribute, constant, describe
from mulshift.passes.kernels.axes import axes_of
from mulshift.passes.kernels.relayout import StaysError
from mulshift.passes.shape_values import dims_of


@dataclass(frozen=True)
class Place:
    """Axis of a constant input of a node that runs over the channels."""

    node: ir.Node
    index: int
    axis: int


@dataclass(frozen=True)
class Tie:
    """Values that share one order in a node.

    Attributes:
        values: not constant.
        places: constants that have it too.
        summed: a product sums over these channels.
    """

    values: tuple[ir.Value, ...]
    places: tuple[Place, ...] = ()
    summed: bool = False


@dataclass
class Space:
    """All values and constants that share one order.

    Attributes:
        channels: how many.
        readers: products that sum over them.
        bound: why their order must stay, or None.
    """

    channels: int
    values: list[ir.Value] = field(default_factory=list)
    places: list[Place] = field(default_factory=list)
    readers: list[ir.Node] = field(default_factory=list)
    bound: str | None = None


def spaces(graph: ir.Graph) -> list[Space]:
    """The spaces of a graph, in graph order; values without a known number of channels belong to none."""
    classes, ties, bound = _Classes(), [], _borders(graph)
    for node in graph:
        try:
            found = _ties(node)
        except StaysError as e:
            bound |= {v: f"{describe(node)}: {e}" for v in _variables((*node.inputs, *node.outputs)) if v not in bound}
            continue
        for tie in found:
            classes.join(tie.values)
        ties += found
    made: dict[ir.Value, Space] = {}
    for tie in ties:
        count = _channels(tie.values[0])
        assert count is not None
        space = made.setdefault(classes.root(tie.values[0]), Space(count))
        space.values += [v for v in tie.values if v not in space.values]
        space.places += tie.places
        space.readers += [tie.places[0].node] if tie.summed else []
    for space in made.values():
        space.bound = next((bound[v] for v in space.values if v in bound), None)
    return list(made.values())


def _borders(graph: ir.Graph) -> dict[ir.Value, str]:
    """Values that are bound from outside."""
    nested = (v for n in graph.all_nodes() if n.graph is not graph for v in _variables(n.inputs))
    return (
        {v: f"'{v.name}' is an input of the graph" for v in graph.inputs}
        | {v: f"'{v.name}' is an output of the graph" for v in graph.outputs}
        | {v: f"'{v.name}' is read in a subgraph" for v in nested}
    )


def _ties(node: ir.Node) -> list[Tie]:
    """Raises StaysError."""
    rule = _RULES.get((node.domain, node.op_type))
    if rule is None:
        raise StaysError("it needs the order")
    found = rule(node)
    for tie in found:
        counts = {_channels(v) for v in tie.values}
        if len(counts) != 1 or None in counts:
            raise StaysError("its channels are not known")
    return found


def _variables(values: Iterable[ir.Value | None]) -> list[ir.Value]:
    return [v for v in values if v is not None and v.name and constant(v) is None]


def _channels(value: ir.Value) -> int | None:
    dims = dims_of(value)
    return dims[1] if dims is not None and len(dims) > 1 and isinstance(dims[1], int) else None


class _Classes:
    """Which values belong together."""

    def __init__(self) -> None:
        self._parent: dict[ir.Value, ir.Value] = {}

    def root(self, value: ir.Value) -> ir.Value:
        while value in self._parent:
            value = self._parent[value]
        return value

    def join(self, values: tuple[ir.Value, ...]) -> None:
        for value in values[1:]:
            first, other = self.root(values[0]), self.root(value)
            if first is not other:
                self._parent[other] = first


Rule: TypeAlias = Callable[[ir.Node], list[Tie]]
"""The ties of a node; raises StaysError where the order must stay."""


def _conv(node: ir.Node) -> list[Tie]:
    """Group 1, or depthwise with one output a channel."""
    w, group = constant(node.inputs[1]), int(attribute(node, "group", 1))
    x, y = _data(node)
    if w is None:
        raise StaysError("its weights are not constant")
    numbers = _numbers(node, w.shape[0])
    if group == 1:
        return [Tie((x,), (Place(node, 1, 1),), summed=True), Tie((y,), (Place(node, 1, 0), *numbers))]
    if w.shape[:2] != (group, 1):
        raise StaysError(f"it has {group} groups")
    return [Tie((x, y), (Place(node, 1, 0), *numbers))]


def _gemm(node: ir.Node) -> list[Tie]:
    w = constant(node.inputs[1])
    x, y = _data(node)
    if w is None:
        raise StaysError("its weights are not constant")
    if _rank(x) != 2:
        raise StaysError("its channels are its last axis, not axis 1")
    numbers = _numbers(node, w.shape[1])
    return [Tie((x,), (Place(node, 1, 0),), summed=True), Tie((y,), (Place(node, 1, 1), *numbers))]


def _numbers(node: ir.Node, channels: int) -> list[Place]:
    """bias, b and c of a product: one a channel, or one for all."""
    found = []
    for index, value in enumerate(node.inputs[2:], 2):
        array = constant(value)
        if array is None or array.size not in (1, channels):
            raise StaysError("its bias, b or c is not one constant a channel")
        if array.size > 1:
            found.append(Place(node, index, array.shape.index(channels)))
    return found


def _elementwise(node: ir.Node) -> list[Tie]:
    """Operands that broadcast against each other."""
    out = node.outputs[0]
    dims, values, places = dims_of(out), [out], list[Place]()
    for index, value in enumerate(node.inputs):
        own = dims_of(value)
        if value is None or own is None or dims is None or len(dims) < 2:
            raise StaysError("the channels of its operands are not known")
        axis = 1 - len(dims) + len(own)
        if axis < 0 or own[axis] == 1:
            continue
        if constant(value) is not None:
            places.append(Place(node, index, axis))
        elif axis != 1:
            raise StaysError("its operands differ in rank")
        else:
            values.append(value)
    return [Tie(tuple(dict.fromkeys(values)), tuple(places))]


def _one(node: ir.Node) -> list[Tie]:
    """The first input is data; the others do not depend on the channel."""
    if any(v.name for v in node.outputs[1:]):
        raise StaysError("it has two outputs")
    return [Tie(_data(node))]


def _reduce(node: ir.Node) -> list[Tie]:
    """Over positions only."""
    x, y = _data(node)
    if min(axes_of(node, 1, None, _rank(x)), default=0) < 2:
        raise StaysError("it reduces channels")
    return [Tie((x, y))]


def _slice(node: ir.Node) -> list[Tie]:
    """Of positions only."""
    x, y = _data(node)
    if 1 in axes_of(node, 3, range(2), _rank(x)):
        raise StaysError("it takes some channels")
    return [Tie((x, y))]


def _reshape(node: ir.Node) -> list[Tie]:
    """[N, C, positions] to [N, C, other positions]."""
    x, y = _data(node)
    before, after = dims_of(x), dims_of(y)
    if before is None or after is None or before[:2] != after[:2] or None in before[:2]:
        raise StaysError("it mixes channels and positions")
    return [Tie((x, y))]


def _shape(_: ir.Node) -> list[Tie]:
    """Sizes do not depend on the order."""
    return []


def _data(node: ir.Node) -> tuple[ir.Value, ir.Value]:
    x = node.inputs[0]
    if x is None or constant(x) is not None:
        raise StaysError("its input is constant")
    return x, node.outputs[0]


def _rank(x: ir.Value) -> int:
    dims = dims_of(x)
    if not dims:
        raise StaysError("its rank is not known")
    return len(dims)


_RULES: dict[tuple[str, str], Rule] = {
    (DOMAIN, "Conv"): _conv,
    (DOMAIN, "ConvAccumulate"): _conv,
    (DOMAIN, "Gemm"): _gemm,
    (DOMAIN, "GemmAccumulate"): _gemm,
    **{(DOMAIN, op): _elementwise for op in ("Add", "Mul", "Affine", "Requantize")},
    (DOMAIN, "Table"): _one,
    (DOMAIN, "ReduceMean"): _reduce,
    **{("", op): _elementwise for op in ("Add", "Sub", "Mul", "Max", "Min")},
    **{("", op): _one for op in ("Cast", "Clip", "Identity", "MaxPool")},
    **{("", op): _reduce for op in ("ReduceMax", "ReduceMin", "ReduceSum", "Squeeze")},
    ("", "Slice"): _slice,
    **{("", op): _reshape for op in ("Flatten", "Reshape")},
    ("", "Shape"): _shape,
}
