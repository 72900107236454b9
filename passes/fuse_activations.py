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
from mulshift.passes.base import Pass
from mulshift.passes.float_functions import STANDARD_SINCE, domain_of
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


def fuse_activations(owner: Pass, model: ir.Model) -> None:
    """Replace every piece of two nodes or more that is a known function by its one node; the largest piece wins."""
    graph = model.graph
    order = {node: i for i, node in enumerate(graph)}
    for node in reversed(list(graph)):
        if node.graph is not graph or not _is_elementwise(node):
            continue
        for piece in reversed(list(_pieces(node, order))):
            found = _recognized(piece)
            if found is None:
                continue
            leak = piece.leak()
            if leak is None:
                _replace(owner, model, piece, *found)
                break
            owner.skipped(node, f"{found[0]} of '{piece.root.name}', but '{leak.name}' inside it is read elsewhere too")


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


def _recognized(piece: Piece) -> tuple[str, Mapping[str, Any]] | None:
    first = piece.nodes[-1]
    if len(piece.nodes) == 1 and first.op_type not in _ALONE:
        return None
    y = _evaluate(piece)
    found = None if y is None else recognize(y)
    if found is None or (len(piece.nodes) == 1 and found[0] not in _ALONE[first.op_type]):
        return None
    return found


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


def _replace(owner: Pass, model: ir.Model, piece: Piece, op: str, parameters: Mapping[str, Any]) -> None:
    graph, old = model.graph, piece.nodes[-1]
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
    count = len(piece.nodes)
    owner.changed(old, f"{op} of '{piece.root.name}'" + (f", from {count} nodes" if count > 1 else ""))
    ir.convenience.replace_nodes_and_values(graph, old, piece.nodes, [node], old.outputs, node.outputs)
    for value in read:
        drop_unused(graph, value)


def _bound(graph: ir.Graph, node: ir.Node, key: str, number: float | None) -> ir.Value | None:
    if number is None:
        return None
    dtype = node.outputs[0].dtype
    assert dtype is not None
    return add_initializer(graph, fresh_name(graph, f"{node.outputs[0].name}.{key}"), np.asarray(number, dtype.numpy()))
