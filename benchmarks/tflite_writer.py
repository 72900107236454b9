"""The int8 model of ONNX Runtime's quantizer as a LiteRT file: the same integers and scales, NHWC, fixed batch.

LiteRT has no reader of ONNX that runs beside this project's torch, so the flatbuffer is written here, with the schema
that the package ai-edge-litert carries. Only what the four networks of `networks.py` need: a row an operator in RULES.
u8 activations become s8 (both the numbers and the zero point less 128), which is what LiteRT's kernels want.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

VERSIONS = {
    "ADD": 2,
    "CONV_2D": 3,
    "DEPTHWISE_CONV_2D": 3,
    "DEQUANTIZE": 2,
    "FULLY_CONNECTED": 4,
    "MAX_POOL_2D": 2,
    "MEAN": 2,
    "PAD": 2,
    "QUANTIZE": 1,
    "STRIDED_SLICE": 2,
}
"""The first version of each operator that takes s8 (and weights per channel)."""
IDENTITIES = ("Reshape", "Gather")
"""Between the mean and the classifier they leave [N, C] as it is; the caller compares outputs, which proves it."""
NHWC = (0, 3, 1, 2)
"""Axis of NCHW -> axis of NHWC."""


@dataclass(frozen=True)
class Scales:
    """real = scale * (integer - zero_point); scale and zero_point [1], or [C] along `axis`."""

    scale: np.ndarray
    zero_point: np.ndarray
    axis: int = 0


class Writer:
    """A TFLite model in the making; tensors are known by their index."""

    def __init__(self) -> None:
        from ai_edge_litert import schema_py_generated as schema

        self.schema: Any = schema
        self.tensors: list[Any] = []
        self.operators: list[Any] = []
        self.codes: list[str] = []
        self.buffers: list[Any] = [schema.BufferT()]

    def tensor(self, shape: tuple[int, ...], kind: str, scales: Scales | None = None, data: bytes | None = None) -> int:
        """Index of a new tensor; `kind` is a name of TensorType."""
        made = self.schema.TensorT()
        made.name, made.shape, made.type = f"t{len(self.tensors)}", list(shape), getattr(self.schema.TensorType, kind)
        if scales is not None:
            made.quantization = self.schema.QuantizationParametersT()
            made.quantization.scale = scales.scale.ravel().astype(np.float32)
            made.quantization.zeroPoint = scales.zero_point.ravel().astype(np.int64)
            made.quantization.quantizedDimension = scales.axis
        if data is not None:
            made.buffer = len(self.buffers)
            self.buffers.append(self.schema.BufferT())
            self.buffers[-1].data = np.frombuffer(data, np.uint8)
        self.tensors.append(made)
        return len(self.tensors) - 1

    def constant(self, values: np.ndarray, scales: Scales | None = None) -> int:
        """Index of a new constant of s8 or s32."""
        values = np.ascontiguousarray(values)
        kind = {"int8": "INT8", "int32": "INT32"}[values.dtype.name]
        return self.tensor(values.shape, kind, scales, values.tobytes())

    def emit(self, code: str, inputs: list[int], output: int, options: tuple[str, dict[str, Any]] | None = None) -> int:
        """Append an operator; its output. `options` is (name in BuiltinOptions, fields)."""
        made = self.schema.OperatorT()
        if code not in self.codes:
            self.codes.append(code)
        made.opcodeIndex, made.inputs, made.outputs = self.codes.index(code), inputs, [output]
        if options is not None:
            made.builtinOptionsType = getattr(self.schema.BuiltinOptions, options[0])
            made.builtinOptions = getattr(self.schema, f"{options[0]}T")()
            vars(made.builtinOptions).update(options[1])
        self.operators.append(made)
        return output

    def shape(self, tensor: int) -> tuple[int, ...]:
        return tuple(self.tensors[tensor].shape)

    def scales(self, tensor: int) -> Scales:
        found = self.tensors[tensor].quantization
        return Scales(found.scale, found.zeroPoint)

    def finish(self, source: int, target: int) -> bytes:
        """The file."""
        import flatbuffers

        graph, model = self.schema.SubGraphT(), self.schema.ModelT()
        graph.tensors, graph.operators, graph.inputs, graph.outputs = self.tensors, self.operators, [source], [target]
        model.version, model.subgraphs, model.buffers = 3, [graph], self.buffers
        model.operatorCodes = [self._code(name) for name in self.codes]
        builder = flatbuffers.Builder(1 << 20)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())

    def _code(self, name: str) -> Any:
        made = self.schema.OperatorCodeT()
        made.builtinCode = made.deprecatedBuiltinCode = getattr(self.schema.BuiltinOperator, name)
        made.version = VERSIONS[name]
        return made


class Reader:
    """The QDQ graph: constants, quantized constants, and the scales of each float value."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.nodes = list(model.graph.node)
        self.source, self.target = model.graph.input[0].name, model.graph.output[0].name
        self.source_shape = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
        self.values = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
        self.users = {name: node for node in reversed(self.nodes) for name in node.input}

    def scales(self, node: onnx.NodeProto) -> Scales:
        """Of a QuantizeLinear or DequantizeLinear, for s8."""
        zero_point = self.values[node.input[2]]
        moved = zero_point.astype(np.int64) - (128 if zero_point.dtype == np.uint8 else 0)
        return Scales(np.atleast_1d(self.values[node.input[1]]), np.atleast_1d(moved))

    def scales_of(self, value: str) -> Scales:
        """Of the float `value`: its QuantizeLinear, maybe behind operators that only move numbers."""
        user = self.users[value]
        return self.scales(user) if user.op_type == "QuantizeLinear" else self.scales_of(user.output[0])


@dataclass(frozen=True)
class Context:
    """What a rule needs: both graphs, and the TFLite tensor of each ONNX value."""

    reader: Reader
    writer: Writer
    made: dict[str, int]

    def constant(self, name: str, transpose: tuple[int, ...], axis: int = 0) -> int:
        """The constant behind a DequantizeLinear, transposed, scales along `axis`."""
        node = next(n for n in self.reader.nodes if name in n.output)
        found = self.reader.scales(node)
        values = self.reader.values[node.input[0]].transpose(transpose)
        return self.writer.constant(values, Scales(found.scale, found.zero_point, axis))


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def _window(c: Context, x: int, kernel: list[int], strides: list[int], pads: list[int]) -> tuple[int, int, list[int]]:
    """(input, padded if need be; TFLite's padding; output's height and width)."""
    writer, size = c.writer, c.writer.shape(x)[1:3]
    out = [(n + pads[i] + pads[i + 2] - kernel[i]) // strides[i] + 1 for i, n in enumerate(size)]
    total = [max((-(-n // s) - 1) * s + k - n, 0) for n, s, k in zip(size, strides, kernel, strict=True)]
    if pads == [t // 2 for t in total] + [t - t // 2 for t in total]:
        return x, writer.schema.Padding.SAME, out
    if any(pads):
        x = _pad(c, x, [(0, 0), (pads[0], pads[2]), (pads[1], pads[3]), (0, 0)], writer.scales(x))
    return x, writer.schema.Padding.VALID, out


def _pad(c: Context, x: int, pads: list[tuple[int, int]], scales: Scales) -> int:
    """Pad with the zero point; NHWC."""
    shape = tuple(n + sum(p) for n, p in zip(c.writer.shape(x), pads, strict=True))
    y = c.writer.tensor(shape, "INT8", scales)
    return c.writer.emit("PAD", [x, c.writer.constant(np.array(pads, np.int32))], y, ("PadOptions", {}))


def conv(c: Context, node: onnx.NodeProto) -> int:
    a = _attributes(node)
    group, kernel = a["group"], list(a["kernel_shape"])
    x, padding, (height, width) = _window(c, c.made[node.input[0]], kernel, list(a["strides"]), list(a["pads"]))
    order, axis = ((1, 2, 3, 0), 3) if group > 1 else ((0, 2, 3, 1), 0)
    w = c.constant(node.input[1], order, axis)
    channels = c.writer.shape(w)[axis]
    bias = c.constant(node.input[2], (0,))
    y = c.writer.tensor((c.writer.shape(x)[0], height, width, channels), "INT8", c.reader.scales_of(node.output[0]))
    fields = {"padding": padding, "strideH": a["strides"][0], "strideW": a["strides"][1]}
    if group == 1:
        return c.writer.emit("CONV_2D", [x, w, bias], y, ("Conv2DOptions", fields))
    if group != channels:
        raise ValueError(f"{node.name}: {group} groups of {channels} channels")
    fields["depthMultiplier"] = 1
    return c.writer.emit("DEPTHWISE_CONV_2D", [x, w, bias], y, ("DepthwiseConv2DOptions", fields))


def max_pool(c: Context, node: onnx.NodeProto) -> int:
    a, x = _attributes(node), c.made[node.input[0]]
    if c.writer.scales(x).zero_point[0] != -128:
        raise ValueError(f"{node.name}: padding with the zero point is right only where no number is below it")
    kernel, strides = list(a["kernel_shape"]), list(a["strides"])
    x, padding, (height, width) = _window(c, x, kernel, strides, list(a["pads"]))
    batch, _, _, channels = c.writer.shape(x)
    y = c.writer.tensor((batch, height, width, channels), "INT8", c.reader.scales_of(node.output[0]))
    fields = {"padding": padding, "strideH": strides[0], "strideW": strides[1]}
    fields |= {"filterHeight": kernel[0], "filterWidth": kernel[1]}
    return c.writer.emit("MAX_POOL_2D", [x], y, ("Pool2DOptions", fields))


def add(c: Context, node: onnx.NodeProto) -> int:
    inputs = [c.made[name] for name in node.input]
    y = c.writer.tensor(c.writer.shape(inputs[0]), "INT8", c.reader.scales_of(node.output[0]))
    return c.writer.emit("ADD", inputs, y, ("AddOptions", {}))


def mean(c: Context, node: onnx.NodeProto) -> int:
    """Over height and width, to [N, C]."""
    x = c.made[node.input[0]]
    batch, _, _, channels = c.writer.shape(x)
    y = c.writer.tensor((batch, channels), "INT8", c.reader.scales_of(node.output[0]))
    axes = c.writer.constant(np.array([1, 2], np.int32))
    return c.writer.emit("MEAN", [x, axes], y, ("ReducerOptions", {"keepDims": False}))


def gemm(c: Context, node: onnx.NodeProto) -> int:
    x, order = c.made[node.input[0]], (0, 1) if _attributes(node)["transB"] else (1, 0)
    w, bias = c.constant(node.input[1], order), c.constant(node.input[2], (0,))
    y = c.writer.tensor((c.writer.shape(x)[0], c.writer.shape(w)[0]), "INT8", c.reader.scales_of(node.output[0]))
    return c.writer.emit("FULLY_CONNECTED", [x, w, bias], y, ("FullyConnectedOptions", {}))


def pad(c: Context, node: onnx.NodeProto) -> int:
    before, after = np.split(c.reader.values[node.input[1]], 2)
    pads = [(0, 0)] * 4
    for axis, low, high in zip(NHWC, before, after, strict=True):
        pads[axis] = (int(low), int(high))
    return _pad(c, c.made[node.input[0]], pads, c.reader.scales_of(node.output[0]))


def strided_slice(c: Context, node: onnx.NodeProto) -> int:
    starts, ends, axes, steps = (c.reader.values[name] for name in node.input[1:5])
    x = c.made[node.input[0]]
    size = list(c.writer.shape(x))
    begin, end, strides = [0] * 4, list(size), [1] * 4
    for start, stop, axis, step in zip(starts, ends, axes, steps, strict=True):
        at = NHWC[axis]
        begin[at], end[at], strides[at] = int(start), min(int(stop), size[at]), int(step)
    shape = tuple(-(-(e - b) // s) for b, e, s in zip(begin, end, strides, strict=True))
    y = c.writer.tensor(shape, "INT8", c.reader.scales_of(node.output[0]))
    bounds = [c.writer.constant(np.array(v, np.int32)) for v in (begin, end, strides)]
    return c.writer.emit("STRIDED_SLICE", [x, *bounds], y, ("StridedSliceOptions", {}))


RULES: dict[str, Callable[[Context, onnx.NodeProto], int]] = {
    "Add": add,
    "Conv": conv,
    "Gemm": gemm,
    "MaxPool": max_pool,
    "Pad": pad,
    "ReduceMean": mean,
    "Slice": strided_slice,
}


def tflite(model: onnx.ModelProto, batch: int) -> bytes:
    """A .tflite file with float input [batch, H, W, 3] and float output [batch, classes].

    Args:
        model: of onnxruntime.quantization.quantize_static: QDQ, s8 weights per channel, no activation nodes left.
        batch: size of the first dimension.

    Raises:
        ValueError: an operator or a form that no rule covers.
    """
    reader, writer = Reader(model), Writer()
    _, channels, height, width = reader.source_shape
    source = writer.tensor((batch, height, width, channels), "FLOAT32")
    c = Context(reader, writer, {reader.source: source})
    for node in reader.nodes:
        _convert(c, node)
    y = c.made[reader.target]
    target = writer.emit("DEQUANTIZE", [y], writer.tensor(writer.shape(y), "FLOAT32"), ("DequantizeOptions", {}))
    return writer.finish(source, target)


def _convert(c: Context, node: onnx.NodeProto) -> None:
    first = node.input[0]
    if first not in c.made or node.op_type == "Shape":  # constants, and arithmetic on the batch size
        return
    if node.op_type == "QuantizeLinear" and first == c.reader.source:
        y = c.writer.tensor(c.writer.shape(c.made[first]), "INT8", c.reader.scales(node))
        c.made[node.output[0]] = c.writer.emit("QUANTIZE", [c.made[first]], y, ("QuantizeOptions", {}))
    elif node.op_type in ("QuantizeLinear", "DequantizeLinear", *IDENTITIES):
        c.made[node.output[0]] = c.made[first]
    elif node.op_type in RULES:
        c.made[node.output[0]] = RULES[node.op_type](c, node)
    else:
        raise ValueError(f"no rule for {node.op_type}")
