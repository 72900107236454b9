"""Bring old models to opset 21: ONNX's own converter on a skeleton, the big weights set aside meanwhile."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import onnx
import onnx_ir as ir

from mulshift.ir.errors import ModelError
from mulshift.ir.frontend.opset_fixes import old_resizes, place_asymmetric, repeat_group_scales
from mulshift.ir.frontend.skeleton import skeleton
from mulshift.ir.metadata import describe, origin, set_origin

OLDEST, OPSET = 7, 21
"""What is read, and what it is upgraded to: 16-bit and 4-bit QuantizeLinear came with 21. Newer models keep theirs."""

IR_VERSION = 10
"""The file format that came with opset 21: initializers need not be inputs, nodes carry metadata."""

_UNCHANGED_SINCE = 18
_CHANGED_AFTER_18 = frozenset({"DFT", "GridSample"})
"""Between 18 and 21 every other operator but GroupNormalization (see opset_fixes) only gained types or attributes with
the old meaning as default."""


def upgrade(model: ir.Model) -> ir.Model:
    """The model at opset 21 or newer; names, origins, metadata and lazily loaded weights are kept.

    Raises:
        ModelError: older than opset 7, or names the operator that the converter cannot take there.
    """
    _one_default_domain(model)
    model.ir_version = max(model.ir_version, IR_VERSION)
    version = model.opset_imports[""]
    if version >= OPSET:
        return model
    if version < OLDEST:
        raise ModelError("model", f"has opset {version}, older than {OLDEST}", "convert it with its own exporter first")
    repeat_group_scales(model)
    if version >= _UNCHANGED_SINCE and not any(n.op_type in _CHANGED_AFTER_18 for n in model.graph.all_nodes()):
        model.opset_imports[""] = OPSET
        for node in model.graph.all_nodes():
            node.version = None
        return model
    return _convert(model, version)


def _one_default_domain(model: ir.Model) -> None:
    """`ai.onnx` is another name of the default domain; write it as the empty string everywhere."""
    named = model.opset_imports.pop("ai.onnx", None)
    if "" not in model.opset_imports:
        model.opset_imports[""] = named or OPSET
    for node in model.graph.all_nodes():
        if node.domain == "ai.onnx":
            node.domain = ""


def _convert(model: ir.Model, version: int) -> ir.Model:
    weights, resizes = dict(model.graph.initializers), old_resizes(model, version)
    proto = skeleton(model)
    try:
        converted = onnx.version_converter.convert_version(proto, OPSET)
    except RuntimeError as e:
        culprit = _culprit(model, proto)
        where = describe(culprit) if culprit else "model"
        reason = str(e).strip().splitlines()[-1].rsplit("failed: ", 1)[-1]
        cause = f"cannot be upgraded from opset {version} to {OPSET} ({reason})"
        raise ModelError(where, cause, "export the model with a newer opset") from e
    upgraded = ir.serde.deserialize_model(converted)
    _reattach(upgraded.graph, weights)
    _carry_over(model, upgraded)
    place_asymmetric(upgraded, resizes)
    return upgraded


def _reattach(graph: ir.Graph, weights: Mapping[str, ir.Value]) -> None:
    """Give the weights their data back, and take them out of the inputs again."""
    declared = {str(v.name): v for v in graph.inputs} | dict(graph.initializers)
    kept = [v for v in graph.inputs if v.name not in weights]
    graph.inputs.clear()
    graph.inputs.extend(kept)
    for name, old in weights.items():
        value = declared[name]
        value.const_value = old.const_value
        graph.initializers[name] = value


def _carry_over(old: ir.Model, new: ir.Model) -> None:
    """Model, value and node metadata by name; what the converter added gets the origin of its neighbours."""
    new.metadata_props.update(old.metadata_props)
    new.graph.metadata_props.update(old.graph.metadata_props)
    before = {node.name: node for node in old.graph.all_nodes()}
    by_output = {v.name: node for node in old.graph.all_nodes() for v in node.outputs}
    added = []
    for node in new.graph.all_nodes():
        same = before.get(node.name) or next((by_output[v.name] for v in node.outputs if v.name in by_output), None)
        if same is None:
            added.append(node)
            continue
        node.metadata_props.update(same.metadata_props)
        node.name = node.name or same.name
    for node in reversed(added):  # consumers first, so that a chain of new nodes learns it from its end
        readers = [use.node for v in node.outputs for use in v.uses()]
        set_origin(node, (name for reader in readers for name in origin(reader)))


def _culprit(model: ir.Model, proto: onnx.ModelProto) -> ir.Node | None:
    """The first node that the converter refuses when it stands alone."""
    known = {v.name: v for v in (*proto.graph.input, *proto.graph.value_info, *proto.graph.output)}
    data = {t.name: t for t in proto.graph.initializer}
    for node in model.graph:
        if not _converts_alone(ir.serde.serialize_node(node), known, data.values(), proto):
            return node
    return None


def _converts_alone(
    node: onnx.NodeProto,
    known: Mapping[str, onnx.ValueInfoProto],
    data: Iterable[onnx.TensorProto],
    proto: onnx.ModelProto,
) -> bool:
    inputs = [known[name] for name in dict.fromkeys(node.input) if name in known]
    outputs = [known.get(name, onnx.ValueInfoProto(name=name)) for name in node.output if name]
    graph = onnx.helper.make_graph([node], "one", inputs, outputs, [t for t in data if t.name in node.input])
    one = onnx.helper.make_model(graph, opset_imports=proto.opset_import, ir_version=proto.ir_version)
    try:
        onnx.version_converter.convert_version(one, OPSET)
    except RuntimeError:
        return False
    return True
