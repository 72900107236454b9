"""Integer forms of float operators: rules that compute (`RULES`) and operators that move integers (`MOVERS`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir

from mulshift.passes.integer.affine import affine
from mulshift.passes.integer.attention import attention, softmax
from mulshift.passes.integer.cast import cast
from mulshift.passes.integer.elementwise import add, mul, sub
from mulshift.passes.integer.embedding import embedding
from mulshift.passes.integer.forms import NoFormError, Output, Quantized, Rule
from mulshift.passes.integer.hadamard import hadamard
from mulshift.passes.integer.move import MOVERS
from mulshift.passes.integer.norm import norm
from mulshift.passes.integer.pool import average_pool, global_average_pool, reduce_mean, reduce_sum
from mulshift.passes.integer.prelu import prelu
from mulshift.passes.integer.products import product_rule, write_biased
from mulshift.passes.integer.resize import resize_linear
from mulshift.passes.integer.rotary import rotary

if TYPE_CHECKING:
    from mulshift.passes.integer.lowering import Lowering


def _no_activations(low: Lowering, node: ir.Node, out: Output) -> ir.Value:
    raise NoFormError(f"no integer form of {node.op_type} of two activations")


def _constant_first(rule: Rule) -> Rule:
    """Try the forms with constants (a bias of the product before, an Affine) before the form of two activations."""

    def run(low: Lowering, node: ir.Node, out: Output) -> ir.Value:
        if node.op_type == "Add" and (biased := write_biased(low, node, out)) is not None:
            return biased
        made = affine(low, node, out)
        return rule(low, node, out) if made is None else made

    return run


RULES: dict[str, Rule] = {
    "Conv": product_rule,
    "ConvTranspose": product_rule,
    "Gemm": product_rule,
    "MatMul": product_rule,
    "Add": _constant_first(add),
    "Sub": _constant_first(sub),
    "Mul": _constant_first(mul),
    "Div": _constant_first(_no_activations),
    "Neg": _constant_first(_no_activations),
    "BatchNormalization": _constant_first(_no_activations),
    "Sum": _constant_first(add),
    "PRelu": prelu,
    "Resize": resize_linear,
    "AveragePool": average_pool,
    "GlobalAveragePool": global_average_pool,
    "ReduceMean": reduce_mean,
    "ReduceSum": reduce_sum,
    "LayerNormalization": norm,
    "RMSNormalization": norm,
    "Cast": cast,
    "Softmax": softmax,
    "Attention": attention,
    "MaskedAttention": attention,
    "RotaryEmbedding": rotary,
    "Hadamard": hadamard,
    "Gather": embedding,
}

__all__ = ["MOVERS", "RULES", "NoFormError", "Output", "Quantized"]
