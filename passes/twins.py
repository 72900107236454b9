"""Two copies of a QDQ graph that run side by side: the float graph under it, and itself with its weights computed once.

Values keep their names in both, so that a layer's float and quantized outputs meet by name. Tensors are shared.
"""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from mulshift.ir import Array, add_initializer, constant
from mulshift.passes.pairs import pair_qparams, pair_source


def float_twin(model: ir.Model) -> ir.Model:
    """The graph without its pairs. A lone DequantizeLinear of integer weights stays: it has no float origin."""
    twin = model.clone()
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
