"""`y = a * x + b` with one a and b a channel: read from nodes, composed, moved across Reshape and Transpose."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from mulshift.ir import Array, attribute, constant, ints, rank
from mulshift.passes.shape_values import Dim, dims_of

MOVERS = ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose")


@dataclass(frozen=True, eq=False)
class Affine:
    """`y = a * x + b`.

    Attributes:
        a, b: float64, of the rank of x, broadcast against it.
    """

    a: Array
    b: Array

    def then(self, after: Affine) -> Affine:
        """`after(self(x))`: `a2 * (a1 * x + b1) + b2`."""
        return Affine(after.a * self.a, after.a * self.b + after.b)

    def along(self, axis: int, channels: int) -> tuple[Array, Array] | None:
        """a and b as [channels] if they vary along `axis` alone, else None."""
        a, b = _vector(self.a, axis, channels), _vector(self.b, axis, channels)
        return None if a is None or b is None else (a, b)


def _vector(array: Array, axis: int, channels: int) -> Array | None:
    rows = np.moveaxis(array, axis, 0).reshape(array.shape[axis], -1)
    if rows.shape[0] not in (1, channels) or not (rows == rows[:, :1]).all():
        return None
    return np.asarray(np.broadcast_to(rows[:, 0], (channels,)))


@dataclass
class Chain:
    """Neighbouring per-channel nodes that together are `y = a * x + b`.

    Attributes:
        nodes: first to last, each the sole reader of the one before.
        x: what the first reads.
        affine: a and b.
    """

    nodes: list[ir.Node]
    x: ir.Value
    affine: Affine

    @property
    def y(self) -> ir.Value:
        """What the last node makes."""
        return self.nodes[-1].outputs[0]


def read_affine(node: ir.Node) -> tuple[ir.Value, Affine] | str | None:
    """x and (a, b) of a BatchNormalization, or an Add, Sub, Mul or Div with a constant that varies along one axis.

    Returns:
        None for another node, a reason for a BatchNormalization that cannot be read.
    """
    if node.domain != "":
        return None
    if node.op_type == "BatchNormalization":
        return _read_batch_norm(node)
    return _read_binary(node) if node.op_type in ("Add", "Sub", "Mul", "Div") else None


def _read_batch_norm(node: ir.Node) -> tuple[ir.Value, Affine] | str:
    """`y = scale * (x - mean) / sqrt(var + epsilon) + B`: `a = scale / sqrt(var + epsilon)`, `b = B - mean * a`."""
    x, n = node.inputs[0], rank(node.inputs[0])
    if attribute(node, "training_mode", 0):
        return "it is in training mode; export the model in evaluation mode"
    if any(v.uses() or v.is_graph_output() for v in node.outputs[1:]):
        return "its running statistics are read"
    if x is None or n is None:
        return "the rank of its input is unknown"
    arrays = [constant(v) for v in node.inputs[1:5]]
    if any(array is None for array in arrays):
        return "its scale, bias, mean or variance is not constant"
    scale, bias, mean, var = (array.astype(np.float64) for array in arrays if array is not None)
    deviation = var + attribute(node, "epsilon", 1e-5)
    if not (deviation > 0).all():
        return "its variance is negative or not a number"
    a = scale / np.sqrt(deviation)
    shape = (1, -1, *(1,) * (n - 2))
    return x, Affine(a.reshape(shape), (bias - mean * a).reshape(shape))


def _read_binary(node: ir.Node) -> tuple[ir.Value, Affine] | None:
    for i in (1, 0):
        x, c = node.inputs[1 - i], constant(node.inputs[i])
        if x is None or c is None or constant(x) is not None or not _is_channelwise(x, c):
            continue
        first = i == 0
        c = c.astype(np.float64).reshape((1,) * (len(dims_of(x) or ()) - c.ndim) + c.shape)
        one, zero = np.ones_like(c), np.zeros_like(c)
        if node.op_type == "Add":
            return x, Affine(one, c)
        if node.op_type == "Mul":
            return x, Affine(c, zero)
        if node.op_type == "Sub":
            return x, Affine(-one, c) if first else Affine(one, -c)
        if not first and c.all():
            return x, Affine(1 / c, zero)
    return None


def _is_channelwise(x: ir.Value, c: Array) -> bool:
    """Whether c varies along one axis at most, and x does not broadcast against it."""
    dims = dims_of(x)
    if dims is None or c.ndim > len(dims) or c.size == 0 or c.dtype.kind != "f":
        return False
    tail = dims[len(dims) - c.ndim :]
    return sum(s != 1 for s in c.shape) <= 1 and all(s in (1, d) for s, d in zip(c.shape, tail, strict=True))


def across(node: ir.Node, affine: Affine, down: bool) -> Affine | None:
    """The affine function on the other side of a mover: from its input to its output (`down`) or back; None if none."""
    if node.op_type == "Transpose":
        perm = ints(node, "perm") or list(range(affine.a.ndim))[::-1]
        order = perm if down else [perm.index(i) for i in range(len(perm))]
        return Affine(affine.a.transpose(order), affine.b.transpose(order))
    ends = [dims_of(node.inputs[0]), dims_of(node.outputs[0])]
    source, target = ends if down else ends[::-1]
    if source is None or target is None:
        return None
    a, b = reshaped(affine.a, source, target), reshaped(affine.b, source, target)
    return None if a is None or b is None else Affine(a, b)


def reshaped(array: Array, source: Sequence[Dim], target: Sequence[Dim]) -> Array | None:
    """What `array`, broadcast against a tensor of shape `source`, becomes when that is reshaped to `target`.

    Leading dimensions may be dynamic if they are the same on both sides and `array` is constant along them.
    """
    for kept in range(min(len(source), len(target)), -1, -1):
        old = [d for d in source[kept:] if isinstance(d, int)]
        new = [d for d in target[kept:] if isinstance(d, int)]
        whole = len(old) == len(source) - kept and len(new) == len(target) - kept
        unsure = sum(s is None or s != t for s, t in zip(source[:kept], target[:kept], strict=True))
        if not whole or math.prod(old) != math.prod(new) or unsure > 1:
            continue  # one unsure dimension is the same on both sides since all others are
        if any(d != 1 for d in array.shape[:kept]):
            continue
        wide = np.broadcast_to(array, (1,) * kept + tuple(old))
        return np.asarray(wide.reshape((1,) * kept + tuple(new)))
    return None
