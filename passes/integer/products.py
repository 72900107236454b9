"""The products by constant weights, a row each, and the bias that an Add after them brings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import onnx_ir as ir

from mulshift.ir import Array, sole_user
from mulshift.passes.integer.constants import real_constant
from mulshift.passes.integer.conv import conv
from mulshift.passes.integer.conv_transpose import conv_transpose
from mulshift.passes.integer.forms import NoFormError, Output, asked_to_stay
from mulshift.passes.integer.gemm import gemm, has_constant_weights, matmul, matmul_weights
from mulshift.passes.integer.linear import Product, write_product
from mulshift.passes.integer.rows import reads_rows, row_product

if TYPE_CHECKING:
    from mulshift.passes.integer.lowering import Lowering

PRODUCTS: dict[str, Callable[[Lowering, ir.Node], Product]] = {
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "Gemm": gemm,
    "MatMul": matmul_weights,
}


def product_rule(low: Lowering, node: ir.Node, out: Output) -> ir.Value:
    """Conv, ConvTranspose, Gemm and MatMul, constant weights or two activations."""
    if node.op_type == "MatMul" and reads_rows(node):
        return row_product(low, node, out)
    if node.op_type == "MatMul" and not has_constant_weights(node):
        return matmul(low, node, out)
    product = PRODUCTS[node.op_type](low, node)
    return write_product(low, product, out, node.outputs[0].is_graph_output())


def product_of(low: Lowering, value: ir.Value) -> Product | None:
    """The product that makes `value`, a constant Add after it taken as its bias; None if there is none.

    Raises:
        NoFormError: a product without integer form.
    """
    node = value.producer()
    if node is None or low.lookup(value) is not None or node.domain not in ("", "ai.onnx") or asked_to_stay(node):
        return None
    if node.op_type in PRODUCTS:
        constant = node.op_type != "MatMul" or has_constant_weights(node)
        return PRODUCTS[node.op_type](low, node) if constant else None
    return _biased(low, node) if node.op_type == "Add" else None


def _biased(low: Lowering, node: ir.Node) -> Product | None:
    for x, other in (node.inputs, node.inputs[::-1]):
        array = real_constant(other)
        if x is None or array is None or sole_user(x) is None:
            continue
        product = product_of(low, x)
        bias = None if product is None else _channel_vector(array, product)
        if product is not None and bias is not None:
            return replace(product, bias=product.bias + bias)
    return None


def _channel_vector(array: Array, product: Product) -> Array | None:
    """A constant that broadcasts along the channels alone, as [1] or [channels]."""
    if array.size == 1:
        return array.reshape(1)
    channels = product.scale.size
    shape = array.shape[: -product.tail] if product.tail else array.shape
    tail = array.shape[-product.tail :] if product.tail else ()
    fits = bool(shape) and shape[-1] == channels == array.size and all(d == 1 for d in tail)
    return array.reshape(-1) if fits else None


def write_biased(low: Lowering, node: ir.Node, out: Output) -> ir.Value | None:
    """An Add as the bias of the product in front of it; None if it is none."""
    try:
        product = _biased(low, node)
    except NoFormError:
        return None
    return None if product is None else write_product(low, product, out, node.outputs[0].is_graph_output())
