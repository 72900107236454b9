"""One node run by ONNX Runtime, for operators that the torch table does not have."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import onnx_ir as ir

from mulshift.ir.errors import UnsupportedError
from mulshift.ir.metadata import describe


def run_node(
    cache: dict[Any, Any],
    node: ir.Node,
    values: Sequence[Any],
    lookup: Callable[[ir.Value], Any],
    model: ir.Model,
) -> Sequence[Any]:
    """Outputs of one node; sessions are kept in `cache` by node and input types.

    Values that the node's subgraphs capture from outside are fetched with `lookup` and fed as inputs.
    """
    import torch

    arrays = {f"i{k}": v.detach().numpy() for k, v in enumerate(values) if v is not None}
    captured = _captures(node)
    arrays |= {str(v.name): lookup(v).detach().numpy() for v in captured}
    key = (node, tuple((k, a.dtype.str, a.ndim) for k, a in arrays.items()))
    if key not in cache:
        cache[key] = _session(node, arrays, model)
    made = iter(cache[key].run(None, arrays))
    return tuple(torch.from_numpy(next(made).copy()) if o.name else None for o in node.outputs)


def _captures(node: ir.Node) -> list[ir.Value]:
    inner = [n for a in node.attributes.values() for g in _graphs(a) for n in g.all_nodes()]
    outs = [v for a in node.attributes.values() for g in _graphs(a) for v in g.outputs]
    made = {v for n in inner for v in n.outputs}
    made |= {v for a in node.attributes.values() for g in _graphs(a) for v in (*g.inputs, *g.initializers.values())}
    reads = [v for n in inner for v in n.inputs if v is not None] + outs
    return [
        v
        for v in dict.fromkeys(reads)
        if (v not in made and v.graph is not None) or (v.producer() is None and v not in made)
    ]


def _graphs(attr: ir.Attr) -> list[ir.Graph]:
    if attr.type == ir.AttributeType.GRAPH:
        return [attr.value]
    return list(attr.value) if attr.type == ir.AttributeType.GRAPHS else []


def _session(node: ir.Node, arrays: dict[str, Any], model: ir.Model) -> Any:
    import onnx
    import onnxruntime as ort

    proto = ir.serde.serialize_node(node)
    for k in range(len(proto.input)):
        proto.input[k] = f"i{k}" if node.inputs[k] is not None else ""
    inputs = [
        onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(a.dtype), [None] * a.ndim)
        for name, a in arrays.items()
    ]
    outputs = [onnx.ValueInfoProto(name=o) for o in proto.output if o]
    graph = onnx.helper.make_graph([proto], "node", inputs, outputs)
    imports = [onnx.helper.make_opsetid(d, v) for d, v in model.opset_imports.items()]
    one = onnx.helper.make_model(graph, opset_imports=imports, ir_version=model.ir_version)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    try:
        return ort.InferenceSession(one.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except (RuntimeError, ort.capi.onnxruntime_pybind11_state.NotImplemented) as e:
        why = str(e).split("\n")[0][:200]
        raise UnsupportedError(describe(node), f"ONNX Runtime cannot run it ({why})") from e
