"""Constants of a QDQ graph: plain initializers, and integers behind a DequantizeLinear."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from mulshift.ir import Array, QParams, constant
from mulshift.passes.integer.quantization import dequantize_qparams, quantize_qparams


def quantized_constant(value: ir.Value | None) -> tuple[Array, QParams, Array | None] | None:
    """(integers, QParams, floats or None) of a constant behind a DequantizeLinear, with or without QuantizeLinear.

    The floats are the initializer before QuantizeLinear; None for a model that came with integers.
    """
    node = None if value is None else value.producer()
    if node is None or node.op_type != "DequantizeLinear":
        return None
    params = dequantize_qparams(node)
    if params is None:
        return None
    integers = constant(node.inputs[0])
    if integers is not None:
        return integers.astype(np.int64), params, None
    quantizer = node.inputs[0].producer() if node.inputs[0] is not None else None
    if quantizer is None or quantizer.op_type != "QuantizeLinear":
        return None
    real, own = constant(quantizer.inputs[0]), quantize_qparams(quantizer)
    if real is None or own is None:
        return None
    scale, zero_point = own.shaped(real.shape)
    steps = np.nan_to_num(np.rint(real.astype(np.float32) / scale), nan=0.0, posinf=2.0**31, neginf=-(2.0**31))
    q = np.clip(steps.astype(np.float64) + zero_point, own.spec.qmin, own.spec.qmax)
    return q.astype(np.int64), params, real


def real_constant(value: ir.Value | None) -> Array | None:
    """The numbers of a constant: an initializer, or one behind a pair, as float64."""
    array = constant(value)
    if array is not None:
        return array.astype(np.float64)
    held = quantized_constant(value)
    return None if held is None else held[1].dequantize(held[0]).astype(np.float64)
