"""Checks of the numbers that a model carries: external files that are there, and weights that are finite."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from mulshift.ir.errors import ModelError
from mulshift.ir.graphs import users
from mulshift.ir.metadata import describe
from mulshift.ir.types import Array

_CHUNK = 1 << 20

_MULTIPLIERS = frozenset(
    """
    Attention BatchNormalization Conv ConvInteger ConvTranspose DequantizeLinear Div Einsum FusedConv FusedGemm
    FusedMatMul GRU Gemm GroupNormalization InstanceNormalization LSTM LayerNormalization MatMul MatMulInteger Mul
    PRelu QGemm QLinearConv QLinearMatMul QuantizeLinear RNN
    """.split()
)
"""Operators for which an infinite constant is never meant."""


def check_external_data(model: ir.Model, where: str) -> None:
    """Every external tensor's file is there, inside the model's folder, and long enough; nothing is read.

    Raises:
        ModelError: names the file and the tensor.
    """
    for name, tensor in _tensors(model):
        if isinstance(tensor, ir.ExternalTensor):
            _check_external(tensor, name, where)


def _tensors(model: ir.Model) -> Iterator[tuple[str, ir.TensorProtocol]]:
    for graph in model.graphs():
        for name, value in graph.initializers.items():
            if value.const_value is not None:
                yield name, value.const_value
    for node in model.graph.all_nodes():
        for attr in node.attributes.values():
            if attr.type == ir.AttributeType.TENSOR and attr.value is not None:
                yield str(node.outputs[0].name if node.outputs else node.name), attr.value


def _check_external(tensor: ir.ExternalTensor, name: str, where: str) -> None:
    location = os.fspath(tensor.location)
    if os.path.isabs(location) or ".." in location.replace("\\", "/").split("/"):
        raise ModelError(
            where, f"initializer '{name}' lies outside the model's folder, at '{location}'", "export it again"
        )
    if not os.path.isfile(tensor.path):
        cause = f"external data file '{tensor.path}' of initializer '{name}' is missing"
        raise ModelError(where, cause, "put it beside the model")
    needed = (tensor.offset or 0) + tensor.nbytes
    size = os.path.getsize(tensor.path)
    if size < needed:
        cause = f"external data file '{tensor.path}' is too short for initializer '{name}' ({size} of {needed} bytes)"
        raise ModelError(where, cause, "copy it again")


def check_weights(model: ir.Model) -> None:
    """Every float weight is finite; external data is read piece by piece and let go of again.

    A constant that is never multiplied may hold -inf (masks, the start of a maximum), a scalar any value.

    Raises:
        ModelError: names the initializer and a node that reads it.
    """
    for graph in model.graphs():
        for name, value in graph.initializers.items():
            tensor = value.const_value
            if tensor is None or not tensor.dtype.is_floating_point():
                continue
            readers = users(value)
            multiplied = any(node.op_type in _MULTIPLIERS for node in readers)
            if not multiplied and tensor.size == 1:
                continue
            if not _finite(tensor, name, negative_infinity=not multiplied):
                reader = f" of {describe(readers[0])}" if readers else ""
                raise ModelError(f"initializer '{name}'{reader}", "holds NaN or infinite values", "repair the weights")


def _finite(tensor: ir.TensorProtocol, name: str, negative_infinity: bool) -> bool:
    try:
        flat = tensor.numpy().reshape(-1)
    except (ValueError, OSError) as e:
        raise ModelError(f"initializer '{name}'", f"cannot be read ({e})") from e
    good = all(_good(flat[i : i + _CHUNK], negative_infinity) for i in range(0, flat.size, _CHUNK))
    del flat
    if isinstance(tensor, ir.ExternalTensor):
        tensor.release()
    return good


def _good(piece: Array, negative_infinity: bool) -> bool:
    if np.isfinite(piece).all():
        return True
    wide = piece.astype(np.float32)
    return negative_infinity and bool((np.isfinite(wide) | np.isneginf(wide)).all())
