"""An integer operator: one ONNX function (specification, fallback, oracle) and the same arithmetic in Python."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias

import onnx
import onnx_ir as ir

from mulshift.ir.types import Array

DOMAIN = "mulshift"
VERSION = 1

OUTPUT = "zero_point, qmin, qmax, dtype"
"""Attributes of an operator that ends in Requantize: clamp and element type (TensorProto code) of the output."""
REQUANTIZE_OUTPUT = (
    "x_zero_point = 0, zero_point: int = @zero_point, qmin: int = @qmin, qmax: int = @qmax, dtype: int = @dtype"
)
"""The same, handed on to Requantize by a function body."""

_TYPES = {"layout": "string"} | dict.fromkeys(("w_shape", "kernel_shape", "strides", "pads", "dilations"), "ints")


def signature(attributes: Iterable[str], inputs: Iterable[str], outputs: Iterable[str]) -> str:
    """In ONNX text."""
    return f"<{', '.join(attributes)}> ({', '.join(inputs)}) => ({', '.join(outputs)})"


def hand_on(names: Iterable[str]) -> str:
    """Attributes of a function, in ONNX text, as attributes of the same names of a node in its body."""
    return ", ".join(f"{name}: {_TYPES.get(name, 'int')} = @{name}" for name in names)


CLAMP = """
  offset_shifted = BitShift <direction = "RIGHT"> (offset, c_bits)
  back = Sub (offset, offset_shifted)
  z_wide = Constant <value_int: int = @zero_point> ()
  z = Cast <to = 13> (z_wide)
  z_back = Add (z, back)
  low_wide = Constant <value_int: int = @qmin> ()
  low_bits = Cast <to = 13> (low_wide)
  low = Add (low_bits, offset)
  high_wide = Constant <value_int: int = @qmax> ()
  high_bits = Cast <to = 13> (high_wide)
  high = Add (high_bits, offset)
  moved = Add (shifted, z_back)
  clamped = Clip (moved, low, high)
  out = Cast <to: int = @dtype> (clamped)
"""
"""The end of a body in uint64: `out = clamp(shifted - (2^62 >> c) + z, qmin, qmax)`, behind an offset of 2^62 that the
last Cast drops (it keeps the low bits)."""

Attributes: TypeAlias = Mapping[str, Any]
Reference: TypeAlias = Callable[..., Array]
"""`reference(attributes, *inputs) -> output`, numpy in, numpy out, by `mulshift.ir.dyadic` alone."""


@dataclass(frozen=True)
class Operator:
    """A row of the operator table.

    Attributes:
        name: operator type in the domain `mulshift`.
        signature: attributes, inputs and outputs in ONNX text, e.g. `<zero_point> (x, b, c) => (y)`.
        body: statements in ONNX text over standard integer operators and other `mulshift` operators.
        reference: the same arithmetic in Python, for the first output.
        calls: `mulshift` operators that the body uses.
        second: for an operator with two outputs, `second(attributes, first output, *inputs) -> second output`.
    """

    name: str
    signature: str
    body: str
    reference: Reference
    calls: tuple[str, ...] = ()
    second: Reference | None = None

    def run(self, attributes: Attributes, *inputs: Array | None) -> tuple[Array, ...]:
        """All outputs, by the references."""
        first = self.reference(attributes, *inputs)
        return (first,) if self.second is None else (first, self.second(attributes, first, *inputs))

    def function(self, opset: int) -> ir.Function:
        """The ONNX function, importing standard opset `opset`; a new object at each call."""
        return ir.serde.deserialize_function(_parse(self.name, self.signature, self.body, opset))


@cache
def _parse(name: str, signature: str, body: str, opset: int) -> onnx.FunctionProto:
    imports = f'"" : {opset}, "{DOMAIN}" : {VERSION}'
    text = f'<domain: "{DOMAIN}", opset_import: [{imports}]>\n{name} {signature}\n{{\n{body}\n}}'
    return onnx.parser.parse_function(text)
