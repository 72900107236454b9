"""Function bodies in place of `mulshift::` nodes, in linear time and with names that tell where a value belongs.

onnx_ir's InlinePass looks for a free name by counting up from 2, which is quadratic in the number of calls. So every
call gets a body of its own first, whose names start with the node's name.
"""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes.common import InlinePass

from mulshift.ir import DOMAIN


def inline(model: ir.Model) -> None:
    """Inline all functions of the domain `mulshift`, in place; values keep their names, new ones are `node/value`.

    Args:
        model: with the bodies attached.
    """
    calls = [node for node in model.graph.all_nodes() if node.domain == DOMAIN]
    taken = {v.name for n in model.graph.all_nodes() for v in n.outputs} | set(model.graph.initializers)
    flat = {name: _flat(model, name) for name in dict.fromkeys(node.op_type for node in calls)}
    for key in [key for key in model.functions if key[0] == DOMAIN]:
        del model.functions[key]
    for i, node in enumerate(calls):
        own = flat[node.op_type].clone()
        own.overload = node.overload = str(i)
        _prefix(own, _free(f"{node.name or node.op_type}/", taken))
        model.functions[own.identifier()] = own
    InlinePass(lambda function: function.domain == DOMAIN)(model)


def _flat(model: ir.Model, name: str) -> ir.Function:
    """The body of one operator with the operators that it calls inlined."""
    copies = [f.clone() for f in model.functions.values() if f.domain == DOMAIN]
    alone = ir.Model(
        ir.Graph([], [], nodes=[], opset_imports=dict(model.opset_imports)),
        ir_version=model.ir_version,
        functions=copies,
    )
    InlinePass(lambda function: function.name != name)(alone)
    return alone.functions[(DOMAIN, name, "")]


def _prefix(function: ir.Function, prefix: str) -> None:
    for node in function:
        node.name = f"{prefix}{node.outputs[0].name}"
        for value in node.outputs:
            value.name = f"{prefix}{value.name}"


def _free(prefix: str, taken: set[str | None]) -> str:
    """A prefix that no name of the graph has."""
    while any(name is not None and name.startswith(prefix) for name in taken):
        prefix = f"{prefix[:-1]}_/"
    return prefix
