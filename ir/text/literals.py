"""Names, numbers, element types and tensors as text, both ways, without loss.

A float is the shortest decimal that reads back as the same number of its type. NaNs have no payload.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from mulshift.ir.types import Array

SMALL = 8
"""A tensor of at most so many elements is written as numbers, a larger one as base64."""

_SHORT = {"FLOAT": "f32", "DOUBLE": "f64", "FLOAT16": "f16", "BFLOAT16": "bf16", "STRING": "str", "BOOL": "bool"}
_SHORT |= {
    f"{long}{bits}": f"{short}{bits}" for long, short in (("INT", "s"), ("UINT", "u")) for bits in (2, 4, 8, 16, 32, 64)
}
SHORT_TYPES = {kind: _SHORT.get(kind.name, kind.name.lower()) for kind in ir.DataType}
LONG_TYPES = {short: kind for kind, short in SHORT_TYPES.items()}

_PLAIN_NAME = re.compile(r"[\w./\-:]*[\w./\-]", re.ASCII)
_PLAIN_KEY = re.compile(r"[A-Za-z_][\w.]*", re.ASCII)


def value_name(name: str | None) -> str:
    """`%name`, `%"odd name"`, or `_` for none."""
    if not name:
        return "_"
    return "%" + node_name(name)


def node_name(name: str) -> str:
    """The name of a node or value, quoted if it holds more than letters, digits and `_./-:`."""
    return name if _PLAIN_NAME.fullmatch(name) else json.dumps(name)


def key(name: str) -> str:
    """A word, or a quoted string where it is not one."""
    return name if _PLAIN_KEY.fullmatch(name) else json.dumps(name)


def float_text(x: float, dtype: Any = np.float32) -> str:
    """`0.1`, `1e-05`, `nan`, `-inf`: always recognizable as a float."""
    number = dtype(x)
    if not np.isfinite(number):
        return "nan" if np.isnan(number) else ("inf" if number > 0 else "-inf")
    text = repr(float(number)) if dtype not in (np.float32, np.float16) else str(number)
    return text if any(c in text for c in ".e") else f"{text}.0"


def string_text(x: str | bytes) -> str:
    """A quoted string; bytes that are not UTF-8 survive as lone surrogates."""
    return json.dumps(x.decode("utf-8", "surrogateescape") if isinstance(x, bytes) else x)


def string_bytes(text: str) -> bytes:
    """The bytes of a string read back."""
    return text.encode("utf-8", "surrogateescape")


def tensor_text(tensor: ir.TensorProtocol, elide: bool) -> str:
    """The elements: `[1, 2]`, or `<base64>`, or with `elide` `<sha256:first 12 digits>`."""
    if tensor.size <= SMALL or tensor.dtype == ir.DataType.STRING:
        return "[" + ", ".join(_elements(tensor)) + "]"
    if elide:
        return f"<sha256:{hashlib.sha256(tensor.tobytes()).hexdigest()[:12]}>"
    return f"<{base64.b64encode(tensor.tobytes()).decode()}>"


def _elements(tensor: ir.TensorProtocol) -> list[str]:
    if isinstance(tensor, ir.StringTensor):  # numpy would drop zeros at the end
        return [string_text(x) for x in tensor.string_data()]
    flat = tensor.numpy().reshape(-1)
    if tensor.dtype == ir.DataType.STRING:
        return [string_text(x) for x in flat.tolist()]
    if not tensor.dtype.is_floating_point():
        return [str(x).lower() if isinstance(x, bool) else str(int(x)) for x in flat.tolist()]
    exact = flat.dtype.type if flat.dtype in (np.float32, np.float16, np.float64) else np.float64
    return [float_text(x, exact) for x in flat.astype(exact)]


def tensor_of(name: str, kind: ir.DataType, shape: list[int], data: list[Any] | str) -> ir.TensorProtocol:
    """The tensor of a list of elements or a base64 text.

    Raises:
        ValueError: the data does not have the size that type and shape ask for.
    """
    if isinstance(data, str):
        raw = base64.b64decode(data, validate=True)
        wanted = (int(np.prod(shape)) * kind.bitwidth + 7) // 8
        if len(raw) != wanted:
            raise ValueError(f"{len(raw)} bytes of data for {wanted}")
        return ir.TensorProtoTensor(onnx.TensorProto(name=name, dims=shape, data_type=int(kind), raw_data=raw))
    if len(data) != int(np.prod(shape)):
        raise ValueError(f"{len(data)} elements for shape {shape}")
    if kind == ir.DataType.STRING:
        return ir.StringTensor([string_bytes(x) for x in data], name=name, shape=ir.Shape(shape))
    # Without a type numpy takes small and large unsigned numbers together for floats, and rounds them.
    wide: Any = np.float64 if kind.is_floating_point() else np.uint64 if kind == ir.DataType.UINT64 else None
    array: Array = np.array(data, wide).reshape(shape).astype(kind.numpy())
    return ir.Tensor(array, dtype=kind, name=name)
