"""Find activation functions that an exporter took apart, by what they compute and not by how they are written.

From each elementwise node the graph is followed back while everything leads to one tensor. That piece, evaluated in
float64 on a grid, is compared with the real functions in `fuse_functions`: the order of operands, Pow or Mul, Div or
Mul by the reciprocal, split or joined constants make no difference, and nothing else can be taken for a GELU.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from mulshift.ir import Array, add_initializer, constant, fresh_name, inherit_origin, is_float, rank, scalar
from mulshift.ir.float_functions import STANDARD_SINCE, domain_of
from mulshift.passes.base import Pass
from mulshift.passes.fuse_functions import GRID, recognize
from mulshift.passes.linear_weights import drop_unused

_ELEMENTWISE = frozenset(
    "Abs Add Clip Div Elu Erf Exp Greater GreaterOrEqual HardSigmoid HardSwish LeakyRelu Less LessOrEqual Log Max Min"
    " Mul Neg Pow Reciprocal Relu Sigmoid Softplus Sqrt Sub Tanh Where".split()
)
_ALONE = {"Max": ("Relu", "Clip"), "Min": ("Clip",), "Clip": ("Relu",)}
"""One node is replaced too where the new operator is simpler to lower."""
_LARGEST = 16


@dataclass(frozen=True, eq=False)
class Piece:
    """Elementwise nodes between one tensor and one result.

    Attributes:
        root: the tensor.
        nodes: in order of evaluation; the last makes the result.
    """

    root: ir.Value
    nodes: list[ir.Node]

    def leak(self) -> ir.Value | None:
        """A value inside that something outside reads, None if there is none."""
        inside = set(self.nodes)
        for value in (v for node in self.nodes[:-1] for v in node.outputs):
            if value.is_graph_output() or any(use.node not in inside for use in value.uses()):
                return value
        return None


@dataclass(frozen=True, eq=False)
class Activation(Piece):
    """A piece that is a known function: a row of `fuse_functions` and its parameters."""

    op: str
    parameters: Mapping[str, Any]

    def name(self) -> str:
        """For reports."""
        return f"{self.op} of '{self.root.name}'" + (f", from {len(self.nodes)} nodes" if len(self.nodes) > 1 else "")


def fuse_activations(owner: Pass, model: ir.Model) -> None:
    """Replace every piece that is a known function by its one node; the largest piece wins."""
    for found in find_activations(model.graph):
        leak = found.leak()
        if leak is None:
            _replace(owner, model, found)
        else:
            owner.skipped(found.nodes[-1], f"{found.name()}, but '{leak.name}' inside it is read elsewhere too")


def nodes_of_activations(graph: ir.Graph) -> set[ir.Node]:
    """The nodes that `fuse_activations` would replace: what other passes leave together."""
    return {node for found in find_activations(graph) if found.leak() is None for node in found.nodes}


def find_activations(graph: ir.Graph) -> Iterator[Activation]:
    """Known functions of two nodes or more (or one that can be simpler), last first; none inside a larger one.

    One that leaks is given too, and then what is found inside it. The caller may replace what it gets.
    """
    order = {node: i for i, node in enumerate(graph)}
    taken: set[ir.Node] = set()
    for node in reversed(list(graph)):
        if node in taken or not _is_elementwise(node):
            continue
        for piece in reversed(list(_pieces(node, order))):
            found = _recognized(piece)
            if found is None:
                continue
            whole = found.leak() is None
            taken.update(found.nodes if whole else ())
            yield found
            if whole:
                break


def _is_elementwise(node: ir.Node) -> bool:
    return node.domain == "" and node.op_type in _ELEMENTWISE and len(node.outputs) == 1 and is_float(node.outputs[0])


def _pieces(last: ir.Node, order: Mapping[ir.Node, int]) -> Iterator[Piece]:
    """The pieces that end in a node, small to large."""
    nodes: set[ir.Node] = set()
    frontier: dict[ir.Value, None] = {last.outputs[0]: None}
    while len(nodes) < _LARGEST:
        makers = {v: v.producer() for v in frontier}
        open_ = [v for v, p in makers.items() if p in order and _joins(p, last)]
        if not open_:
            return
        value = max(open_, key=lambda v: order[makers[v]])  # type: ignore[index]
        node = makers[value]
        assert node is not None
        del frontier[value]
        nodes.add(node)
        for v in node.inputs:
            if v is not None and constant(v) is None:
                frontier[v] = None
            elif v is not None and (scalar(v) is None or not _fits(v, last)):
                return
        if len(frontier) == 1 and is_float(root := next(iter(frontier))) and rank(root) == rank(last.outputs[0]):
            yield Piece(root, sorted(nodes, key=order.__getitem__))


def _joins(node: ir.Node | None, last: ir.Node) -> bool:
    return node is not None and node.domain == "" and node.op_type in _ELEMENTWISE and len(node.outputs) == 1


def _fits(c: ir.Value, last: ir.Node) -> bool:
    """Whether a constant of one element keeps the result's rank."""
    n, m = rank(c), rank(last.outputs[0])
    return n == 0 or (n is not None and m is not None and n <= m)


def _recognized(piece: Piece) -> Activation | None:
    first = piece.nodes[-1]
    if len(piece.nodes) == 1 and first.op_type not in _ALONE:
        return None
    y = _evaluate(piece)
    found = None if y is None else recognize(y)
    if found is None or (len(piece.nodes) == 1 and found[0] not in _ALONE[first.op_type]):
        return None
    if found[0] == "HardSigmoid" and first.op_type in _ALONE:
        return None  # an affine function and a Clip: both go into the operator before, which a HardSigmoid does not
    return Activation(piece.root, piece.nodes, *found)


def _evaluate(piece: Piece) -> Array | None:
    """The piece on GRID in float64; None if the torch table lacks a node."""
    import torch

    from mulshift.ir.torch_ops import TORCH_OPS

    env: dict[ir.Value, Any] = {piece.root: torch.from_numpy(GRID)}

    def lookup(value: ir.Value | None) -> Any:
        if value is None or value in env:
            return None if value is None else env[value]
        number = constant(value)
        assert number is not None
        real = number.astype(np.float64) if number.dtype.kind == "f" else number
        return torch.from_numpy(real.reshape(()).copy())

    for node in piece.nodes:
        run = TORCH_OPS.get(("", node.op_type))
        made = NotImplemented if run is None else run(node, [lookup(v) for v in node.inputs])
        if made is NotImplemented:
            return None
        env[node.outputs[0]] = made[0] if isinstance(made, tuple) else made
    result = env[piece.nodes[-1].outputs[0]]
    return np.asarray(result.numpy(), np.float64) if tuple(result.shape) == GRID.shape else None


def _replace(owner: Pass, model: ir.Model, piece: Activation) -> None:
    graph, old, op, parameters = model.graph, piece.nodes[-1], piece.op, piece.parameters
    domain = domain_of(model, op) if op in STANDARD_SINCE else ""
    inputs: list[ir.Value | None] = [piece.root]
    attributes: Mapping[str, Any] = parameters
    if op == "Clip":
        attributes = {}
        inputs += [_bound(graph, old, key, number) for key, number in parameters.items()]
        while inputs[-1] is None:
            inputs.pop()
    node = ir.node(op, inputs, attributes, domain=domain, name=old.name)
    inherit_origin([node], piece.nodes)
    node.outputs[0].metadata_props.update(old.outputs[0].metadata_props)
    read = [v for inner in piece.nodes for v in inner.inputs]
    owner.changed(old, piece.name())
    ir.convenience.replace_nodes_and_values(graph, old, piece.nodes, [node], old.outputs, node.outputs)
    for value in read:
        drop_unused(graph, value)


def _bound(graph: ir.Graph, node: ir.Node, key: str, number: float | None) -> ir.Value | None:
    if number is None:
        return None
    dtype = node.outputs[0].dtype
    assert dtype is not None
    return add_initializer(graph, fresh_name(graph, f"{node.outputs[0].name}.{key}"), np.asarray(number, dtype.numpy()))
