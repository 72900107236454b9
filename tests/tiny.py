"""A network of two nodes at all three levels, written by hand, and passes that turn one level into the next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx
import onnx_ir as ir

from mulshift.ir import (
    ACTIVATION_U8,
    Array,
    Level,
    QParams,
    add_initializer,
    attach,
    dyadic,
    set_level,
    set_qparams,
    weight_spec,
)
from mulshift.passes import Contract, Pass

TEXT = """
<ir_version: 10, opset_import: ["" : 21]>
tiny (float[N, 3, 6, 6] x) => (float[N, 4, 6, 6] y)
<float[4, 3, 3, 3] w, float[4] bias>
{
  h = Conv <pads = [1, 1, 1, 1]> (x, w, bias)
  y = Relu (h)
}
"""
X = QParams(np.float32(1 / 64), np.int32(128), ACTIVATION_U8)
Y = QParams(np.float32(1 / 32), np.int32(0), ACTIVATION_U8)


def float_model(seed: int = 0) -> ir.Model:
    """Conv 3 -> 4 channels and Relu; weights near the corners of int8, so that saturating kernels show."""
    rng = np.random.default_rng(seed)
    model = ir.serde.deserialize_model(onnx.parser.parse_model(TEXT))
    conv = model.graph.node(0)
    for index, name, array in (
        (1, "w", rng.uniform(-0.5, 0.5, (4, 3, 3, 3))),
        (2, "bias", rng.uniform(-1, 1, 4)),
    ):
        old = conv.inputs[index]
        conv.replace_input_with(index, add_initializer(model.graph, name, array.astype(np.float32)))
        assert old is not None
    conv.name, model.graph.node(1).name = "conv", "relu"
    model.graph.node(0).outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    return model


def samples(count: int = 3, seed: int = 1) -> list[dict[str, Array]]:
    """Feeds in [-2, 2]."""
    rng = np.random.default_rng(seed)
    return [{"x": rng.uniform(-2, 2, (1, 3, 6, 6)).astype(np.float32)} for _ in range(count)]


def _node(
    graph: ir.Graph, op: str, inputs: list[Any], name: str, kind: ir.DataType, domain: str = "", **attributes: Any
) -> ir.Value:
    made = ir.node(op, inputs, attributes, domain=domain, name=f"{name}.node")
    made.outputs[0].name = name
    made.outputs[0].type = ir.TensorType(kind)
    graph.append(made)
    return made.outputs[0]


def _pair(graph: ir.Graph, value: ir.Value, q: QParams) -> ir.Value:
    scale = add_initializer(graph, f"{value.name}.scale", q.scale)
    zero = add_initializer(graph, f"{value.name}.zero_point", q.zero_point.astype(q.spec.dtype.numpy()))
    axis = {} if q.spec.axis is None else {"axis": q.spec.axis}
    stored = _node(graph, "QuantizeLinear", [value, scale, zero], f"{value.name}.quantized", q.spec.dtype, **axis)
    name = f"{value.name}.dequantized"
    return _node(graph, "DequantizeLinear", [stored, scale, zero], name, ir.DataType.FLOAT, **axis)


@dataclass
class TinyQdq(Pass):
    """FLOAT to QDQ, for the tiny network only."""

    name: ClassVar[str] = "tiny-qdq"
    contract: ClassVar[Contract] = Contract.LOSSY

    def rewrite(self, model: ir.Model) -> None:
        graph = model.graph
        conv, relu = list(graph)
        w = conv.inputs[1]
        assert w is not None and w.const_value is not None
        array = w.const_value.numpy()
        scale = np.abs(array).max(axis=(1, 2, 3)) / 127
        graph.remove([conv, relu])
        x = _pair(graph, graph.inputs[0], X)
        wq = _pair(graph, w, QParams(scale.astype(np.float32), np.int32(0), weight_spec(8, 0)))
        graph.append(conv)
        conv.replace_input_with(0, x)
        conv.replace_input_with(1, wq)
        graph.append(relu)
        made = relu.outputs[0]
        out = _pair(graph, made, Y)
        made.name, out.name = "y.float", "y"
        out.shape = made.shape
        graph.outputs[0] = out
        self.changed(conv, "quantized")
        set_level(model, Level.QDQ)


@dataclass
class TinyInteger(Pass):
    """QDQ to INTEGER, for the tiny network only; `wrong` adds to every bias, to be caught."""

    name: ClassVar[str] = "tiny-integer"
    contract: ClassVar[Contract] = Contract.LOSSY
    wrong: int = 0

    def rewrite(self, model: ir.Model) -> None:
        graph = model.graph
        weights, bias = (graph.initializers[n].const_value.numpy() for n in ("w", "bias"))  # type: ignore[union-attr]
        scale = graph.initializers["w.scale"].const_value.numpy()  # type: ignore[union-attr]
        q = np.rint(weights / scale.reshape(-1, 1, 1, 1)).astype(np.int8)
        accumulated = X.scale * scale
        d = [dyadic.to_dyadic(float(s) / float(Y.scale)) for s in accumulated]
        old = graph.outputs[0]
        for node in reversed(list(graph)):
            graph.remove(node)
        for name in list(graph.initializers):
            del graph.initializers[name]
        x = _node(
            graph, "QuantizeLinear", [graph.inputs[0], *_constants(graph, "x", X)], "x.integer", ir.DataType.UINT8
        )
        set_qparams(x, X)
        shape = (-1, 1, 1)
        inputs = [
            x,
            add_initializer(graph, "w", q),
            add_initializer(graph, "bias", (np.rint(bias / accumulated).astype(np.int32) + self.wrong).reshape(shape)),
            add_initializer(graph, "b", np.array([v.b for v in d], np.int32).reshape(shape)),
            add_initializer(graph, "c", np.array([v.c for v in d], np.int32).reshape(shape)),
        ]
        attributes = {
            "x_zero_point": 128, "w_zero_point": 0, "zero_point": 0, "qmin": 0, "qmax": 255, "dtype": 2,
            "strides": [1, 1], "pads": [1, 1, 1, 1], "dilations": [1, 1], "group": 1, "domain": "mulshift",
        }  # fmt: skip
        made = _node(graph, "Conv", inputs, "h", ir.DataType.UINT8, **attributes)
        set_qparams(made, Y)
        node = made.producer()
        assert node is not None
        node.name = "conv"
        bound = dyadic.accumulator_bound(q, (bias / accumulated).astype(np.int64), X.magnitude).max()
        node.metadata_props.update({"mulshift.accumulator_bound": str(bound), "mulshift.width": "wide"})
        out = _node(graph, "DequantizeLinear", [made, *_constants(graph, "y", Y)], "y", ir.DataType.FLOAT)
        out.shape = old.shape
        graph.outputs[0] = out
        attach(model)
        self.changed(node, "integer")
        set_level(model, Level.INTEGER)


def _constants(graph: ir.Graph, name: str, q: QParams) -> list[ir.Value]:
    zero = q.zero_point.astype(q.spec.dtype.numpy())
    return [add_initializer(graph, f"{name}.scale", q.scale), add_initializer(graph, f"{name}.zero_point", zero)]


PASSES: dict[str, type[Pass]] = {p.name: p for p in (TinyQdq, TinyInteger)}
RECIPE = {"name": "tiny", "passes": [{"pass": "tiny-qdq"}, {"pass": "tiny-integer"}]}

__all__ = ["PASSES", "RECIPE", "TinyInteger", "TinyQdq", "float_model", "samples"]
