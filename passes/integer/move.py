"""Operators that move integers, a row each: standard nodes on integers, s16 through s32 where ONNX Runtime must."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from mulshift.ir import attribute
from mulshift.passes.integer.constants import real_constant
from mulshift.passes.integer.embedding import has_row_scales
from mulshift.passes.integer.forms import Mover, NoFormError, Quantized
from mulshift.passes.integer.quantization import bounds, storage

if TYPE_CHECKING:
    from mulshift.passes.integer.lowering import Lowering

THROUGH_S32 = frozenset("ReduceMax ReduceMin Resize Where Max Min Pad ArgMax ArgMin".split())
"""ONNX Runtime 1.31 runs these on u8, s8 and s32 but not on s16."""
_NOT_ON_S16 = frozenset("MaxPool DepthToSpace SpaceToDepth".split())


def _first(node: ir.Node) -> Sequence[int]:
    return (0,)


def _all(node: ir.Node) -> Sequence[int]:
    return range(len(node.inputs))


def _branches(node: ir.Node) -> Sequence[int]:
    return (1, 2)


def _scattered(node: ir.Node) -> Sequence[int]:
    return (0, 2)


def move(low: Lowering, node: ir.Node, data: Mapping[int, Quantized]) -> Sequence[ir.Value | None]:
    """The same operator on integers; outputs of an integer type (indices) are shared with the float node's users."""
    q = next(iter(data.values())).q
    inputs = [data[i].value if i in data else v for i, v in enumerate(node.inputs)]
    return write_moved(low, node, inputs, node.attributes, storage(q.spec))


def write_moved(
    low: Lowering,
    node: ir.Node,
    inputs: Sequence[ir.Value | None],
    attributes: Mapping[str, Any],
    dtype: ir.DataType,
    op: str = "",
) -> Sequence[ir.Value | None]:
    """Write `op` on `inputs`, with casts around it for s16."""
    op = op or node.op_type
    if dtype == ir.DataType.INT16 and op in _NOT_ON_S16:
        raise NoFormError(f"ONNX Runtime has no {op} of 16-bit integers")
    through = dtype == ir.DataType.INT16 and op in THROUGH_S32
    if through:
        inputs = [_cast(low, v, ir.DataType.INT32) if v is not None and v.dtype == dtype else v for v in inputs]
    types = [_output_type(v, ir.DataType.INT32 if through else dtype) for v in node.outputs]
    made = low.write(op, inputs, attributes, "", [(t, v.shape) for t, v in zip(types, node.outputs, strict=True)])
    found: list[ir.Value | None] = []
    for old, new in zip(node.outputs, made, strict=True):
        if not old.name:
            new.name = ""
        if _is_index(old):
            low.replaced[old] = new
            found.append(None)
        else:
            found.append(_cast(low, new, dtype) if through else new)
    return found


def _is_index(value: ir.Value) -> bool:
    return value.dtype in (ir.DataType.INT64, ir.DataType.INT32, ir.DataType.BOOL)


def _output_type(value: ir.Value, dtype: ir.DataType) -> ir.DataType:
    return value.dtype if _is_index(value) and value.dtype is not None else dtype


def _cast(low: Lowering, value: ir.Value, dtype: ir.DataType) -> ir.Value:
    return low.standard("Cast", [value], {"to": int(dtype)}, dtype, value.shape)


def pad(low: Lowering, node: ir.Node, data: Mapping[int, Quantized]) -> Sequence[ir.Value | None]:
    """Pad: the constant becomes its integer, 0 the zero point; what lies beyond the range becomes its end."""
    x = data[0]
    dtype = storage(x.q.spec)
    inputs: list[ir.Value | None] = [x.value, *node.inputs[1:]]
    if attribute(node, "mode", "constant") == "constant":
        given = node.inputs[2] if len(node.inputs) > 2 else None
        array = np.zeros(1) if given is None else real_constant(given)
        if array is None:
            raise NoFormError("its padding value is not constant")
        fill = bounds(x.q, float(array.reshape(-1)[0]), np.inf)[0]
        constant = low.const(f"{node.outputs[0].name}.fill", np.asarray(fill, dtype.numpy()))
        inputs = [*inputs[:2], constant, *inputs[3:]]
    return write_moved(low, node, inputs, node.attributes, dtype)


def zero_filling(low: Lowering, node: ir.Node, data: Mapping[int, Quantized]) -> Sequence[ir.Value | None]:
    """Trilu and CenterCropPad write zeros: moved as `q - z` in s32, so that a zero is a zero."""
    x, s32 = data[0], ir.DataType.INT32
    dtype, shape = storage(x.q.spec), node.outputs[0].shape
    z = low.const(f"{node.outputs[0].name}.z", x.q.zero_point.astype(np.int32))
    centred = low.standard("Sub", [_cast(low, x.value, s32), z], {}, s32, x.value.shape)
    moved = low.standard(node.op_type, [centred, *node.inputs[1:]], node.attributes, s32, shape)
    return (_cast(low, low.standard("Add", [moved, z], {}, s32, shape), dtype),)


def global_max(low: Lowering, node: ir.Node, data: Mapping[int, Quantized]) -> Sequence[ir.Value | None]:
    """GlobalMaxPool as ReduceMax over the spatial axes."""
    shape = node.inputs[0].shape if node.inputs[0] is not None else None
    if shape is None:
        raise NoFormError("its input's rank is not known")
    axes = low.const(f"{node.outputs[0].name}.axes", np.arange(2, len(shape)))
    x = data[0]
    return write_moved(low, node, [x.value, axes], {"keepdims": 1}, storage(x.q.spec), "ReduceMax")


def max_pool(low: Lowering, node: ir.Node, data: Mapping[int, Quantized]) -> Sequence[ir.Value | None]:
    """MaxPool on integers: padding holds the lowest one, which never wins."""
    if len(node.outputs) > 1 and node.outputs[1].uses():
        raise NoFormError("MaxPool that returns indices")
    x = data[0]
    made = low.write("MaxPool", [x.value], node.attributes, "", [(_pooled(x), node.outputs[0].shape)])
    return (made[0],)


def _pooled(x: Quantized) -> ir.DataType:
    dtype = storage(x.q.spec)
    if dtype == ir.DataType.INT16:
        raise NoFormError("ONNX Runtime has no MaxPool of 16-bit integers")
    return dtype


def _nearest(node: ir.Node) -> bool:
    cropped = attribute(node, "coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize"
    return attribute(node, "mode", "nearest") == "nearest" and not cropped


def identity(low: Lowering, node: ir.Node, data: Mapping[int, Quantized]) -> Sequence[ir.Value | None]:
    """Identity and Dropout: the tensor itself."""
    return (data[0].value, *[None] * (len(node.outputs) - 1))


MOVERS: dict[str, Mover] = {
    **{
        name: Mover(_first, move)
        for name in (
            "Reshape Flatten Squeeze Unsqueeze Transpose Slice GatherElements GatherND Expand Tile Split"
            " DepthToSpace SpaceToDepth ReduceMax ReduceMin TopK ReverseSequence Compress"
        ).split()
    },
    "Gather": Mover(_first, move, lambda node: not has_row_scales(node)),
    "Concat": Mover(_all, move),
    "Max": Mover(_all, move),
    "Min": Mover(_all, move),
    "Where": Mover(_branches, move),
    "ScatterND": Mover(_scattered, move),
    "ScatterElements": Mover(_scattered, move),
    "Pad": Mover(_first, pad),
    "Trilu": Mover(_first, zero_filling),
    "CenterCropPad": Mover(_first, zero_filling),
    "MaxPool": Mover(_first, max_pool),
    "GlobalMaxPool": Mover(_first, global_max),
    "Resize": Mover(_first, move, _nearest),
    "Identity": Mover(_first, identity),
    "Dropout": Mover(_first, identity),
}
