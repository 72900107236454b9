"""Shapes and types: views, joins, casts, constants. All but Cast leave the numbers alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import onnx_ir as ir

from mulshift.ir.graphs import attribute, ints
from mulshift.ir.tensors import as_tensor
from mulshift.ir.torch_ops.common import TorchOp, axes_of, element_type, integers, torch_type


def _reshape(node: ir.Node, v: Sequence[Any]) -> Any:
    x, shape = v[0], integers(v[1])
    if not attribute(node, "allowzero", 0):
        shape = [x.shape[i] if d == 0 else d for i, d in enumerate(shape)]
    return x.reshape(shape)


def _flatten(node: ir.Node, v: Sequence[Any]) -> Any:
    axis = attribute(node, "axis", 1)
    axis = axis + v[0].ndim if axis < 0 else axis
    return v[0].reshape(math.prod(v[0].shape[:axis]), math.prod(v[0].shape[axis:]))


def _transpose(node: ir.Node, v: Sequence[Any]) -> Any:
    return v[0].permute(ints(node, "perm") or list(reversed(range(v[0].ndim))))


def _squeeze(node: ir.Node, v: Sequence[Any]) -> Any:
    axes = axes_of(node, v)
    return v[0].squeeze() if axes is None else v[0].squeeze(tuple(axes))


def _unsqueeze(node: ir.Node, v: Sequence[Any]) -> Any:
    axes, x = axes_of(node, v) or [], v[0]
    rank = x.ndim + len(axes)
    for axis in sorted(a % rank for a in axes):
        x = x.unsqueeze(axis)
    return x


def _concat(node: ir.Node, v: Sequence[Any]) -> Any:
    import torch

    return torch.cat(list(v), attribute(node, "axis"))


def _expand(node: ir.Node, v: Sequence[Any]) -> Any:
    import torch

    return v[0].expand(torch.broadcast_shapes(v[0].shape, integers(v[1])))  # type: ignore[no-untyped-call]


def _tile(node: ir.Node, v: Sequence[Any]) -> Any:
    return v[0].repeat(integers(v[1]))


def _shape(node: ir.Node, v: Sequence[Any]) -> Any:
    import torch

    start, end = attribute(node, "start", 0), attribute(node, "end")
    return torch.tensor(list(v[0].shape)[start:end], dtype=torch.int64)


def _size(node: ir.Node, v: Sequence[Any]) -> Any:
    import torch

    return torch.tensor(v[0].numel(), dtype=torch.int64)


def _cast(node: ir.Node, v: Sequence[Any]) -> Any:
    kind = torch_type(attribute(node, "to"))
    return NotImplemented if kind is None else v[0].to(kind)


def _cast_like(node: ir.Node, v: Sequence[Any]) -> Any:
    target = element_type(node.inputs[1])
    kind = v[1].dtype if target is None else torch_type(target)
    return NotImplemented if kind is None else v[0].to(kind)


def _constant(node: ir.Node, v: Sequence[Any]) -> Any:
    import torch

    name, attr = next(iter(node.attributes.items()))
    if name == "value":
        return as_tensor(attr.value.numpy())
    kinds = {"value_int": torch.int64, "value_ints": torch.int64}
    kinds |= {"value_float": torch.float32, "value_floats": torch.float32}
    return torch.tensor(attr.value, dtype=kinds[name]) if name in kinds else NotImplemented


def _constant_of_shape(node: ir.Node, v: Sequence[Any]) -> Any:
    import torch

    value = attribute(node, "value")
    fill = torch.zeros(1) if value is None else as_tensor(value.numpy())
    return fill.reshape(()).expand(integers(v[0])).clone()


def _range(node: ir.Node, v: Sequence[Any]) -> Any:
    import torch

    start, limit, delta = (t.item() for t in v)
    count = max(math.ceil((limit - start) / delta), 0)
    return (torch.arange(count, dtype=torch.int64).to(v[0].dtype) * delta + start).to(v[0].dtype)


def _depth_to_space(node: ir.Node, v: Sequence[Any]) -> Any:
    x, b = v[0], attribute(node, "blocksize")
    n, c, h, w = x.shape
    if attribute(node, "mode", "DCR") == "DCR":
        y = x.reshape(n, b, b, c // (b * b), h, w).permute(0, 3, 4, 1, 5, 2)
    else:
        y = x.reshape(n, c // (b * b), b, b, h, w).permute(0, 1, 4, 2, 5, 3)
    return y.reshape(n, c // (b * b), h * b, w * b)


def _space_to_depth(node: ir.Node, v: Sequence[Any]) -> Any:
    x, b = v[0], attribute(node, "blocksize")
    n, c, h, w = x.shape
    y = x.reshape(n, c, h // b, b, w // b, b).permute(0, 3, 5, 1, 2, 4)
    return y.reshape(n, c * b * b, h // b, w // b)


def _triangle(node: ir.Node, v: Sequence[Any]) -> Any:
    k = int(v[1]) if len(v) > 1 and v[1] is not None else 0
    return v[0].triu(k) if attribute(node, "upper", 1) else v[0].tril(k)


TABLE: dict[str, TorchOp] = {
    "Cast": _cast,
    "CastLike": _cast_like,
    "Concat": _concat,
    "Constant": _constant,
    "ConstantOfShape": _constant_of_shape,
    "DepthToSpace": _depth_to_space,
    "Expand": _expand,
    "Flatten": _flatten,
    "Range": _range,
    "Reshape": _reshape,
    "Shape": _shape,
    "Size": _size,
    "SpaceToDepth": _space_to_depth,
    "Squeeze": _squeeze,
    "Tile": _tile,
    "Transpose": _transpose,
    "Trilu": _triangle,
    "Unsqueeze": _unsqueeze,
}
