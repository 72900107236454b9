"""Float operators that the standard lacks at our opset, as model functions that any runtime can run."""

from __future__ import annotations

import onnx
import onnx_ir as ir

DOMAIN = "mulshift.float"
VERSION = 1

_SIGNATURES = {
    "Swish": "<alpha: float = 1.0> (X) => (Y)",
    "RMSNormalization": "<epsilon: float = 0.00001> (X, scale) => (Y)",
    "Hadamard": "(X, H) => (Y)",
}
_BODIES = {
    "Swish": """
        factor = Constant<value_float: float = @alpha>()
        scaled = Mul(X, factor)
        gate = Sigmoid(scaled)
        Y = Mul(X, gate)""",
    "RMSNormalization": """
        last = Constant<value_ints = [-1]>()
        small = Constant<value_float: float = @epsilon>()
        squared = Mul(X, X)
        mean = ReduceMean<keepdims = 1>(squared, last)
        shifted = Add(mean, small)
        deviation = Sqrt(shifted)
        normal = Div(X, deviation)
        Y = Mul(normal, scale)""",
    "Hadamard": """
        shape = Shape(X)
        leading = Shape<start = 0, end = -1>(X)
        group = Shape<start = 0, end = 1>(H)
        rest = Constant<value_ints = [-1]>()
        grouped = Concat<axis = 0>(leading, rest, group)
        groups = Reshape(X, grouped)
        product = MatMul(groups, H)
        Y = Reshape(product, shape)""",
}
STANDARD_SINCE = {"Swish": 24, "RMSNormalization": 23}
"""Opset from which the standard has the operator: `Swish` is `x * sigmoid(alpha * x)`.

`Hadamard` is in none: Y is X H over the last axis, H [g, g], on each group of g channels.
"""


def domain_of(model: ir.Model, name: str) -> str:
    """ "" where the model's opset has the operator, else our domain; the function is then added to the model."""
    opset = model.opset_imports.get("", 0)
    if opset >= STANDARD_SINCE.get(name, opset + 1):
        return ""
    text = f'<domain: "{DOMAIN}", opset_import: ["" : {opset}]>\n{name} {_SIGNATURES[name]}\n{{{_BODIES[name]}\n}}'
    function = ir.serde.deserialize_function(onnx.parser.parse_function(text))
    model.functions.setdefault(function.identifier(), function)
    model.opset_imports.setdefault(DOMAIN, VERSION)
    return DOMAIN
