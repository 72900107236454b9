"""What mulshift writes beside a graph: origins, levels, ranges and quantization, as strings in `metadata_props`."""

from __future__ import annotations

import json
from collections.abc import Iterable

import numpy as np
import onnx_ir as ir

from mulshift.ir.types import Level, QParams, QuantSpec

LEVEL = "mulshift.level"
ORIGIN = "mulshift.origin"
RANGE = "mulshift.range"
QPARAMS = "mulshift.qparams"

_TORCH_SCOPES = "pkg.torch.onnx.name_scopes"


def get_level(model: ir.Model) -> Level:
    """The level that a pass left the graph in; FLOAT if none did."""
    return Level(model.metadata_props.get(LEVEL, Level.FLOAT))


def set_level(model: ir.Model, level: Level) -> None:
    """Record the level; `mulshift.ir.levels.check` proves it."""
    model.metadata_props[LEVEL] = str(level)


def origin(node: ir.Node) -> tuple[str, ...]:
    """The source nodes (torch module path, or ONNX node name) that this node came from, oldest first."""
    text = node.metadata_props.get(ORIGIN)
    return tuple(json.loads(text)) if text else (_source_name(node),)


def _source_name(node: ir.Node) -> str:
    """A torch module path if the exporter left one, else the node's name, else its output's name."""
    scopes = node.metadata_props.get(_TORCH_SCOPES)
    if scopes:
        path = [part for part in json.loads(scopes.replace("'", '"')) if part]
        if path:
            return str(path[-1])
    return node.name or (node.outputs[0].name if node.outputs else "") or node.op_type


def set_origin(node: ir.Node, names: Iterable[str]) -> None:
    """Record where a node came from; duplicates are dropped, order kept."""
    node.metadata_props[ORIGIN] = json.dumps(list(dict.fromkeys(names)))


def inherit_origin(new: Iterable[ir.Node], old: Iterable[ir.Node]) -> None:
    """Give every new node the origins of all old ones."""
    names = [name for node in old for name in origin(node)]
    for node in new:
        set_origin(node, names)


def describe(node: ir.Node) -> str:
    """How errors and reports name a node: `node 'conv1' (Conv, from layer1.0.conv1)`."""
    names = ", ".join(origin(node))
    own = node.name or (node.outputs[0].name if node.outputs else "?")
    source = "" if names == own else f", from {names}"
    return f"node '{own}' ({node.op_type}{source})"


def get_range(value: ir.Value) -> tuple[float, float] | None:
    """Calibrated (low, high) of a float tensor, or None."""
    text = value.metadata_props.get(RANGE)
    if text is None:
        return None
    low, high = json.loads(text)
    return float(low), float(high)


def set_range(value: ir.Value, low: float, high: float) -> None:
    """Record the clipping range that calibration chose; low <= 0 <= high is not required here."""
    value.metadata_props[RANGE] = json.dumps([float(low), float(high)])


def get_qparams(value: ir.Value) -> QParams | None:
    """The quantization of an integer tensor, or None (shapes, indices)."""
    text = value.metadata_props.get(QPARAMS)
    if text is None:
        return None
    d = json.loads(text)
    spec = QuantSpec(d["bits"], d["signed"], d["symmetric"], d["axis"], d["group"])
    return QParams(np.asarray(d["scale"], np.float32), np.asarray(d["zero_point"], np.int32), spec)


def set_qparams(value: ir.Value, q: QParams) -> None:
    """Record the quantization of an integer tensor; float32 scales survive the text exactly."""
    spec = q.spec
    value.metadata_props[QPARAMS] = json.dumps(
        {
            "scale": q.scale.astype(np.float64).tolist(),
            "zero_point": q.zero_point.tolist(),
            "bits": spec.bits,
            "signed": spec.signed,
            "symmetric": spec.symmetric,
            "axis": spec.axis,
            "group": spec.group,
        }
    )
