"""Float operators that the standard lacks at our opset, as model functions that any runtime can run.

Attention: `Y = softmax(scale * Q K^T) V` for each head. Q [B, M, H, D], K [B, N, G, D], V [B, N, G, E], H a multiple
of G: head h reads h / (H / G) of K and V. MaskedAttention has a bool mask that broadcasts to [B, H, M, N]: a key
counts where it is true; a row without any gives 0. RotaryEmbedding turns the halves of the last axis of X [B, S, H,
D] by angles whose cosines and sines are [B or 1, S, 1, D / 2]. Hadamard: X H over the last axis, H [g, g], on each
group of g channels.
RowQuantize: X in steps, each row rounded to 8 bits with a power of two of its own (operators/row_quantize.py).
"""

from __future__ import annotations

import onnx
import onnx_ir as ir

DOMAIN = "mulshift.float"
VERSION = 1

_SIGNATURES = {
    "Swish": "<alpha: float = 1.0> (X) => (Y)",
    "RMSNormalization": "<epsilon: float = 0.00001> (X, scale) => (Y)",
    "Attention": "<scale: float = 1.0> (Q, K, V) => (Y)",
    "MaskedAttention": "<scale: float = 1.0> (Q, K, V, mask) => (Y)",
    "RotaryEmbedding": "(X, cos, sin) => (Y)",
    "Hadamard": "(X, H) => (Y)",
    "RowQuantize": "<step: float = 1.0> (X) => (Y)",
}
_HEADS = """
        keep = Constant<value_ints = [0]>()
        rest = Constant<value_ints = [-1]>()
        two = Constant<value_ints = [2]>()
        groups = Shape<start = 2, end = 3>(K)
        rows = Shape<start = 1, end = 2>(Q)
        columns = Shape<start = 3>(Q)
        keys = Shape<start = 1, end = 2>(K)
        width = Shape<start = 3>(V)
        q_heads = Transpose<perm = [0, 2, 1, 3]>(Q)
        k_heads = Transpose<perm = [0, 2, 3, 1]>(K)
        v_heads = Transpose<perm = [0, 2, 1, 3]>(V)
        q_shape = Concat<axis = 0>(keep, groups, rest, rows, columns)
        q_groups = Reshape(q_heads, q_shape)
        k_groups = Unsqueeze(k_heads, two)
        v_groups = Unsqueeze(v_heads, two)
        products = MatMul(q_groups, k_groups)
        factor = Constant<value_float: float = @scale>()
        scaled = Mul(products, factor)"""
_MIXED = """
        mixed = MatMul(weights, v_groups)
        y_shape = Concat<axis = 0>(keep, rest, rows, width)
        y_heads = Reshape(mixed, y_shape)
        Y = Transpose<perm = [0, 2, 1, 3]>(y_heads)"""
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
    "Attention": _HEADS
    + """
        weights = Softmax(scaled)"""
    + _MIXED,
    "MaskedAttention": _HEADS
    + """
        flat_shape = Concat<axis = 0>(keep, rest, rows, keys)
        scores = Reshape(scaled, flat_shape)
        lowest = Constant<value = float {-3.0e38}>()
        zero = Constant<value = float {0.0}>()
        masked = Where(mask, scores, lowest)
        shares = Softmax(masked)
        attended = Where(mask, shares, zero)
        group_shape = Shape(scaled)
        weights = Reshape(attended, group_shape)"""
    + _MIXED,
    "RotaryEmbedding": """
        first, second = Split<axis = -1, num_outputs = 2>(X)
        first_cos = Mul(first, cos)
        second_sin = Mul(second, sin)
        second_cos = Mul(second, cos)
        first_sin = Mul(first, sin)
        turned_first = Sub(first_cos, second_sin)
        turned_second = Add(second_cos, first_sin)
        Y = Concat<axis = -1>(turned_first, turned_second)""",
    "RowQuantize": """
        one_step = Constant<value_float: float = @step>()
        in_steps = Div(X, one_step)
        steps = Round(in_steps)
        magnitude = Abs(steps)
        last = Constant<value_ints = [-1]>()
        largest = ReduceMax<keepdims = 1>(magnitude, last)
        powers = Constant<value = float[16] {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384,
            32768}>()
        reached = GreaterOrEqual(largest, powers)
        reached_bits = Cast<to = 1>(reached)
        bits = ReduceSum<keepdims = 1>(reached_bits, last)
        kept = Constant<value_float = 7.0>()
        beyond = Sub(bits, kept)
        k = Relu(beyond)
        two = Constant<value_float = 2.0>()
        unit = Pow(two, k)
        scaled = Div(steps, unit)
        half = Constant<value_float = 0.5>()
        raised = Add(scaled, half)
        rounded = Floor(raised)
        low = Constant<value_float = -128.0>()
        high = Constant<value_float = 127.0>()
        clamped = Clip(rounded, low, high)
        whole = Mul(clamped, unit)
        Y = Mul(whole, one_step)""",
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
"""Opset from which the standard has the very same operator: `Swish` is `x * sigmoid(alpha * x)`."""


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
