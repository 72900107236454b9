"""Two copies of a QDQ graph that run side by side: the float graph under it, and itself with its weights computed once.

Values keep their names in both, so that a layer's float and quantized outputs meet by name. Tensors are shared.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from mulshift.ir import Array, add_initializer, constant
from mulshift.passes.pairs import pair_qparams, pair_source

FLOAT_ORIGIN = "mulshift.float_origin"
"""Key in the `meta` of an initializer that a pass made from another: that one's tensor, as the float model has it."""

_CLIPPED_NAME = ".clipped"
CLIPPED = "mulshift.clipped"
"""Key in the `meta` of an initializer that differs from its float origin by clipping to low bits alone."""


def replace_initializer(graph: ir.Graph, old: ir.Value | None, base: str, array: Array) -> ir.Value:
    """A new initializer in place of `old` that remembers the float model's numbers (for `float_twin`).

    Args:
        graph: where it goes.
        old: what it is made from; None if there was none, that is zeros.
        base: its name starts with it.
        array: its numbers.
    """
    new = add_initializer(graph, base, array)
    zeros = ir.tensor(np.zeros_like(array))
    origin = zeros if old is None else old.meta.get(FLOAT_ORIGIN, old.const_value)
    new.meta[FLOAT_ORIGIN] = origin
    return new


def float_numbers(value: ir.Value | None) -> Array | None:
    """What an initializer was in the float model, before passes clipped or rounded it; None if it is not constant."""
    origin = None if value is None else value.meta.get(FLOAT_ORIGIN)
    return constant(value) if origin is None else np.asarray(origin.numpy())


def clip_initializer(graph: ir.Graph, old: ir.Value, array: Array) -> ir.Value:
    """`NAME.clipped` in place of `old`, numbers that are only nearer to the grid: `unclipped` gives the others."""
    new = replace_initializer(graph, old, f"{old.name}{_CLIPPED_NAME}", array)
    new.meta[CLIPPED] = True
    return new


def plain_name(value: ir.Value) -> str:
    """The name of an initializer before it was clipped."""
    return str(value.name).removesuffix(_CLIPPED_NAME) if value.meta.get(CLIPPED) else str(value.name)


def unclipped(value: ir.Value | None) -> Array | None:
    """The numbers to round: an initializer's, or those that it had before `insert-fake-quant` clipped it."""
    return float_numbers(value) if value is not None and value.meta.get(CLIPPED) else constant(value)


def float_twin(model: ir.Model) -> ir.Model:
    """The float model under a QDQ graph: no pairs, and weights and biases as they were before passes changed them.

    A lone DequantizeLinear of integer weights stays: it has no float origin.
    """
    twin = model.clone()
    for value in twin.graph.initializers.values():
        value.const_value = value.meta.get(FLOAT_ORIGIN, value.const_value)
    for node in list(twin.graph):
        source = pair_source(node)
        if source is not None:
            node.outputs[0].replace_all_uses_with(source, replace_graph_outputs=True)
    RemoveUnusedNodesPass()(twin)
    return twin


def frozen_twin(model: ir.Model) -> ir.Model:
    """The graph with each pair on an initializer replaced by the numbers that it gives."""
    twin = model.clone()
    for node in list(twin.graph):
        numbers = fake_quantized(node)
        if numbers is not None:
            frozen = add_initializer(twin.graph, f"{node.outputs[0].name}.frozen", numbers)
            node.outputs[0].replace_all_uses_with(frozen)
    RemoveUnusedNodesPass()(twin)
    return twin


def fake_quantized(node: ir.Node) -> Array | None:
    """The float numbers that a DequantizeLinear gives if they are constant: of a pair's weights, or of integer ones."""
    if node.op_type != "DequantizeLinear" or node.outputs[0].is_graph_output():
        return None
    q, source = pair_qparams(node), pair_source(node)
    array = constant(source if source is not None else node.inputs[0])
    if q is None or array is None:
        return None
    return q.dequantize(q.quantize(array)) if source is not None else q.dequantize(array)
