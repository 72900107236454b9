"""Where the output channels of a node go: which channel of its maker every element downstream is a multiple of.

A tag is an int64 array of the rank of a value, with 1 where it does not vary: `tag[i]` is the channel of the maker that
element i is proportional to. If channel c is scaled by f_c, element i is scaled by f_tag[i], as long as only operators
of the table below lie between: they move elements, or are positively homogeneous in the tagged ones.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import onnx_ir as ir

from mulshift.ir import Array, attribute, constant, ints, rank, users
from mulshift.ir.float_functions import DOMAIN as FLOAT_DOMAIN
from mulshift.passes.linear_weights import linear_of
from mulshift.passes.shape_values import Dim, dims_of

ATTENTIONS = ("Attention", "MaskedAttention")
"""`softmax(scale * q k^T) v`, without and with a mask: one node of our domain, [B, S, heads, dim]."""


@dataclass(eq=False)
class Flow:
    """What becomes of the output channels of one node, up to the linear operators and score products that read them.

    Attributes:
        maker: the node.
        channels: how many it makes.
        tags: value -> tag, the maker's own output first.
        bound: pairs of equally shaped arrays of channels that must share a scale (rotary embedding adds two channels).
        shifts: (Add or Sub, index of its constant), which has to be scaled with the rest.
        readers: linear node -> channel that each of its input channels is a multiple of.
        scores: (product of two activations, operand index) whose sum runs over tagged channels: `q k^T`.
        passed: what lies between, of "product" and "gate", and the tagged value that enters it.
    """

    maker: ir.Node
    channels: int
    tags: dict[ir.Value, Array] = field(default_factory=dict)
    bound: list[tuple[Array, Array]] = field(default_factory=list)
    shifts: list[tuple[ir.Node, int]] = field(default_factory=list)
    readers: dict[ir.Node, Array] = field(default_factory=dict)
    scores: list[tuple[ir.Node, int]] = field(default_factory=list)
    passed: dict[str, ir.Value] = field(default_factory=dict)


def follow(maker: ir.Node, channels: int, axis: int, order: Mapping[ir.Node, int]) -> Flow | str:
    """The flow of `channels` along `axis` of the maker's first output, or why scales cannot follow it.

    Args:
        order: position of every node of the graph.
    """
    out, n = maker.outputs[0], rank(maker.outputs[0])
    if n is None:
        return "the rank of its output is unknown"
    flow = Flow(maker, channels)
    flow.tags[out] = np.arange(channels).reshape([channels if i == axis % n else 1 for i in range(n)])
    fresh, queued, queue = [out], set[ir.Node](), list[tuple[int, ir.Node]]()
    while True:
        for value in fresh:
            if value.is_graph_output():
                return f"'{value.name}' is a graph output"
            for node in users(value):
                if node not in order:
                    return f"a subgraph reads '{value.name}'"
                if node not in queued:
                    queued.add(node)
                    heapq.heappush(queue, (order[node], node))
        if not queue:
            return flow
        made = _step(flow, heapq.heappop(queue)[1])
        if isinstance(made, str):
            return made
        fresh = made


def _step(flow: Flow, node: ir.Node) -> list[ir.Value] | str:
    """Tag the outputs of a node that reads tagged values; the outputs, or why scales cannot pass."""
    tags = [None if v is None else flow.tags.get(v) for v in node.inputs]
    if linear_of(node) is not None:
        return _read(flow, node, tags) or []
    rule = RULES.get((node.domain, node.op_type))
    made = f"scales do not pass '{node.name}' ({node.op_type})" if rule is None else rule(flow, node, tags)
    if isinstance(made, str):
        return made
    found = [(v, t) for v, t in zip(node.outputs, made, strict=False) if v.name != "" or v.uses()]
    flow.tags.update((v, _narrow(t)) for v, t in found)
    return [v for v, _ in found]


def _read(flow: Flow, node: ir.Node, tags: Sequence[Array | None]) -> str:
    """Record a linear reader; why it is none, if so."""
    row, w, tag = linear_of(node), plain_weight(node), tags[0]
    if row is None or w is None or tag is None or any(t is not None for t in tags[1:]):
        return f"'{node.name}' ({node.op_type}) has no constant weights"
    if w.ndim > 2 and (node.op_type != "Conv" or attribute(node, "group", 1) != 1 or any(k != 1 for k in w.shape[2:])):
        return f"'{node.name}' ({node.op_type}) is no plain matrix product"
    axis = row.axis_in(node) % tag.ndim
    if any(d > 1 for i, d in enumerate(tag.shape) if i != axis):
        return f"scales vary over more than the channels of '{node.name}'"
    flow.readers[node] = np.broadcast_to(tag.reshape(-1), (row.inputs(node, w),))
    return ""


def plain_weight(node: ir.Node) -> Array | None:
    """W of a linear node as it is stored, None if it is not a constant of rank 2 or more."""
    w = constant(node.inputs[1])
    return w if w is not None and w.ndim >= 2 and w.dtype.kind == "f" else None


def _narrow(tag: Array) -> Array:
    """With 1 for every axis along which it does not vary."""
    for axis in range(tag.ndim):
        first = tag.take([0], axis)
        if tag.shape[axis] > 1 and (tag == first).all():
            tag = first
    return tag


def widened(tag: Array, n: int) -> Array:
    """With leading ones to rank n, as in broadcasting."""
    return tag.reshape((1,) * (n - tag.ndim) + tag.shape)


# Operators: (flow, node, tags of the inputs) -> tags of the outputs, or why scales cannot pass ------------------------

Made: TypeAlias = "list[Array] | str"
Tags: TypeAlias = "Sequence[Array | None]"


def _fails(node: ir.Node, why: str) -> str:
    return f"'{node.name}' ({node.op_type}) {why}"


def _only_first(node: ir.Node, tags: Tags) -> Array | str:
    tag = tags[0] if tags else None
    others = any(t is not None for t in tags[1:])
    return _fails(node, "reads it as more than its data") if tag is None or others else tag


def _same(flow: Flow, node: ir.Node, tags: Tags) -> Made:
    """Positively homogeneous, each element for itself."""
    tag = _only_first(node, tags)
    return tag if isinstance(tag, str) else [tag]


def _shape(flow: Flow, node: ir.Node, tags: Tags) -> Made:
    """Scales do not change a shape."""
    return []


def _prelu(flow: Flow, node: ir.Node, tags: Tags) -> Made:
    return _same(flow, node, tags) if constant(node.inputs[1]) is not None else _fails(node, "has a computed slope")


def _pool(flow: Flow, node: ir.Node, tags: Tags) -> Made:
    tag = _only_first(node, tags)
    if isinstance(tag, str):
        return tag
    return [tag] if all(d == 1 for d in tag.shape[2:]) else _fails(node, "mixes channels")


def _reduce(flow: Flow, node: ir.Node, tags: Tags) -> Made:
    tag, axes = _only_first(node, tags), constant(node.inputs[1]) if len(node.inputs) > 1 else None
    if isinstance(tag, str):
        return tag
    over = tuple(int(a) % tag.ndim for a in axes.reshape(-1)) if axes is not None else ()
    if not over or any(tag.shape[a] > 1 for a in over):
        return _fails(node, "mixes channels")
    return [tag if attribute(node, "keepdims", 1) else tag.squeeze(over)]


def _transpose(flow: Flow, node: ir.Node, tags: Tags) -> Made:
    tag = _only_first(node, tags)
    return tag if isinstance(tag, str) else [tag.transpose(ints(node, "perm") or range(tag.ndim)[::-1])]


def _reshape(flow: Flow, node: ir.Node, tags: Tags) -> Made:
    tag = _only_first(node, tags)
    if isinstance(tag, str):
        return tag
    moved = reshaped_tag(tag, dims_of(node.inputs[0]), dims_of(node.outputs[0]))
    return _fails(node, "changes a shape that is not known well enough") if moved is None else [moved]


def reshaped_tag(tag: Array, source: Sequence[Dim] | None, target: Sequence[Dim] | None) -> Array | None:
    """The tag of a tensor of shape `source` once that is reshaped to `target`.

    Dynamic dimensions must come in the same order on both sides, with products of the same size between them (at most
    one may be unnamed: it is the same on both sides since all others are); the tag must not vary along them.
    """
    if source is None or target is None:
        return None
    names = [[d for d in dims if not isinstance(d, int)] for dims in (source, target)]
    if names[0] != names[1] or names[0].count(None) > 1 or _blocks(source) != _blocks(target):
        return None
    wide = np.broadcast_to(tag, [d if isinstance(d, int) else 1 for d in source])
    return np.asarray(wide.reshape([d if isinstance(d, int) else 1 for d in target]))


def _blocks(dims: Sequence[Dim]) -> list[int]:
    """Products of the numbers between dynamic dimensions."""
    found = [1]
    for d in dims:
        if isinstance(d, int):
            found[-1] *= d
        else:
            found.append(1)
    return found


def _expand(flow: Flow, node: ir.Node, tags: Tags) -> Made:
    tag, n = _only_first(node, tags), rank(node.outputs[0])
    if isinstance(tag, str):
        return tag
    return _fails(node, "makes an unknown rank") if n is None else [widened(tag, n)]


def _slice(flow: Flow, node: ir.Node, tags: Tags) -> Made:
    tag = _only_first(node, tags)
    if isinstance(tag, str):
        return tag
    starts, ends, axes, steps = [*(constant(v) for v in node.inputs[1:]), None, None, None][:4]
    if starts is None or ends is None or (len(node.inputs) > 3 and axes is None):
        varying = any(d > 1 for d in tag.shape)
        return _fails(node, "has computed bounds") if varying else [tag]
    over = range(len(starts)) if axes is None else [int(a) % tag.ndim for a in axes]
    for k, axis in enumerate(over):
        step = 1 if steps is None else int(steps[k])
        if tag.shape[axis] == 1:
            continue
        if step < 1:
            return _fails(node, "runs backwards")
        tag = tag[(slice(None),) * axis + (slice(int(starts[k]), int(ends[k]), step),)]
    return [tag]


def _gather(flow: Flow, node: ir.Node, tags: Tags) -> Made:
    """Whole slices: a token, an image."""
    tag, n = _only_first(node, tags), rank(node.inputs[1])
    if isinstance(tag, str):
        return tag
    axis = attribute(node, "axis", 0) % tag.ndim
    if n is None or tag.shape[axis] > 1:
        return _fails(node, "picks channels")
    return [tag.reshape((*tag.shape[:axis], *(1,) * n, *tag.shape[axis + 1 :]))]


def _split(flow: Flow, node: ir.Node, tags: Tags) -> Made:
    tag, axis = _only_first(node, tags), attribute(node, "axis", 0)
    if isinstance(tag, str):
        return tag
    if tag.shape[axis] == 1:
        return [tag] * len(node.outputs)
    sizes = [(dims_of(v) or ())[axis : axis + 1 or None] for v in node.outputs]
    if any(len(s) != 1 or not isinstance(s[0], int) for s in sizes):
        return _fails(node, "makes parts of unknown sizes")
    ends = np.cumsum([int(s[0]) for s in sizes])  # type: ignore[arg-type]
    return list(np.split(tag, ends[:-1], axis))


def _concat(flow: Flow, node: ir.Node, tags: Tags) -> Made:
    axis = attribute(node, "axis", 0)
    found = [t for t in tags if t is not None]
    sizes = [(dims_of(v) or ())[axis : axis + 1 or None] for v in node.inputs]
    if len(found) != len(tags):
        return _fails(node, "joins it with others")
    if any(len(s) != 1 or not isinstance(s[0], int) for s in sizes):
        return _fails(node, "joins parts of unknown sizes")
    shape = np.broadcast_shapes(*((*t.shape[:axis], *t.shape[axis % t.ndim + 1 :]) for t in found))
    parts = []
    for tag, size in zip(found, sizes, strict=True):
        full = list(shape)
        full.insert(axis % tag.ndim, int(size[0]))  # type: ignore[arg-type]
        parts.append(np.broadcast_to(tag, full))
    return [np.concatenate(parts, axis)]


def _add(flow: Flow, node: ir.Node, tags: Tags) -> Made:
    """A constant is scaled with the rest; two tagged operands must have the same scales."""
    n = rank(node.outputs[0])
    a, b = tags[:2]
    if n is None:
        return _fails(node, "makes an unknown rank")
    if a is not None and b is not None:
        both = np.broadcast_arrays(widened(a, n), widened(b, n))
        flow.bound.append((both[0], both[1]))
        return [np.asarray(both[0])]
    tag, index = (a, 1) if a is not None else (b, 0)
    assert tag is not None
    if constant(node.inputs[index]) is None:
        return _fails(node, f"adds '{node.inputs[1 - index].name}' to something else")  # type: ignore[union-attr]
    flow.shifts.append((node, index))
    return [widened(tag, n)]


def _mul(flow: Flow, node: ir.Node, tags: Tags) -> Made:
    """Linear in one factor; a quotient in its numerator."""
    n, tagged = rank(node.outputs[0]), [i for i, t in enumerate(tags) if t is not None]
    if n is None or len(tagged) != 1 or (node.op_type == "Div" and tagged != [0]):
        return _fails(node, "is not linear in it")
    if constant(node.inputs[1 - tagged[0]]) is None:
        flow.passed.setdefault("gate", node.inputs[tagged[0]])  # type: ignore[arg-type]
    return [widened(t, n) for t in tags if t is not None]


def _product(flow: Flow, node: ir.Node, tags: Tags) -> Made:
    """Of two activations: the sum over the inner axis either leaves the scales alone or is what they cancel in."""
    n, (a, b) = rank(node.outputs[0]), tags[:2]
    tag, index = (a, 0) if a is not None else (b, 1)
    if tag is None or (a is not None and b is not None) or n is None or tag.ndim < 2:
        return _fails(node, "is not linear in it")
    inner, outer = (-1, -2) if index == 0 else (-2, -1)
    if tag.shape[inner] == 1:
        flow.passed.setdefault("product", node.inputs[index])  # type: ignore[arg-type]
        return [widened(tag, n)]
    if tag.shape[outer] > 1:
        return _fails(node, "sums over scales that vary along its other axis")
    flow.scores.append((node, index))
    return []


def _attention(flow: Flow, node: ir.Node, tags: Tags) -> Made:
    """`(q, k, v[, mask])`, [B, S, heads, dim]; query head h reads head `h * kv heads // heads` of keys and values."""
    tagged = [i for i, t in enumerate(tags) if t is not None]
    tag, heads = tags[tagged[0]], (dims_of(node.outputs[0]) or (None,) * 4)[2]
    if len(tagged) != 1 or tag is None or tagged[0] > 2 or tag.ndim != 4 or tag.shape[:2] != (1, 1):
        return _fails(node, "is not linear in it")
    if tagged[0] < 2:
        flow.scores.append((node, tagged[0]))
        return []
    flow.passed.setdefault("product", node.inputs[2])  # type: ignore[arg-type]
    if tag.shape[2] == 1:
        return [tag]
    return [tag.repeat(heads // tag.shape[2], 2)] if isinstance(heads, int) else _fails(node, "has unknown heads")


def _rotary(flow: Flow, node: ir.Node, tags: Tags) -> Made:
    """`RotaryEmbedding(x, cos, sin)` turns the plane of channels j and j + dim / 2."""
    tag = _only_first(node, tags)
    if isinstance(tag, str) or tag.shape[-1] == 1:
        return tag if isinstance(tag, str) else [tag]
    flow.bound.append((tag, np.roll(tag, tag.shape[-1] // 2, -1)))
    return [tag]


RULES: dict[tuple[str, str], Callable[[Flow, ir.Node, Tags], Made]] = {
    **{("", op): _same for op in ("Identity", "Neg", "Relu", "LeakyRelu", "Abs")},
    **{("", op): _pool for op in ("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool")},
    **{("", op): _reduce for op in ("ReduceMean", "ReduceSum", "ReduceMax")},
    **{("", op): _reshape for op in ("Reshape", "Flatten", "Squeeze", "Unsqueeze")},
    **{("", op): _add for op in ("Add", "Sub")},
    **{("", op): _mul for op in ("Mul", "Div")},
    **{("", op): _shape for op in ("Shape", "Size")},
    ("", "PRelu"): _prelu,
    ("", "Transpose"): _transpose,
    ("", "Expand"): _expand,
    ("", "Slice"): _slice,
    ("", "Gather"): _gather,
    ("", "Split"): _split,
    ("", "Concat"): _concat,
    ("", "MatMul"): _product,
    **{(FLOAT_DOMAIN, op): _attention for op in ATTENTIONS},
    (FLOAT_DOMAIN, "RotaryEmbedding"): _rotary,
}
