"""What is known at compile time about the small integer tensors from which models compute shapes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import onnx_ir as ir

from mulshift.ir import attribute, constant, rank

Dim: TypeAlias = int | str | None
"""A number, the name of a dynamic dimension, or nothing known."""
Dims: TypeAlias = tuple[Dim, ...]

_LONGEST = 64
_MOVERS = ("Identity", "Cast", "Squeeze", "Unsqueeze", "Reshape", "Flatten")


def shape_values(value: ir.Value | None, depth: int = 50) -> Dims | None:
    """The elements of a rank 0 or 1 integer tensor, in order; None if not even their number is known."""
    if value is None or depth == 0 or rank(value) not in (0, 1) or value.dtype is None or not value.dtype.is_integer():
        return None
    known = _small_constant(value)
    if known is not None:
        return known
    node = value.producer()
    if node is None or node.domain not in ("", "ai.onnx"):
        return None
    if node.op_type in _MOVERS:
        return shape_values(node.inputs[0], depth - 1)
    rule = _RULES.get(node.op_type)
    return None if rule is None else rule(node, depth - 1)


def _small_constant(value: ir.Value) -> Dims | None:
    tensor = ir.convenience.get_const_tensor(value)
    if tensor is None or tensor.size > _LONGEST or value.is_graph_input():
        return None
    return tuple(int(d) for d in tensor.numpy().reshape(-1))


def dims_of(value: ir.Value | None) -> Dims | None:
    """The shape of a value; None if its rank is unknown."""
    if value is None or value.shape is None:
        return None
    return tuple(d if isinstance(d, int) else d.value for d in value.shape)


def _shape(node: ir.Node, depth: int) -> Dims | None:
    dims = dims_of(node.inputs[0])
    if dims is None:
        return None
    return dims[slice(attribute(node, "start", 0), attribute(node, "end"))]


def _gather(node: ir.Node, depth: int) -> Dims | None:
    data, index = shape_values(node.inputs[0], depth), constant(node.inputs[1])
    if data is None or index is None or index.ndim > 1 or attribute(node, "axis", 0) not in (0, -1):
        return None
    wanted = [int(i) for i in index.reshape(-1)]
    return tuple(data[i] for i in wanted) if all(-len(data) <= i < len(data) for i in wanted) else None


def _slice(node: ir.Node, depth: int) -> Dims | None:
    data = shape_values(node.inputs[0], depth)
    bounds = [shape_values(v, depth) for v in node.inputs[1:]]
    if data is None or any(b is None or len(b) != 1 or not isinstance(b[0], int) for b in bounds):
        return None
    numbers = [b[0] for b in bounds if b is not None]
    start, end = numbers[0], numbers[1]
    step = numbers[3] if len(numbers) > 3 else 1
    if not (isinstance(start, int) and isinstance(end, int) and isinstance(step, int)) or step < 1:
        return None
    return data[start:end:step]


def _concat(node: ir.Node, depth: int) -> Dims | None:
    parts = [shape_values(v, depth) for v in node.inputs]
    return None if any(p is None for p in parts) else tuple(d for p in parts if p is not None for d in p)


def _elementwise(f: Callable[[int, int], int | None], neutral: int | None) -> Callable[[ir.Node, int], Dims | None]:
    def pair(a: Dim, b: Dim) -> Dim:
        if isinstance(a, int) and isinstance(b, int):
            return f(a, b)
        return a if b == neutral else None

    def run(node: ir.Node, depth: int) -> Dims | None:
        a, b = (shape_values(v, depth) for v in node.inputs[:2])
        if a is None or b is None:
            return None
        n = max(len(a), len(b))
        if len(a) not in (1, n) or len(b) not in (1, n):
            return None
        return tuple(pair(x, y) for x, y in zip(_spread(a, n), _spread(b, n), strict=True))

    return run


def _spread(a: Sequence[Dim], n: int) -> Sequence[Dim]:
    return a if len(a) == n else tuple(a) * n


def _product(node: ir.Node, depth: int) -> Dims | None:
    data = shape_values(node.inputs[0], depth)
    if data is None:
        return None
    numbers = [d for d in data if isinstance(d, int)]
    return (math.prod(numbers) if len(numbers) == len(data) else None,)


def _divide(a: int, b: int) -> int | None:
    return a // b if b > 0 and a >= 0 else None  # ONNX truncates, Python floors: the same from zero up


_RULES: dict[str, Callable[[ir.Node, int], Dims | None]] = {
    "Shape": _shape,
    "Gather": _gather,
    "Slice": _slice,
    "Concat": _concat,
    "Add": _elementwise(lambda a, b: a + b, 0),
    "Sub": _elementwise(lambda a, b: a - b, 0),
    "Mul": _elementwise(lambda a, b: a * b, 1),
    "Div": _elementwise(_divide, 1),
    "ReduceProd": _product,
}


def reshape_target(data: ir.Value | None, wanted: Dims) -> list[int] | None:
    """A constant for Reshape that does what `wanted` does, or None.

    A dimension that is that of `data` at the same place becomes 0 (copy), one unknown becomes -1.
    """
    source = dims_of(data) or ()
    if any(d == 0 for d in wanted):
        return None  # copy or empty: the two readings of 0 would mix
    target: list[int] = []
    for i, d in enumerate(wanted):
        if isinstance(d, int):
            target.append(d)
        else:
            target.append(0 if isinstance(d, str) and i < len(source) and source[i] == d else -1)
    return target if target.count(-1) <= 1 else None
