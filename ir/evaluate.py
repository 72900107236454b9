"""One node of any level in torch: by its Python reference, the torch table, its function body, or ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import onnx_ir as ir

from mulshift.ir.errors import DataError, UnsupportedError
from mulshift.ir.float_functions import DOMAIN as FLOAT_DOMAIN
from mulshift.ir.metadata import describe
from mulshift.ir.operators import DOMAIN, OPERATORS
from mulshift.ir.ort_node import captures, run_node
from mulshift.ir.tensors import as_array, as_tensor

if TYPE_CHECKING:
    import torch

Lookup: TypeAlias = "Callable[[ir.Value], torch.Tensor]"
Plan: TypeAlias = list[tuple[ir.Node, tuple[ir.Value, ...]]]

_ANY_TYPE = {"Cast", "DequantizeLinear", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}
"""Operators that torch runs on uint16, uint32 and uint64 too, which it can hold but hardly compute with."""


@dataclass
class Evaluator:
    """Runs nodes of one model; keeps what it prepared for each (sessions, function bodies)."""

    model: ir.Model
    _sessions: dict[Any, Any] = field(default_factory=dict, init=False, repr=False)
    _bodies: dict[ir.Node, tuple[ir.Graph, Plan]] = field(default_factory=dict, init=False, repr=False)

    def evaluate(self, node: ir.Node, values: Sequence[Any], lookup: Lookup) -> Sequence[Any]:
        """Outputs of a node, None for those that it leaves out.

        Args:
            values: one a node input, None where it has none.
            lookup: fetches a value that the node's subgraphs capture from outside.

        Raises:
            UnsupportedError: nothing can run the node, or not with gradients.
        """
        if node.domain == DOMAIN and node.op_type in OPERATORS:
            return _reference(node, values)
        made: Any = NotImplemented
        if node.domain == FLOAT_DOMAIN or node.op_identifier() not in self.model.functions:
            made = _torch(node, values)
        if made is not NotImplemented:
            return made if isinstance(made, tuple) else (made,)
        if node.op_identifier() in self.model.functions:
            return self._call(node, values)
        return run_node(self._sessions, node, values, lookup, self.model)

    def _call(self, node: ir.Node, values: Sequence[Any]) -> Sequence[Any]:
        """A model function by its body, in a scope of its own."""
        if node not in self._bodies:
            body = _body(node, self.model.functions[node.op_identifier()])
            self._bodies[node] = (body, last_uses(body))
        graph, plan = self._bodies[node]
        scope: dict[ir.Value, Any] = dict(zip(graph.inputs, values, strict=False))
        scope |= dict.fromkeys(graph.inputs[len(values) :])
        kept = set(graph.outputs)

        def lookup(value: ir.Value) -> Any:
            return scope[value] if value in scope else constant_tensor(value)

        for inner, dead in plan:
            made = self.evaluate(inner, [None if v is None else lookup(v) for v in inner.inputs], lookup)
            scope.update(zip(inner.outputs, made, strict=False))
            for value in dead:
                if value not in kept:
                    scope.pop(value, None)
        return tuple(lookup(v) for v in graph.outputs)


def _reference(node: ir.Node, values: Sequence[Any]) -> tuple[torch.Tensor, ...]:
    attributes = {k: a.value for k, a in node.attributes.items()}
    if any(v is not None and v.requires_grad for v in values):
        raise UnsupportedError(describe(node), "integer operators have no gradient", "train at level QDQ")
    arrays = [None if v is None else as_array(v) for v in values]
    return tuple(as_tensor(made) for made in OPERATORS[node.op_type].run(attributes, *arrays))


def _torch(node: ir.Node, values: Sequence[Any]) -> Any:
    import torch

    from mulshift.ir.torch_ops import TORCH_OPS

    run = TORCH_OPS.get((node.domain, node.op_type))
    if run is None or not all(v is None or isinstance(v, torch.Tensor) for v in values):
        return NotImplemented
    odd = (torch.uint16, torch.uint32, torch.uint64)
    if node.op_type not in _ANY_TYPE and any(v is not None and v.dtype in odd for v in values):
        return NotImplemented
    try:
        return run(node, values)
    except (RuntimeError, ValueError, IndexError, TypeError) as e:
        shapes = ", ".join("-" if v is None else f"{v.dtype}{list(v.shape)}".removeprefix("torch.") for v in values)
        raise DataError(describe(node), f"cannot run on ({shapes}): {str(e).splitlines()[0]}") from e


def _body(node: ir.Node, function: ir.Function) -> ir.Graph:
    """A copy of a function's graph with the call's attributes (or the function's defaults) in place of references."""
    given = {k: a for k, a in function.attributes.items() if a.value is not None} | dict(node.attributes)
    graph = function.graph.clone()
    for inner in graph.all_nodes():
        for key, attr in list(inner.attributes.items()):
            if not attr.is_ref():
                continue
            del inner.attributes[key]
            actual = given.get(str(attr.ref_attr_name))
            if actual is not None:
                inner.attributes[key] = ir.Attr(key, actual.type, actual.value)
    return graph


def constant_tensor(value: ir.Value) -> torch.Tensor:
    """The data of an initializer."""
    tensor = value.const_value
    if tensor is None:
        raise DataError(f"value '{value.name}'", "has no producer and no data")
    return as_tensor(tensor.numpy())


def last_uses(graph: ir.Graph) -> Plan:
    """Each node with the values that nobody needs after it; captures by subgraphs count as uses."""
    last: dict[ir.Value, int] = {}
    nodes = list(graph)
    for i, node in enumerate(nodes):
        for value in reads(node):
            last[value] = i
        for value in node.outputs:
            last.setdefault(value, i)
    dead: list[list[ir.Value]] = [[] for _ in nodes]
    for value, i in last.items():
        dead[i].append(value)
    return [(node, tuple(dead[i])) for i, node in enumerate(nodes)]


def reads(node: ir.Node) -> list[ir.Value]:
    """Inputs of a node and what its subgraphs capture from outside."""
    return [v for v in node.inputs if v is not None] + captures(node)
