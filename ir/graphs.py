"""Small questions and edits that every pass needs on an onnx_ir graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from mulshift.ir.types import Array


def constant(value: ir.Value | None) -> Array | None:
    """The numbers of an initializer or Constant node, or None if the value is not constant.

    A graph input with a default (an initializer that is also an input) is not constant.
    """
    if value is None or value.is_graph_input():
        return None
    tensor = ir.convenience.get_const_tensor(value)
    return None if tensor is None else tensor.numpy()


def scalar(value: ir.Value | None) -> float | None:
    """A constant with one element, as a float, else None."""
    array = constant(value)
    return float(array.reshape(-1)[0]) if array is not None and array.size == 1 else None


def users(value: ir.Value) -> tuple[ir.Node, ...]:
    """The nodes that read a value, in graph order of their use list, each once."""
    return tuple(dict.fromkeys(use.node for use in value.uses()))


def sole_user(value: ir.Value) -> ir.Node | None:
    """The node that alone reads a value; None if several do, if it is a graph output too, or if a subgraph reads it."""
    if value.is_graph_output():
        return None
    found = users(value)
    return found[0] if len(found) == 1 and found[0].graph is value.graph else None


def fresh_name(graph: ir.Graph, base: str) -> str:
    """`base`, or `base_1`, `base_2`, ... : a value name not yet used in the graph or its subgraphs."""
    taken = {v.name for v in graph.inputs} | set(graph.initializers)
    taken |= {v.name for n in graph.all_nodes() for v in n.outputs}
    if base not in taken:
        return base
    return next(f"{base}_{i}" for i in range(1, len(taken) + 2) if f"{base}_{i}" not in taken)


def add_initializer(graph: ir.Graph, base: str, array: Array) -> ir.Value:
    """A new initializer with a fresh name made from `base`; never changes an existing one."""
    name = base if base not in graph.initializers else None
    if name is None or any(v.name == base for v in graph.inputs):
        name = fresh_name(graph, base)
    tensor = ir.tensor(np.ascontiguousarray(array) if array.ndim else array, name=name)
    value = ir.Value(name=name, const_value=tensor, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape))
    graph.register_initializer(value)
    return value


def attribute(node: ir.Node, name: str, default: Any = None) -> Any:
    """The plain value of an attribute, or `default` where the node lacks it."""
    attr = node.attributes.get(name)
    return default if attr is None or attr.value is None else attr.value


def ints(node: ir.Node, name: str, default: Sequence[int] | None = None) -> list[int] | None:
    """An INTS attribute as a list, or the default."""
    found = attribute(node, name)
    return list(found) if found is not None else (None if default is None else list(default))


def rank(value: ir.Value | None) -> int | None:
    """Number of dimensions, None if unknown."""
    return None if value is None or value.shape is None else len(value.shape)


def static_shape(value: ir.Value | None) -> tuple[int, ...] | None:
    """The shape if every dimension is known, else None."""
    if value is None or value.shape is None or not value.shape.is_static():
        return None
    return tuple(int(d) for d in value.shape)  # type: ignore[arg-type]


def is_float(value: ir.Value | None) -> bool:
    """Whether a value is known to hold floating point."""
    return value is not None and value.dtype is not None and value.dtype.is_floating_point()
