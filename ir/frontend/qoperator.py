"""QOperator models (QLinearConv, QGemm, QLinearAdd, ...) into DequantizeLinear -> float operator -> QuantizeLinear.

A row says where an operator keeps tensors, scales and zero points. Operators that move integers (Reshape, MaxPool, ...)
between them get the same frame with the scale of their input, so that every operator between pairs is a float one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from mulshift.ir.errors import ModelError, UnsupportedError
from mulshift.ir.graphs import add_initializer, attribute, constant
from mulshift.ir.metadata import describe, inherit_origin
from mulshift.ir.types import Array

Triple = tuple[int, int, int]
"""Input indices of a tensor, its scale and its zero point."""
Pair = tuple[ir.Value | None, ir.Value | None]
"""Scale and zero point."""


@dataclass(frozen=True)
class Row:
    """Layout of one quantized operator.

    Attributes:
        op: the float operator.
        tensors: where its quantized inputs are, in the float operator's order.
        output: where scale and zero point of the output are; a missing scale means float output.
        bias: where an int32 bias at `s_x * s_w * alpha` is.
        plain: input that is passed on as it is, before the others.
    """

    op: str
    tensors: tuple[Triple, ...]
    output: tuple[int, int]
    bias: int | None = None
    plain: int | None = None


def _unary(op: str) -> Row:
    return Row(op, ((0, 1, 2),), (3, 4))


def _binary(op: str) -> Row:
    return Row(op, ((0, 1, 2), (3, 4, 5)), (6, 7))


ROWS: Mapping[str, Row] = {
    "QLinearConv": Row("Conv", ((0, 1, 2), (3, 4, 5)), (6, 7), bias=8),
    "QGemm": Row("Gemm", ((0, 1, 2), (3, 4, 5)), (7, 8), bias=6),
    "QLinearMatMul": _binary("MatMul"),
    "QLinearAdd": _binary("Add"),
    "QLinearMul": _binary("Mul"),
    "QLinearAveragePool": _unary("AveragePool"),
    "QLinearGlobalAveragePool": _unary("GlobalAveragePool"),
    "QLinearLeakyRelu": _unary("LeakyRelu"),
    "QLinearReduceMean": _unary("ReduceMean"),
    "QLinearSigmoid": _unary("Sigmoid"),
    "QLinearSoftmax": _unary("Softmax"),
    "QLinearWhere": Row("Where", ((1, 2, 3), (4, 5, 6)), (7, 8), plain=0),
}

MOVERS = frozenset(
    """
    Concat DepthToSpace Expand Flatten Gather GatherElements GatherND Identity MaxPool Reshape Slice SpaceToDepth Split
    Squeeze Tile Transpose Unsqueeze
    """.split()
)
"""Operators whose integers and reals move alike; the indices of a Gather are not data."""

_ONE_INPUT = MOVERS - {"Concat"}


@dataclass
class QOperators:
    """Rewrites one graph in place.

    Attributes:
        graph: its nodes in a topological order.
        known: integer value -> the scale and zero point it was made with.
    """

    graph: ir.Graph
    known: dict[ir.Value, Pair] = field(default_factory=dict)
    _reals: dict[tuple[ir.Value, bytes, bytes, int | None], ir.Value] = field(default_factory=dict, repr=False)
    _taken: set[str] = field(default_factory=set, repr=False)

    def __post_init__(self) -> None:
        self._taken = {str(v.name) for v in self.graph.inputs} | set(self.graph.initializers)
        self._taken |= {str(v.name) for node in self.graph.all_nodes() for v in node.outputs}

    def rewrite(self) -> None:
        """Replace every quantized operator and every mover of integers.

        Raises:
            UnsupportedError: a layout or option that has no QDQ form; names the node.
        """
        for node in list(self.graph):
            if node.op_type == "QuantizeLinear":
                self.known[node.outputs[0]] = _pair(node, 1, 2)
            elif node.op_type == "DequantizeLinear":
                self._remember(node)
            elif node.op_type == "QLinearConcat":
                self._concat(node)
            elif node.op_type in ROWS:
                self._operator(node, ROWS[node.op_type])
            elif node.op_type in MOVERS and not node.domain:
                self._mover(node)

    def _remember(self, node: ir.Node) -> None:
        """A DequantizeLinear that is already there serves every reader of the same integers at the same scale."""
        x, (scale, zero_point) = node.inputs[0], _pair(node, 1, 2)
        assert x is not None
        self._reals.setdefault(_key(x, scale, zero_point, _axis_of(node, scale)), node.outputs[0])

    def _operator(self, node: ir.Node, row: Row) -> None:
        attributes, extra = _options(node)
        axes = _weight_axes(node, row)
        inputs = [] if row.plain is None else [node.inputs[row.plain]]
        inputs += [self._real(node, t, axis) for t, axis in zip(row.tensors, axes, strict=True)]
        bias = _input(node, row.bias)
        if bias is not None:
            inputs.append(self._bias(node, row, bias))
        inputs += [add_initializer(self.graph, f"{node.name}.{k}", v) for k, v in extra.items()]
        self._write(node, row.op, inputs, attributes, [_pair(node, *row.output)])

    def _concat(self, node: ir.Node) -> None:
        """QLinearConcat(scale, zero point, then a triple for each input)."""
        triples = [(i, i + 1, i + 2) for i in range(2, len(node.inputs), 3)]
        inputs = [self._real(node, t, None) for t in triples]
        self._write(node, "Concat", inputs, _options(node)[0], [_pair(node, 0, 1)])

    def _mover(self, node: ir.Node) -> None:
        data = [v for v in (node.inputs[:1] if node.op_type in _ONE_INPUT else node.inputs) if v is not None]
        pairs = [self.known.get(v) for v in data]
        first = pairs[0] if pairs else None
        if first is None or any(p is None or not _same(p, first) for p in pairs):
            return
        if len(node.outputs) > 1 and node.op_type == "MaxPool":
            raise UnsupportedError(describe(node), "MaxPool of integers with indices", "quantize in the QDQ format")
        reals = [self._dequantized(node, v, *first, None) for v in data]
        inputs = [*reals, *node.inputs[len(data) :]]
        self._write(node, node.op_type, inputs, node.attributes, [first] * len(node.outputs))

    def _write(
        self,
        node: ir.Node,
        op: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, ir.Attr],
        outputs: Sequence[Pair],
    ) -> None:
        """Put `op` in the place of `node`, and a QuantizeLinear behind each output that has a scale."""
        ends = list(zip(node.outputs, outputs, strict=True))
        values = [self._float_twin(v, integer=scale is not None) for v, (scale, _) in ends]
        made = [ir.Node("", op, inputs, attributes.values(), outputs=values, name=node.name)]
        for old, value, (scale, zero_point) in zip(node.outputs, values, outputs, strict=True):
            if scale is None:
                self._take_over(old, value)
                continue
            quantize = ir.node("QuantizeLinear", [value, scale, zero_point], name=f"{node.name}.quantize")
            integers = quantize.outputs[0]
            integers.type, integers.shape = old.type, old.shape
            self._take_over(old, integers)
            self.known[integers] = (scale, zero_point)
            made.append(quantize)
        self.graph.insert_before(node, made)
        inherit_origin(made, [node])
        self.graph.remove(node, safe=True)

    def _float_twin(self, value: ir.Value, integer: bool) -> ir.Value:
        """The float value that an integer one stands for: `conv1` for `conv1_quantized`, where that name is free."""
        base = str(value.name).removesuffix("_quantized") if integer else str(value.name)
        name = self._fresh(base if base != value.name else f"{base}.float")
        return ir.Value(name=name, type=ir.TensorType(ir.DataType.FLOAT), shape=value.shape)

    def _fresh(self, base: str) -> str:
        name, count = base, 0
        while name in self._taken:
            count += 1
            name = f"{base}_{count}"
        self._taken.add(name)
        return name

    def _take_over(self, old: ir.Value, new: ir.Value) -> None:
        """`new` gets the name, the readers and the place among the graph's outputs of `old`."""
        name, old.name = old.name, None
        new.name = name
        old.replace_all_uses_with(new, replace_graph_outputs=True)

    def _real(self, node: ir.Node, triple: Triple, axis: int | None) -> ir.Value:
        value = _input(node, triple[0])
        scale, zero_point = _pair(node, triple[1], triple[2])
        if value is None or scale is None:
            raise ModelError(describe(node), "lacks an input or its scale", "export it again")
        return self._dequantized(node, value, scale, zero_point, axis)

    def _dequantized(
        self, node: ir.Node, value: ir.Value, scale: ir.Value | None, zero_point: ir.Value | None, axis: int | None
    ) -> ir.Value:
        """The reals of an integer value: one DequantizeLinear for all readers at one scale."""
        assert scale is not None
        array = _numbers(node, scale)
        axis = None if array.size == 1 else axis
        if array.size > 1 and axis is None:
            raise UnsupportedError(describe(node), "a scale per channel on this input", "quantize it per tensor")
        key = _key(value, scale, zero_point, axis)
        if key not in self._reals:
            pair = [self._flat(v) for v in (scale, zero_point) if v is not None]
            attributes = {} if axis is None else {"axis": axis}
            name = self._fresh(f"{str(value.name).removesuffix('_quantized')}.dq")
            made = ir.node("DequantizeLinear", [value, *pair], attributes, name=name)
            made.outputs[0].name, made.outputs[0].dtype, made.outputs[0].shape = name, ir.DataType.FLOAT, value.shape
            self.graph.insert_before(node, made)
            inherit_origin([made], [node])
            self._reals[key] = made.outputs[0]
        return self._reals[key]

    def _flat(self, value: ir.Value) -> ir.Value:
        """A scale or zero point of shape [1, 1, N] as [N], which is how DequantizeLinear wants it."""
        array = constant(value)
        if array is None or array.ndim < 2:
            return value
        return add_initializer(self.graph, f"{value.name}.flat", array.reshape(-1))

    def _bias(self, node: ir.Node, row: Row, bias: ir.Value) -> ir.Value:
        """int32 bias behind a DequantizeLinear at `alpha * s_x * s_w[c]`, computed in float32 like the kernels do."""
        x, w = (_numbers(node, node.inputs[t[1]]) for t in row.tensors)
        scale = (np.float32(attribute(node, "alpha", 1.0)) * x.reshape(-1)[0] * w.reshape(-1)).astype(np.float32)
        parameter = add_initializer(self.graph, f"{bias.name}.scale", scale if scale.size > 1 else scale.reshape(()))
        rank = len(bias.shape) if bias.shape is not None else 1
        return self._dequantized(node, bias, parameter, None, rank - 1)


def _input(node: ir.Node, index: int | None) -> ir.Value | None:
    return node.inputs[index] if index is not None and index < len(node.inputs) else None


def _pair(node: ir.Node, scale: int, zero_point: int) -> Pair:
    return _input(node, scale), _input(node, zero_point)


def _numbers(node: ir.Node, value: ir.Value | None) -> Array:
    array = constant(value)
    if array is None:
        raise UnsupportedError(describe(node), "its scale is computed at run time", "quantize it statically")
    return array


def _key(
    value: ir.Value, scale: ir.Value | None, zero_point: ir.Value | None, axis: int | None
) -> tuple[ir.Value, bytes, bytes, int | None]:
    return value, _bytes(scale), _bytes(zero_point), axis


def _bytes(value: ir.Value | None) -> bytes:
    """Numbers of a parameter; a missing zero point is a zero, a computed one is only itself."""
    if value is None:
        return b""
    array = constant(value)
    if array is None:
        return str(value.name).encode()
    return b"" if array.dtype.kind in "iu" and not array.any() else array.tobytes()


def _same(a: Pair, b: Pair) -> bool:
    return _bytes(a[0]) == _bytes(b[0]) and _bytes(a[1]) == _bytes(b[1])


def _axis_of(node: ir.Node, scale: ir.Value | None) -> int | None:
    array = constant(scale)
    return None if array is None or array.size == 1 else int(attribute(node, "axis", 1))


def _weight_axes(node: ir.Node, row: Row) -> list[int | None]:
    """Channel axis of each input, should it have a scale a channel: only weights do."""
    if row.op == "Conv":
        return [None, 0]
    if row.op == "Gemm":
        return [None, 0 if attribute(node, "transB", 0) else 1]
    if row.op == "MatMul":
        shape = node.inputs[3].shape if node.inputs[3] is not None else None
        return [None, None if shape is None else len(shape) - 1]
    return [None] * len(row.tensors)


def _options(node: ir.Node) -> tuple[dict[str, ir.Attr], dict[str, Array]]:
    """Attributes of the float operator, and what has become an input since.

    Raises:
        UnsupportedError: channels last, or the softmax of opset 12 over more than one axis.
    """
    attributes = dict(node.attributes)
    channels_last = attributes.pop("channels_last", None)
    if channels_last is not None and channels_last.value:
        raise UnsupportedError(describe(node), "channels last", "quantize the model in channels-first layout")
    extra: dict[str, Array] = {}
    if node.op_type == "QLinearReduceMean" and "axes" in attributes:
        extra["axes"] = np.asarray(attributes.pop("axes").value, np.int64)
    if node.op_type == "QLinearSoftmax":
        opset = attributes.pop("opset", None)
        rank = len(node.inputs[0].shape) if node.inputs[0] is not None and node.inputs[0].shape is not None else None
        last = attribute(node, "axis", -1) in (-1, None if rank is None else rank - 1)
        if opset is not None and opset.value < 13 and not last:
            raise UnsupportedError(describe(node), "softmax over several axes (opset 12)", "export with opset 13")
    return attributes, extra
