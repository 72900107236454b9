"""What `smooth` may scale: one activation, the nodes that make it, and the linear operators that read it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import onnx_ir as ir

from mulshift.ir import Array, attribute, constant, rank
from mulshift.ir.float_functions import DOMAIN as FLOAT_DOMAIN
from mulshift.ir.metadata import RANGE
from mulshift.passes.calibrate import EXTREMES
from mulshift.passes.channel_flow import ATTENTIONS, Flow, follow, plain_weight, widened
from mulshift.passes.linear_weights import bias_of, linear_of, renew, set_bias, set_weight, weight_of
from mulshift.passes.outliers import OUTLIERS
from mulshift.passes.shape_values import dims_of


@dataclass(frozen=True, eq=False)
class Operand:
    """An activation as rows of channels.

    Attributes:
        value: the activation.
        axes: that are moved last and flattened to the channels.
        group: which scale each channel has, [channels].
        heads: into how many equal parts the channels fall; products are taken head by head.
    """

    value: ir.Value
    axes: tuple[int, ...]
    group: Array
    heads: int = 1


@dataclass(frozen=True, eq=False)
class Region:
    """Scales s, one a group: x becomes x / s, and what multiplies it becomes larger by s.

    Attributes:
        kind: "norm", "scale" (a product by one number a channel), "linear", "gated", "values" (through the attention's
            product) or "scores" (q against k).
        flows: (flow, group of each of its maker's channels); all are divided by s, but the keys of "scores".
        readers: linear node -> what it reads.
        keys: of "scores": q and k; there are no readers then.
        size: number of groups.
        entry: of "values" and "gated": the factor that is scaled, which is rounded too; and for each reader, which
            channel of that each of its input channels is a multiple of.
    """

    kind: str
    flows: tuple[tuple[Flow, Array], ...]
    readers: dict[ir.Node, Operand]
    keys: tuple[Operand, Operand] | None
    size: int
    entry: tuple[Operand, dict[ir.Node, Array]] | None = None

    @property
    def operands(self) -> list[Operand]:
        """Everything that has to be seen, each once."""
        return list(dict.fromkeys([*self.readers.values(), *(self.keys or ()), *(self.entry or ())[:1]]))


Skip = Callable[[ir.Node, str], None]


def find_regions(graph: ir.Graph, skip: Skip) -> list[Region]:
    """All regions in graph order; `skip` gets each maker that has none, and why. No reader is in two of them."""
    order = {node: i for i, node in enumerate(graph)}
    found: list[Region] = []
    claimed: set[ir.Node] = set()
    halves: dict[ir.Node, dict[int, Flow]] = {}
    for node, flow in _flows(graph, order, skip):
        ends = [*flow.readers, *(n for n, _ in flow.scores)]
        if not ends:
            skip(node, "no linear operator reads what it makes")
        elif flow.scores and len(ends) > 1:
            skip(node, f"its channels go both to the scores '{flow.scores[0][0].name}' and elsewhere")
        elif claimed & set(flow.readers) or (flow.scores and flow.scores[0][1] in halves.get(ends[0], {})):
            skip(node, f"what '{ends[0].name}' reads is scaled by another node before it")
        elif flow.scores:
            halves.setdefault(ends[0], {})[flow.scores[0][1]] = flow
        else:
            claimed |= set(flow.readers)
            found.append(_linear_region(flow))
    for product, sides in halves.items():
        region = _score_region(product, sides)
        if isinstance(region, Region):
            found.append(region)
        else:
            for flow in sides.values():
                skip(flow.maker, region)
    return found


def _flows(graph: ir.Graph, order: dict[ir.Node, int], skip: Skip) -> Iterator[tuple[ir.Node, Flow]]:
    for node in graph:
        start = _maker(node)
        flow = start if start is None or isinstance(start, str) else follow(node, *start, order)
        if isinstance(flow, str):
            skip(node, flow)
        elif flow is not None:
            yield node, flow


NORMS = {
    ("", "LayerNormalization"),
    ("", "RMSNormalization"),
    (FLOAT_DOMAIN, "RMSNormalization"),
    (FLOAT_DOMAIN, "LayerNormalization"),
}


def _maker(node: ir.Node) -> tuple[int, int] | str | None:
    """Channels and their axis of a node that can absorb scales; why it cannot; None for any other node."""
    if (node.domain, node.op_type) in NORMS:
        scale, n = constant(node.inputs[1]), rank(node.inputs[0])
        if scale is None or any(v is not None and constant(v) is None for v in node.inputs[2:]):
            return "its scale or bias is not constant"
        if n is None or scale.ndim != 1 or attribute(node, "axis", -1) not in (-1, n - 1):
            return "it normalizes over more than the last axis"
        return scale.size, -1
    row = linear_of(node)
    if row is None and node.op_type == "Mul" and node.domain == "":
        scale, shape = constant(node.inputs[1]), node.outputs[0].shape
        fits = scale is not None and scale.ndim == 1 and scale.size > 1 and shape is not None and len(shape) > 1
        return (scale.size, -1) if scale is not None and fits else None
    if row is None:
        return None
    w = plain_weight(node)
    if w is None or bias_of(node, row, row.outputs(node, w)) is None:
        return "its weights or its bias are not constant"
    return row.outputs(node, w), row.axis_out


_KINDS = {"Mul": "scale"}


def _linear_region(flow: Flow) -> Region:
    label = _groups(flow.channels, flow.bound)
    readers: dict[ir.Node, Operand] = {}
    known: dict[tuple[ir.Value, int], Operand] = {}
    for node, channel in flow.readers.items():
        row, value = linear_of(node), node.inputs[0]
        assert row is not None and value is not None
        axis = row.axis_in(node) % flow.tags[value].ndim
        readers[node] = known.setdefault((value, axis), Operand(value, (axis,), label[channel]))
    norm = (flow.maker.domain, flow.maker.op_type) in NORMS
    kind = (
        "values"
        if "product" in flow.passed
        else "gated"
        if "gate" in flow.passed
        else "norm"
        if norm
        else _KINDS.get(flow.maker.op_type, "linear")
    )
    return Region(kind, ((flow, label),), readers, None, int(label.max(initial=-1)) + 1, _entry(flow, label))


def _entry(flow: Flow, label: Array) -> tuple[Operand, dict[ir.Node, Array]] | None:
    value = flow.passed.get("product", flow.passed.get("gate"))
    if value is None:
        return None
    tag = flow.tags[value]
    axes = tuple(i for i, d in enumerate(tag.shape) if d > 1) or (tag.ndim - 1,)
    channel = tag.reshape(-1)
    place = np.zeros(flow.channels, np.int64)
    place[channel] = np.arange(channel.size)
    return Operand(value, axes, label[channel]), {node: place[read] for node, read in flow.readers.items()}


def _score_region(product: ir.Node, sides: dict[int, Flow]) -> Region | str:
    """`q k^T = (q S^-1) (k S)^T`; q and k channels that meet share a scale, and so do those that either side binds."""
    if len(sides) < 2:
        return f"the other operand of '{product.name}' cannot take the scales back"
    q, k = sides[0], sides[1]
    if q.readers or k.readers:
        return f"its channels go both to the scores '{product.name}' and elsewhere"
    left, right = (_by_head(product, i, sides[i].tags) for i in (0, 1))
    if isinstance(left, str) or isinstance(right, str):
        return left if isinstance(left, str) else str(right)
    (value_q, axes_q, heads_q, tag_q), (value_k, axes_k, heads_k, tag_k) = left, right
    if heads_q % heads_k or tag_q.shape[1] != tag_k.shape[1]:
        return f"the heads of '{product.name}' do not match"
    shifted = [(a + q.channels, b + q.channels) for a, b in k.bound]
    met = (tag_q, tag_k.repeat(heads_q // heads_k, 0) + q.channels)
    label = _groups(q.channels + k.channels, [*q.bound, *shifted, met])
    both = (
        Operand(value_q, axes_q, label[tag_q].reshape(-1), heads_q),
        Operand(value_k, axes_k, label[tag_k + q.channels].reshape(-1), heads_k),
    )
    flows = ((q, label[: q.channels]), (k, label[q.channels :]))
    return Region("scores", flows, {}, both, int(label.max()) + 1)


ByHead: TypeAlias = tuple[ir.Value, tuple[int, ...], int, Array]


def _by_head(product: ir.Node, index: int, tags: Mapping[ir.Value, Array]) -> ByHead | str:
    """One operand of a score product: axes of heads and channels, number of heads, the tag as [heads, dim]."""
    value = product.inputs[index]
    assert value is not None
    tag, dims, fused = tags[value], dims_of(value), product.op_type in ATTENTIONS
    inner = tag.ndim - (1 if fused or index == 0 else 2)
    head = 2 if fused else tag.ndim - 3
    dim, heads = None if dims is None else dims[inner], None if dims is None or head < 0 else dims[head]
    if not isinstance(dim, int):
        return f"the shape of '{value.name}' is not known"
    if not isinstance(heads, int) or (tag.ndim == 3 and tag.shape[head] == 1):
        head, heads = -1, 1  # rows of all batches alike
    if any(d > 1 for i, d in enumerate(tag.shape) if i not in (head, inner)):
        return f"scales vary over more than the heads and channels of '{value.name}'"
    if head < 0:
        return value, (inner,), 1, np.broadcast_to(tag.reshape(1, -1), (1, dim))
    plain = np.moveaxis(tag, (head, inner), (-2, -1)).reshape(tag.shape[head], tag.shape[inner])
    return value, (head, inner), heads, np.broadcast_to(plain, (heads, dim))


def _groups(channels: int, bound: list[tuple[Array, Array]]) -> Array:
    """Consecutive numbers, the same for channels that are bound directly or through others: [channels]."""
    label = np.arange(channels)
    before = None
    while before is None or (label != before).any():
        before = label.copy()
        for a, b in bound:
            least = np.minimum(label[a], label[b])
            np.minimum.at(label, a, least)
            np.minimum.at(label, b, least)
    return np.unique(label, return_inverse=True)[1]


# Writing --------------------------------------------------------------------------------------------------------------


def write(graph: ir.Graph, region: Region, s: Array) -> None:
    """Divide what the region's makers make by s, and multiply what reads it; s: [size]."""
    for k, (flow, label) in enumerate(region.flows):
        _scale_maker(graph, flow, s[label] if region.keys is not None and k == 1 else 1 / s[label])
    for node, operand in region.readers.items():
        row, w = linear_of(node), weight_of(node)
        assert row is not None and w is not None
        set_weight(graph, node, row.scale_in(node, w, s[operand.group]))


def _scale_maker(graph: ir.Graph, flow: Flow, factor: Array) -> None:
    """factor: [channels]. Constants added on the way, and calibrated ranges, follow."""
    node = flow.maker
    row, w = linear_of(node), weight_of(node)
    if row is None:
        for index in range(1, len(node.inputs)):
            _scale_constant(graph, node, index, factor)
    else:
        assert w is not None
        bias = bias_of(node, row, flow.channels)
        set_weight(graph, node, row.scale_out(node, w, factor))
        if bias is not None and row.bias is not None and len(node.inputs) > row.bias:
            set_bias(graph, node, row, bias * factor)
    for shift, index in flow.shifts:
        tag = flow.tags[shift.inputs[1 - index]]  # type: ignore[index]
        _scale_constant(graph, shift, index, factor[tag])
    for value in flow.tags:
        value.metadata_props.pop(RANGE, None)
        value.metadata_props.pop(EXTREMES, None)
        value.metadata_props.pop(OUTLIERS, None)


def _scale_constant(graph: ir.Graph, node: ir.Node, index: int, factor: Array) -> None:
    value, c = node.inputs[index], constant(node.inputs[index])
    if value is None or c is None:
        return
    n = max(c.ndim, factor.ndim)
    new = widened(c.astype(np.float64), n) * widened(factor, n)
    while new.ndim > c.ndim and new.shape[0] == 1:
        new = new[0]
    if new.shape != c.shape or (new != c).any():  # zeros stay shared
        renew(graph, node, index, new, str(value.name))
