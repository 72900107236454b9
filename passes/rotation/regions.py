"""Regions of a graph that one rotation covers, grown from one value by what each node passes on or absorbs."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from mulshift.ir import Array, attribute, constant, users
from mulshift.passes.linear_weights import LINEAR
from mulshift.passes.rotation.ties import ATTENTIONS, JOINS, NORMS, PURE, Place, Rule, is_constant, is_weight, tie
from mulshift.passes.shape_values import dims_of

MARK = "mulshift.rotated"
"""In `metadata_props` of every value that is rotated: how."""


@dataclass(frozen=True)
class Norm:
    """A normalization over the channels: `y = gamma * u + beta`, u = x / rms(x), of x or of x without its mean.

    Attributes:
        gamma, beta: [channels] float64.
        kept: gamma is one number and beta is zero, so they commute with a rotation and stay where they are.
    """

    node: ir.Node
    gamma: Array
    beta: Array

    @property
    def kept(self) -> bool:
        return bool((self.gamma == self.gamma[0]).all() and not self.beta.any())

    @property
    def centred(self) -> bool:
        """Whether it takes the mean away."""
        return self.node.op_type == "LayerNormalization"


@dataclass
class Region:
    """Values that are rotated together, `x R` with R = blockdiag(Q, ..., Q), and who takes part.

    Attributes:
        order: of Q.
        values: value -> axis of the channels.
        makers: linear nodes whose weights absorb R on the output side.
        readers: linear nodes whose weights absorb R^-1 on the input side, and the norm that made what they read.
        constants: (node, input) -> (axis, channels) of constants in the stream.
        norms: normalizations on the way.
        reasons: why it cannot be rotated; empty if it can.
    """

    order: int
    values: dict[ir.Value, int] = field(default_factory=dict)
    makers: dict[ir.Node, None] = field(default_factory=dict)
    readers: dict[ir.Node, Norm | None] = field(default_factory=dict)
    constants: dict[tuple[ir.Node, int], tuple[int, int]] = field(default_factory=dict)
    norms: dict[ir.Node, Norm] = field(default_factory=dict)
    nodes: dict[ir.Node, None] = field(default_factory=dict)
    reasons: list[str] = field(default_factory=list)

    @property
    def centred(self) -> bool:
        """Whether the mean over the channels is taken away by those who make them."""
        return any(norm.centred for norm in self.norms.values())

    @property
    def is_stream(self) -> bool:
        """Whether two of its activations are added, or one is normalized; else it is a chain of linear operators."""
        return any(
            n.op_type in NORMS or (n.op_type == "Add" and sum(v in self.values for v in n.inputs) == 2)
            for n in self.nodes
        )

    def first(self) -> ir.Node:
        """The node by which the region is named."""
        return next(iter(self.nodes))


def grow(graph: ir.Graph, seed: ir.Value, axis: int, order: int, rule: Rule = tie) -> Region:
    """The region of a value that is rotated along an axis in runs of `order`; the reasons say whether it can be.

    Args:
        rule: what a node asks for, where more than rotations passes (permutations).
    """
    region = Region(order)
    queue, visited = [(seed, axis)], set[tuple[ir.Node, bool]]()
    while queue:
        value, axis = queue.pop()
        if value in region.values:
            if region.values[value] != axis:
                region.reasons.append(f"'{value.name}' would be rotated along two axes")
            continue
        region.values[value] = axis
        reason = _unfit(value, axis, order)
        if reason:
            region.reasons.append(reason)
            continue
        node = value.producer()
        for near, made in [*([(node, True)] if node is not None else []), *((n, False) for n in users(value))]:
            if (near, made) not in visited:
                visited.add((near, made))
                queue += _visit(graph, region, near, Place(value, axis, order, made), rule)
    order_of = {n: i for i, n in enumerate(graph)}
    region.nodes = dict.fromkeys(sorted((n for n in region.nodes if n in order_of), key=lambda n: order_of[n]))
    region.reasons = [*_follow_norms(region), *region.reasons]
    return region


def _visit(graph: ir.Graph, region: Region, node: ir.Node, place: Place, rule: Rule) -> list[tuple[ir.Value, int]]:
    """Take a node in; returns the values that are rotated with it."""
    region.nodes[node] = None
    found = f"'{node.name}' reads it in a subgraph" if node.graph is not graph else rule(node, place)
    if isinstance(found, str):
        region.reasons.append(found)
        return []
    if found.makes:
        region.makers[node] = None
    if found.reads:
        region.readers[node] = None
    if found.norm:
        region.norms[node] = _norm(node, region.order)
    region.constants |= {(node, i): (axis, channels) for i, axis, channels in found.constants}
    return list(found.values)


def _unfit(value: ir.Value, axis: int, order: int) -> str:
    dims = dims_of(value)
    if dims is None or not isinstance(dims[axis], int) or int(str(dims[axis])) % order:
        return f"'{value.name}' has another number of channels"
    if value.is_graph_output():
        return f"'{value.name}' is a graph output"
    return f"'{value.name}' is a graph input" if value.producer() is None and not is_constant(value) else ""


def _norm(node: ir.Node, channels: int) -> Norm:
    def vector(index: int, otherwise: float) -> Array:
        array = constant(node.inputs[index]) if len(node.inputs) > index else None
        wide = np.full(1, otherwise) if array is None else array.astype(np.float64).reshape(-1)
        return np.asarray(np.broadcast_to(wide, (channels,)))

    return Norm(node, vector(1, 1.0), vector(2, 0.0))


def _follow_norms(region: Region) -> list[str]:
    """Which norm made what each node reads: its gamma and beta must end in linear operators, unless they commute.

    `gamma * (u Q)` is not `(gamma * u) Q`, so a result that is added to the stream (a norm behind the sum, as in BERT)
    allows no rotation but by a product on the stream itself.
    """
    reasons: list[str] = []
    made_by: dict[ir.Value, Norm | None] = {}
    for node in region.nodes:
        reads = [v for v in node.inputs if v in region.values]
        norms = [made_by[v] for v in dict.fromkeys(reads) if v in made_by]
        makes = [v for v in node.outputs if v in region.values]
        if node in region.readers:
            region.readers[node] = norms[0] if norms else None
        made: Norm | None = None
        if node in region.norms:
            made = region.norms[node]
            reasons += [_blocked(n, node) for n in norms if n is not None and not n.kept]
        elif node.op_type in JOINS:
            reasons += [_blocked(n, node) for n in norms if n is not None and not n.kept]
        elif makes and node not in region.makers and norms:
            made = norms[0]
            if made is not None and made.beta.any() and node.op_type not in PURE:
                reasons.append(f"the bias of '{made.node.name}' does not pass '{node.name}' ({node.op_type})")
        made_by |= dict.fromkeys(makes, made)
    if region.centred:
        plain = [n.node for n in region.norms.values() if not n.centred]
        plain += [n for n, norm in region.readers.items() if norm is None]
        reasons += [f"'{n.name}' reads the mean of the stream, which LayerNormalization gives up" for n in plain]
    return reasons


def _blocked(norm: Norm, at: ir.Node) -> str:
    what = "adds a bias" if (norm.gamma == norm.gamma[0]).all() else "scales channels differently"
    return f"'{norm.node.name}' {what} and its result goes into '{at.name}' ({at.op_type}), not into weights alone"


def stream_regions(graph: ir.Graph, rule: Rule = tie) -> list[Region]:
    """Every region that starts at what a linear operator or an embedding makes, each once; see `grow`."""
    seen: set[ir.Value] = set()
    found: list[Region] = []
    for node in graph:
        start = _start(node)
        if start is None or start[0] in seen:
            continue
        region = grow(graph, *start, rule)
        seen |= region.values.keys()
        found.append(region)
    return found


def _start(node: ir.Node) -> tuple[ir.Value, int, int] | None:
    """(value, axis, order): all channels that a linear operator or an embedding makes."""
    table = node.op_type == "Gather" and is_constant(node.inputs[0]) and attribute(node, "axis", 0) == 0
    row = LINEAR.get(node.op_type)
    if node.domain != "" or not (table or (row is not None and is_weight(node.inputs[1]))):
        return None
    dims = dims_of(node.outputs[0])
    if not dims:
        return None
    axis = (-1 if row is None else row.axis_out) % len(dims)
    order = dims[axis]
    return (node.outputs[0], axis, order) if isinstance(order, int) and order > 1 else None


def head_regions(graph: ir.Graph, rule: Rule = tie) -> list[Region]:
    """Every region of values of heads: what an attention multiplies its probabilities with, in runs of a head."""
    seen: set[ir.Value] = set()
    found: list[Region] = []
    for node in graph:
        product = node.op_type == "MatMul" and node.domain == "" and not any(is_constant(v) for v in node.inputs)
        v = node.inputs[1] if product else node.inputs[2] if node.op_type in ATTENTIONS else None
        dims = dims_of(v)
        if v is None or v in seen or not dims or len(dims) < 3 or not isinstance(dims[-1], int) or dims[-1] < 2:
            continue
        region = grow(graph, v, len(dims) - 1, dims[-1], rule)
        seen |= region.values.keys()
        found.append(region)
    return found
