"""Small float graphs for the tests of integer lowering, brought to the QDQ level by hand, and the checks they share."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import onnx
import onnx_ir as ir

from mulshift.ir import (
    ACTIVATION_U8,
    DOMAIN,
    Array,
    Feeds,
    Interpreter,
    Level,
    QParams,
    QuantSpec,
    add_initializer,
    get_level,
    get_qparams,
    is_float,
    set_level,
    users,
)
from mulshift.passes.to_integer import ToInteger

WEIGHTS = {"Conv": 0, "ConvTranspose": 1, "Gemm": 1, "MatMul": 1}
FUSED = ("Relu", "Clip")
_FOUR_BITS = (onnx.TensorProto.INT4, onnx.TensorProto.UINT4)


def graph(text: str, constants: Mapping[str, Array] | None = None, opset: int = 21) -> ir.Model:
    """A float model from the body of ONNX text `(inputs) => (outputs) { nodes }` and its initializers."""
    proto = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : {opset}]>\ng {text}')
    for output in proto.graph.output:
        if not output.type.tensor_type.shape.dim:
            output.type.tensor_type.ClearField("shape")
    for name, array in (constants or {}).items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), name))
    model = ir.from_proto(onnx.shape_inference.infer_shapes(proto, strict_mode=True))
    for k, node in enumerate(model.graph):
        node.name = node.name or f"{node.op_type}_{k}"
    return model


def qdq(
    model: ir.Model,
    feeds: Feeds,
    specs: Mapping[str, QuantSpec] | None = None,
    skip: Collection[str] = (),
    weight_axis: bool = True,
) -> ir.Model:
    """Pairs after every float value (min-max of one feed), fused clamps and outputs of products left out."""
    values = {**feeds, **ort_values(model, feeds, optimize=False)}
    ranges = {
        k: (min(float(a.min()), 0.0), max(float(a.max()), 1e-3)) for k, a in values.items() if a.dtype.kind == "f"
    }
    made = [*model.graph.inputs, *(v for n in list(model.graph) for v in n.outputs)]
    for node in list(model.graph):
        if node.op_type in WEIGHTS and node.inputs[1] is not None and node.inputs[1].is_initializer():
            _weights(model.graph, node, weight_axis)
    shared: dict[str, QParams] = {}
    for value in made:
        if not is_float(value) or value.name in skip or not _wants_pair(value):
            continue
        spec = (specs or {}).get(str(value.name), ACTIVATION_U8)
        pair(model.graph, value, shared.setdefault(str(value.name), _qparams(*ranges[str(value.name)], spec)))
    set_level(model, Level.QDQ)
    return model


def _wants_pair(value: ir.Value) -> bool:
    node = value.producer()
    following = users(value)
    fused = len(following) == 1 and following[0].op_type in FUSED and not value.is_graph_output()
    if fused and node is not None and node.op_type not in ("Reshape", "MaxPool"):
        return False
    product = node is not None and node.op_type in WEIGHTS and _constant(node.inputs[1])
    return not (value.is_graph_output() and product)


def _constant(value: ir.Value | None) -> bool:
    node = None if value is None else value.producer()
    return value is not None and (
        value.is_initializer()
        or (
            node is not None
            and node.op_type == "DequantizeLinear"
            and node.inputs[0].producer().inputs[0].is_initializer()
        )
    )


def _qparams(low: float, high: float, spec: QuantSpec) -> QParams:
    if spec.symmetric:
        return QParams(np.asarray(max(-low, high) / spec.qmax), np.asarray(0), spec)
    scale = np.float32((high - low) / (spec.qmax - spec.qmin))
    return QParams(np.asarray(scale), np.asarray(np.clip(np.rint(spec.qmin - low / scale), spec.qmin, spec.qmax)), spec)


def pair(g: ir.Graph, value: ir.Value, q: QParams, axis: int | None = None) -> ir.Value:
    """`value -> QuantizeLinear -> DequantizeLinear -> every other user`; a graph output keeps its name."""
    name = str(value.name)
    scale = add_initializer(g, f"{name}.scale", q.scale)
    zero_point = add_initializer(g, f"{name}.zero_point", q.zero_point.astype(q.spec.dtype.numpy()))
    readers = list(value.uses())
    attributes = {} if axis is None else {"axis": axis}
    quantize = ir.node("QuantizeLinear", [value, scale, zero_point], attributes, name=f"{name}.quantize")
    dequantize = ir.node("DequantizeLinear", [quantize.outputs[0], scale, zero_point], attributes, name=f"{name}.dq")
    q_out, y = quantize.outputs[0], dequantize.outputs[0]
    q_out.name, y.name = f"{name}.quantized", f"{name}.dequantized"
    q_out.type, y.type = ir.TensorType(q.spec.dtype), ir.TensorType(ir.DataType.FLOAT)
    q_out.shape, y.shape = value.shape, value.shape
    for use in readers:
        use.node.replace_input_with(use.idx, y)
    node = value.producer()
    if node is None:
        g.insert_before(g[0], [quantize, dequantize])
    else:
        g.insert_after(node, [quantize, dequantize])
    if value.is_graph_output():
        value.name, y.name = f"{name}.raw", name
        g.outputs[list(g.outputs).index(value)] = y
    return y


def _weights(g: ir.Graph, node: ir.Node, per_channel: bool) -> None:
    w = node.inputs[1]
    assert w is not None and w.const_value is not None
    array = w.const_value.numpy()
    axis = WEIGHTS[node.op_type]
    if node.op_type == "Gemm" and "transB" in node.attributes and node.attributes["transB"].value:
        axis = 0
    spec = QuantSpec(8, signed=True, symmetric=True, axis=axis if per_channel else None)
    others = tuple(a for a in range(array.ndim) if a != axis) if per_channel else None
    scale = np.maximum(np.abs(array).max(axis=others), 1e-6) / 127
    pair(g, w, QParams(scale, np.zeros(np.shape(scale)), spec), axis if per_channel else None)


def lower(model: ir.Model, **options: object) -> ir.Model:
    """The INTEGER form of a copy; the QDQ model is left as it is."""
    copy = ir.from_proto(ir.to_proto(model))
    set_level(copy, Level.QDQ)
    ToInteger(**options)(copy)  # type: ignore[arg-type]
    return copy


def check(model: ir.Model, feeds: Feeds, steps: float = 1, islands: int = 0, **options: object) -> ir.Model:
    """Lower and prove: integers only, ONNX Runtime == Python on every tensor, within `steps` of the QDQ graph."""
    integer = lower(model, **options)
    assert get_level(integer) == Level.INTEGER
    if not islands:
        assert not float_tensors(integer), float_tensors(integer)
    integer = ir.from_proto(ir.to_proto(integer))  # metadata survives a file
    mine = python_values(integer, feeds)
    theirs = ort_values(integer, feeds)
    assert mine.keys() == theirs.keys()
    for name, array in mine.items():
        assert array.dtype == theirs[name].dtype, name
        np.testing.assert_array_equal(array, theirs[name], err_msg=name)
    expected = ort_values(model, feeds, optimize=False)
    for value in integer.graph.outputs:
        name = str(value.name)
        assert mine[name].dtype == expected[name].dtype and mine[name].shape == expected[name].shape
        assert np.abs(mine[name].astype(np.float64) - expected[name]).max() <= steps * _step(value) * 1.001, name
    return integer


def _step(value: ir.Value) -> float:
    """One step of an output: the scale of its DequantizeLinear; of an accumulator a hundred, since an input that is off
    by one step moves it by as many units as a weight has (127 at most).
    """
    node = value.producer()
    if node is None or node.op_type != "DequantizeLinear":
        return 0.0
    q = get_qparams(node.inputs[0]) if node.inputs[0] is not None else None
    assert q is not None, f"{value.name} has no QParams"
    return float(q.scale.max()) * (100 if q.spec.bits == 32 else 1)


def float_tensors(model: ir.Model) -> list[str]:
    """Float values that are neither graph inputs, outputs nor border scales."""
    border = {"QuantizeLinear", "DequantizeLinear"}
    found = [v for n in model.graph for v in n.outputs if is_float(v) and not v.is_graph_output()]
    for node in model.graph:
        if node.op_type not in border and any(is_float(v) for v in node.inputs if v is not None):
            found.extend(v for v in node.inputs if is_float(v) and v not in found)
    unknown = [v for n in model.graph for v in n.outputs if v.dtype is None and v.name]
    return [str(v.name) for v in (*found, *unknown) if not (v.is_initializer() and _resize_scale(v))]


def _resize_scale(value: ir.Value) -> bool:
    return all(n.op_type == "Resize" for n in users(value))


def python_values(model: ir.Model, feeds: Feeds) -> dict[str, Array]:
    """Every value of a run in Python arithmetic."""
    found: dict[str, Array] = {}
    Interpreter(model).run(feeds, lambda v, t: found.update({str(v.name): t.numpy().copy()}))
    return {k: found[k] for k in found if k not in feeds}


def ort_values(model: ir.Model, feeds: Feeds, optimize: bool = True) -> dict[str, Array]:
    """Every value of a run on stock ONNX Runtime; 4-bit ones aside, which it cannot hand out."""
    import onnxruntime as ort

    proto = ir.to_proto(model)
    have = {o.name for o in proto.graph.output}
    types = {v.name: v for v in proto.graph.value_info}
    for node in proto.graph.node:
        wanted = [types[o] for o in node.output if o and o not in have]
        proto.graph.output.extend(v for v in wanted if v.type.tensor_type.elem_type not in _FOUR_BITS)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    if not optimize:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(None, dict(feeds)), strict=True))


def operators(model: ir.Model) -> list[str]:
    """`mulshift::Conv`, `Reshape`, ... in graph order."""
    return [f"{n.domain}::{n.op_type}" if n.domain == DOMAIN else n.op_type for n in model.graph]


def normal(*shape: int, seed: int = 0) -> Array:
    """Seeded float32 noise."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
