"""One node run by ONNX Runtime, for operators and forms that the torch table does not have.

The node becomes a graph of its own: its inputs and what its subgraphs capture from outside are the graph's inputs.
Types that cannot be fed as numpy arrays (4 bits, bfloat16, float8) travel in their carriers, between two Casts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import onnx_ir as ir

from mulshift.ir.errors import UnsupportedError
from mulshift.ir.metadata import describe
from mulshift.ir.operators import DOMAIN, with_callees
from mulshift.ir.tensors import as_array, as_tensor
from mulshift.ir.torch_ops.common import element_type

_CARRIERS = {
    ir.DataType.INT4: ir.DataType.INT8,
    ir.DataType.INT2: ir.DataType.INT8,
    ir.DataType.UINT4: ir.DataType.UINT8,
    ir.DataType.UINT2: ir.DataType.UINT8,
    ir.DataType.BFLOAT16: ir.DataType.FLOAT,
    ir.DataType.FLOAT8E4M3FN: ir.DataType.FLOAT,
    ir.DataType.FLOAT8E4M3FNUZ: ir.DataType.FLOAT,
    ir.DataType.FLOAT8E5M2: ir.DataType.FLOAT,
    ir.DataType.FLOAT8E5M2FNUZ: ir.DataType.FLOAT,
    ir.DataType.FLOAT4E2M1: ir.DataType.FLOAT,
}


def run_node(
    sessions: dict[Any, Any],
    node: ir.Node,
    values: Sequence[Any],
    lookup: Callable[[ir.Value], Any],
    model: ir.Model,
) -> Sequence[Any]:
    """Outputs of one node; None for those that it leaves out.

    Args:
        sessions: kept by node and input types.
        values: one a node input, None where it has none.
        lookup: fetches a value that the node's subgraphs capture from outside.

    Raises:
        UnsupportedError: ONNX Runtime cannot run the node, or a gradient is asked for.
    """
    import torch

    fed: list[tuple[ir.Value, Any]] = [(v, t) for v, t in zip(node.inputs, values, strict=False) if v is not None]
    fed += [(v, lookup(v)) for v in captures(node)]
    if torch.is_grad_enabled() and any(isinstance(t, torch.Tensor) and t.requires_grad for _, t in fed):
        remedy = "run under torch.no_grad(), or freeze what comes before it"
        raise UnsupportedError(describe(node), "has no gradient (ONNX Runtime runs it)", remedy)
    types = {str(v.name): _type_of(v, t) for v, t in fed}
    arrays = {_fed_name(str(v.name), types): _plain(t) for v, t in fed}
    key = (node, tuple(sorted((name, str(kind)) for name, kind in types.items())))
    try:
        if key not in sessions:
            sessions[key] = _session(node, types, model)
        made = iter(sessions[key].run(None, arrays))
    except _errors() as e:
        raise UnsupportedError(describe(node), f"ONNX Runtime cannot run it ({_reason(e)})") from e
    return tuple(_tensor(next(made)) if o.name else None for o in node.outputs)


def captures(node: ir.Node) -> list[ir.Value]:
    """The values that the node's subgraphs, at any depth, read from outside the node; each once, in order."""
    found: dict[ir.Value, None] = {}
    for graph in subgraphs(node):
        own = {*graph.inputs, *graph.initializers.values(), *(v for n in graph for v in n.outputs)}
        read = [v for n in graph for v in (*n.inputs, *captures(n)) if v is not None]
        found |= dict.fromkeys(v for v in (*read, *graph.outputs) if v not in own)
    return list(found)


def subgraphs(node: ir.Node) -> list[ir.Graph]:
    """The graphs among a node's attributes."""
    found: list[ir.Graph] = []
    for attr in node.attributes.values():
        if attr.type == ir.AttributeType.GRAPH and not attr.is_ref():
            found.append(attr.as_graph())
        elif attr.type == ir.AttributeType.GRAPHS and not attr.is_ref():
            found.extend(attr.as_graphs())
    return found


def _type_of(value: ir.Value, tensor: Any) -> Any:
    """The ONNX type of what is fed, as a TypeProto."""
    import onnx

    if isinstance(tensor, list):
        return onnx.helper.make_sequence_type_proto(_type_of(value, tensor[0]))
    array = _plain(tensor)
    known = element_type(value)
    kind = known if known in _CARRIERS else _array_type(tensor, array)
    return onnx.helper.make_tensor_type_proto(int(kind), [None] * array.ndim)


def _array_type(tensor: Any, array: Any) -> ir.DataType:
    if array.dtype.kind in "OSU":
        return ir.DataType.STRING
    if str(getattr(tensor, "dtype", "")) == "torch.bfloat16":
        return ir.DataType.BFLOAT16
    return ir.DataType.from_numpy(array.dtype)


def _plain(tensor: Any) -> Any:
    """What ONNX Runtime takes: numpy arrays, and lists of them for sequences."""
    import torch

    if isinstance(tensor, list):
        return [_plain(t) for t in tensor]
    return as_array(tensor) if isinstance(tensor, torch.Tensor) else tensor


def _tensor(made: Any) -> Any:
    if made is None:
        return None
    return [_tensor(m) for m in made] if isinstance(made, list) else as_tensor(made)


def _session(node: ir.Node, types: Mapping[str, Any], model: ir.Model) -> Any:
    """A session for the node alone; where it makes types that numpy lacks, one that casts them to their carriers."""
    proto = ir.serde.serialize_node(node)
    session = _load(_model(node, proto, types, {}, model))
    names = [o for o in proto.output if o]
    odd = {n: kind for n, o in zip(names, session.get_outputs(), strict=True) if (kind := _odd(o.type)) is not None}
    return _load(_model(node, proto, types, odd, model)) if odd else session


def _odd(text: str) -> ir.DataType | None:
    """`tensor(int4)` -> INT4 if it needs a carrier."""
    return next((kind for kind in _CARRIERS if text == f"tensor({kind.name.lower()})"), None)


def _carrier(kind: Any) -> ir.DataType | None:
    """The carrier of a TypeProto's elements if they need one."""
    return _CARRIERS.get(ir.DataType(kind.tensor_type.elem_type)) if kind.HasField("tensor_type") else None


def _fed_name(name: str, types: Mapping[str, Any]) -> str:
    return name if _carrier(types[name]) is None else f"{name}/carrier"


def _model(node: ir.Node, proto: Any, types: Mapping[str, Any], odd: Mapping[str, ir.DataType], model: ir.Model) -> Any:
    import onnx

    helper = onnx.helper
    nodes, inputs, outputs = [proto], [], []
    for name, kind in types.items():
        carrier = _carrier(kind)
        if carrier is None:
            inputs.append(helper.make_value_info(name, kind))
            continue
        dims = [None] * len(kind.tensor_type.shape.dim)
        nodes.insert(0, helper.make_node("Cast", [_fed_name(name, types)], [name], to=kind.tensor_type.elem_type))
        inputs.append(helper.make_tensor_value_info(_fed_name(name, types), int(carrier), dims))
    for name in proto.output:
        if name in odd:
            nodes.append(helper.make_node("Cast", [name], [f"{name}/carrier"], to=int(_CARRIERS[odd[name]])))
        if name:
            outputs.append(onnx.ValueInfoProto(name=f"{name}/carrier" if name in odd else name))
    imports = {**model.opset_imports, **(node.graph.opset_imports if node.graph is not None else {})}
    functions = [ir.serde.serialize_function(f) for f in model.functions.values() if f.domain != DOMAIN]
    ours = {n.op_type for g in subgraphs(node) for n in g.all_nodes() if n.domain == DOMAIN}
    if ours:
        functions += [ir.serde.serialize_function(op.function(imports[""])) for op in with_callees(ours)]
        imports[DOMAIN] = 1
    return helper.make_model(
        helper.make_graph(nodes, "node", inputs, outputs),
        opset_imports=[helper.make_opsetid(d, v) for d, v in imports.items()],
        functions=functions,
        ir_version=max(model.ir_version or 0, 10),
    )


def _load(proto: Any) -> Any:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry("session.x64quantprecision", "1")  # no saturation on x86 without VNNI
    return ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])


@cache
def _errors() -> tuple[type[Exception], ...]:
    """What ONNX Runtime raises: a dozen unrelated types of its own, and three of Python's."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    own = [c for c in vars(state).values() if isinstance(c, type) and issubclass(c, Exception)]
    return (*own, RuntimeError, ValueError, TypeError)


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
