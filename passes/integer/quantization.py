"""QuantizeLinear and DequantizeLinear nodes as QParams; signed and unsigned labels of the same reals."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from mulshift.ir import Array, QParams, QuantSpec, attribute, constant

_BITS = {
    ir.DataType.UINT8: (8, False),
    ir.DataType.INT8: (8, True),
    ir.DataType.UINT16: (16, False),
    ir.DataType.INT16: (16, True),
    ir.DataType.UINT4: (4, False),
    ir.DataType.INT4: (4, True),
    ir.DataType.UINT2: (2, False),
    ir.DataType.INT2: (2, True),
    ir.DataType.INT32: (32, True),
}


def quantize_qparams(node: ir.Node) -> QParams | None:
    """Quantization of a QuantizeLinear's output; None if it is not constant or not an integer type."""
    zero_point = node.inputs[2] if len(node.inputs) > 2 else None
    dtype = ir.DataType(attribute(node, "output_dtype", 0)) or ir.DataType.UINT8
    if zero_point is not None:
        dtype = zero_point.dtype or (zero_point.const_value.dtype if zero_point.const_value is not None else dtype)
    return _qparams(node, dtype, zero_point)


def dequantize_qparams(node: ir.Node) -> QParams | None:
    """Quantization of a DequantizeLinear's input; None as above."""
    x = node.inputs[0]
    zero_point = node.inputs[2] if len(node.inputs) > 2 else None
    for value in (zero_point, x):
        if value is None:
            continue
        dtype = value.dtype or (value.const_value.dtype if value.const_value is not None else None)
        if dtype is not None:
            return _qparams(node, dtype, zero_point)
    return None


def _qparams(node: ir.Node, dtype: ir.DataType, zero_point: ir.Value | None) -> QParams | None:
    scale = constant(node.inputs[1])
    if scale is None or dtype not in _BITS:
        return None
    z = np.zeros(scale.shape, np.int32) if zero_point is None else constant(zero_point)
    if z is None:
        return None
    axis, group = int(attribute(node, "axis", 1)), int(attribute(node, "block_size", 0)) or None
    if group is not None:
        kept = axis % scale.ndim if scale.ndim else 0
    elif scale.size == 1:
        scale, z, kept = scale.reshape(()), z.reshape(()), None
    else:
        kept = axis if axis >= 0 else _positive(node, axis)
    bits, signed = _BITS[dtype]
    spec = QuantSpec(bits, signed, symmetric=False, axis=kept, group=group)
    return QParams(scale.astype(np.float32), z.astype(np.int32), spec)


def _positive(node: ir.Node, axis: int) -> int:
    x = node.inputs[0]
    array = constant(x)
    rank = array.ndim if array is not None else (len(x.shape) if x is not None and x.shape is not None else 0)
    return axis + rank


def storage(spec: QuantSpec) -> ir.DataType:
    """Element type that holds an activation at run time: at least a byte."""
    if spec.bits == 32:
        return ir.DataType.INT32
    if spec.bits > 8:
        return ir.DataType.INT16 if spec.signed else ir.DataType.UINT16
    return ir.DataType.INT8 if spec.signed else ir.DataType.UINT8


def to_unsigned(q: QParams) -> QParams:
    """The label of the same reals with unsigned integers."""
    if not q.spec.signed:
        return q
    spec = QuantSpec(q.spec.bits, signed=False, symmetric=False, axis=q.spec.axis)
    return QParams(q.scale, q.zero_point + 2 ** (q.spec.bits - 1), spec)


def to_signed(q: QParams) -> QParams:
    """The label of the same reals with signed integers."""
    if q.spec.signed:
        return q
    spec = QuantSpec(q.spec.bits, signed=True, symmetric=False, axis=q.spec.axis)
    return QParams(q.scale, q.zero_point - 2 ** (q.spec.bits - 1), spec)


def canonical(q: QParams, keep_signed: bool) -> QParams:
    """The label that integer operators like: u8 (s8 where `keep_signed`), s16."""
    if q.spec.bits == 16:
        return to_signed(q)
    return q if keep_signed else to_unsigned(q)


def bounds(q: QParams, low: float, high: float) -> tuple[int, int]:
    """Integers of a real clamp [low, high], inside the range of `q`; rounded as QuantizeLinear does."""
    ends: Array = np.asarray([low, high], np.float64) / np.float64(q.scale)
    ends = np.clip(np.rint(ends) + int(q.zero_point), q.spec.qmin, q.spec.qmax)
    return int(ends[0]), int(ends[1])
