"""The one form that passes expect: named nodes with origins, weights as initializers, a recent opset, known shapes."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import common

from mulshift.ir.frontend import fused
from mulshift.ir.frontend.float32 import to_float32
from mulshift.ir.frontend.opset import upgrade
from mulshift.ir.frontend.shapes import infer_shapes
from mulshift.ir.frontend.validate import check_structure, is_ours, sort
from mulshift.ir.frontend.weights import check_weights
from mulshift.ir.metadata import ORIGIN, get_level, origin, set_origin
from mulshift.ir.types import Level


def normalize(model: ir.Model) -> ir.Model:
    """Bring a freshly read model into FLOAT form (see docs/architecture.md); an INTEGER artifact is left as it is.

    Raises:
        ModelError, UnsupportedError: a cycle, NaN weights, an unknown domain, an operator that cannot be upgraded.
    """
    if get_level(model) is Level.INTEGER:
        return model
    sort(model)
    common.RemoveInitializersFromInputsPass()(model)
    common.InlinePass(criteria=lambda function: not is_ours(function.domain))(model)
    common.RemoveUnusedFunctionsPass()(model)  # type: ignore[no-untyped-call]
    name_nodes(model)
    fused.adopt(model)
    check_structure(model)
    for node in model.graph.all_nodes():
        if ORIGIN not in node.metadata_props:
            set_origin(node, origin(node))
    lift_constants(model)
    to_float32(model)
    check_weights(model)
    infer_shapes(model)
    model = upgrade(model)
    fused.expand(model)
    name_nodes(model)
    lift_constants(model)
    infer_shapes(model)
    return model


def name_nodes(model: ir.Model) -> None:
    """Give every node a name of its own: its old one, else its first output's, else its operator's; `_1` if taken."""
    taken: set[str] = set()
    for node in model.graph.all_nodes():
        base = node.name or (node.outputs[0].name if node.outputs else None) or node.op_type
        name, count = base, 0
        while name in taken:
            count += 1
            name = f"{base}_{count}"
        taken.add(name)
        node.name = name


def lift_constants(model: ir.Model) -> None:
    """Turn the main graph's Constant nodes into initializers; subgraphs are left alone, and so are graph outputs."""
    for node in list(model.graph):
        if node.op_type != "Constant" or node.domain not in ("", "ai.onnx") or node.outputs[0].is_graph_output():
            continue
        old, given = node.outputs[0], node.attributes.get("value")
        tensor = ir.convenience.get_const_tensor(old) if given is None else given.as_tensor()
        if tensor is None:
            continue  # a sparse constant: no dense initializer stands for it
        name = str(old.name)
        tensor = _named(tensor, name)
        value = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=tensor.shape, const_value=tensor)  # type: ignore[arg-type]
        old.replace_all_uses_with(value)
        model.graph.remove(node, safe=True)
        model.graph.register_initializer(value)


def _named(tensor: ir.TensorProtocol, name: str) -> ir.TensorProtocol:
    """The same data under another name: renaming the tensor itself would write into the source's proto."""
    if isinstance(tensor, ir.ExternalTensor):
        return ir.ExternalTensor(
            tensor.location,
            tensor.offset,
            tensor.length,
            tensor.dtype,
            shape=tensor.shape,
            name=name,
            base_dir=tensor.base_dir,
        )
    if tensor.dtype is ir.DataType.STRING:
        return ir.StringTensor(list(tensor.numpy().reshape(-1)), shape=tensor.shape, name=name)  # type: ignore[arg-type]
    return ir.Tensor(tensor.numpy(), dtype=tensor.dtype, shape=tensor.shape, name=name)  # type: ignore[arg-type]
