"""QuantizeLinear/DequantizeLinear pairs: how they are recognised and inserted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from mulshift.ir import QParams, QuantSpec, add_initializer, attribute, constant, inherit_origin, users

BITS = "mulshift.bits"
"""In `metadata_props` of the pair of low-bit weights: their bits, where the type that stores them has more values."""


def is_quantized(value: ir.Value) -> bool:
    """Whether a QuantizeLinear reads the value."""
    readers = (node for node in users(value) if node.op_type in ("QuantizeLinear", "DynamicQuantizeLinear"))
    return any(node.inputs[0] is value for node in readers)


def is_dequantized(value: ir.Value) -> bool:
    """Whether a DequantizeLinear made the value."""
    node = value.producer()
    return node is not None and node.op_type == "DequantizeLinear"


def pair_source(node: ir.Node) -> ir.Value | None:
    """The float value that a DequantizeLinear stands for, if a QuantizeLinear with a known input precedes it."""
    if node.op_type != "DequantizeLinear" or node.inputs[0] is None:
        return None
    quantize = node.inputs[0].producer()
    return quantize.inputs[0] if quantize is not None and quantize.op_type == "QuantizeLinear" else None


def pair_qparams(node: ir.Node) -> QParams | None:
    """The quantization that a DequantizeLinear with constant parameters states; None if they are not constant.

    Weights that `insert-fake-quant` gave fewer bits than their type has say so (`BITS`): `spec.bits` of 4 and less is
    then signed and symmetric, {-7..7}, {-3..3}, {-1, 0, 1} or {-1, 1}. Blocks become `spec.group` along `spec.axis`.
    """
    integers, scale = node.inputs[0], constant(node.inputs[1])
    zero_point = constant(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] is not None else None
    if integers is None or integers.dtype is None or scale is None:
        return None
    group = int(attribute(node, "block_size", 0)) or None
    axis = None if scale.size == 1 and group is None else int(attribute(node, "axis", 1))
    if group is not None and axis is not None:
        axis %= scale.ndim
    scale = scale.reshape(()) if axis is None else scale
    numbers = (
        np.zeros(scale.shape, np.int32) if zero_point is None else zero_point.astype(np.int32).reshape(scale.shape)
    )
    bits = node.metadata_props.get(BITS)
    if bits is not None:
        return QParams(scale, numbers, QuantSpec(int(bits), signed=True, symmetric=True, axis=axis, group=group))
    width, signed = integers.dtype.bitwidth, integers.dtype.is_signed()
    return QParams(scale, numbers, QuantSpec(width, signed, symmetric=False, axis=axis, group=group))


@dataclass
class PairInserter:
    """Inserts pairs into one graph and names what it makes."""

    graph: ir.Graph
    _taken: set[str] = field(default_factory=set, init=False, repr=False)

    def __post_init__(self) -> None:
        self._taken = {str(v.name) for v in self.graph.inputs} | set(self.graph.initializers)
        for node in self.graph.all_nodes():
            self._taken |= {str(node.name), *(str(v.name) for v in node.outputs)}

    def insert(self, value: ir.Value, q: QParams, uses: Sequence[tuple[ir.Node, int]] | None, base: str) -> ir.Value:
        """`value -> QuantizeLinear -> DequantizeLinear -> uses` with scales of its own.

        Args:
            value: an activation or an initializer.
            q: its quantization; per channel along `q.spec.axis` if its scale has channels, in blocks along it if
                `q.spec.group` is given.
            uses: (node, input index) to redirect; None for all, graph outputs included.
            base: new names start with it.

        Returns:
            The dequantized value.
        """
        zero_point = q.zero_point.astype(q.spec.dtype.numpy())
        parameters = (self._parameter(f"{base}.scale", q.scale), self._parameter(f"{base}.zero_point", zero_point))
        result = self._pair(value, parameters, q.spec.dtype, _attributes(q), uses, base)
        if q.spec.symmetric and q.spec.bits <= 4:
            _note_bits(result, q.spec.bits)
        return result

    def insert_like(self, value: ir.Value, model: ir.Node) -> ir.Value:
        """A pair with the very scale and zero point of an existing per-tensor DequantizeLinear, for all uses."""
        integers = model.inputs[0]
        assert integers is not None and integers.dtype is not None and model.inputs[1] is not None
        parameters = (model.inputs[1], model.inputs[2])
        return self._pair(value, parameters, integers.dtype, {}, None, str(value.name))

    def _parameter(self, name: str, array: object) -> ir.Value:
        return add_initializer(self.graph, self._fresh(name), array)  # type: ignore[arg-type]

    def _pair(
        self,
        value: ir.Value,
        parameters: tuple[ir.Value, ir.Value | None],
        dtype: ir.DataType,
        attributes: Mapping[str, int],
        uses: Sequence[tuple[ir.Node, int]] | None,
        base: str,
    ) -> ir.Value:
        if value.dtype is not None and value.dtype != ir.DataType.FLOAT:
            raise ValueError(f"{value.name} is {value.dtype}, not float32")
        integers = ir.Value(name=self._fresh(f"{base}.q"), type=ir.TensorType(dtype), shape=value.shape)
        result = ir.Value(name=self._fresh(f"{base}.dq"), type=value.type, shape=value.shape)
        names = (self._fresh(f"{base}.quantize"), self._fresh(f"{base}.dequantize"))
        quantize = ir.node("QuantizeLinear", [value, *parameters], attributes, outputs=[integers], name=names[0])
        dequantize = ir.node("DequantizeLinear", [integers, *parameters], attributes, outputs=[result], name=names[1])
        redirected = [(u.node, u.idx) for u in value.uses() if u.node is not quantize] if uses is None else uses
        self._place(value, [quantize, dequantize], [node for node, _ in redirected])
        for node, index in redirected:
            node.replace_input_with(index, result)
        if uses is None and value.is_graph_output() and not value.is_graph_input():
            self._replace_output(value, result)
        return result

    def _place(self, value: ir.Value, nodes: list[ir.Node], readers: list[ir.Node]) -> None:
        """Right behind the producer; a graph input's or initializer's pair right before its first reader."""
        producer = value.producer()
        if producer is not None:
            self.graph.insert_after(producer, nodes)
            inherit_origin(nodes, [producer])
            return
        own = {node for node in readers if node.graph is self.graph}
        first = next((node for node in self.graph if node in own), self.graph[0])
        self.graph.insert_before(first, nodes)
        if own:
            inherit_origin(nodes, [first])

    def _replace_output(self, value: ir.Value, result: ir.Value) -> None:
        """The pair's output takes over the graph output and its name."""
        name = str(value.name)
        for i, output in enumerate(self.graph.outputs):
            if output is value:
                self.graph.outputs[i] = result
        value.name = self._fresh(f"{name}.float")
        result.name = name

    def _fresh(self, base: str) -> str:
        name, i = base, 0
        while name in self._taken:
            i += 1
            name = f"{base}_{i}"
        self._taken.add(name)
        return name


def _attributes(q: QParams) -> dict[str, int]:
    """What both nodes of a pair carry."""
    if q.per_tensor or q.spec.axis is None:
        return {}
    return {"axis": q.spec.axis} | ({"block_size": q.spec.group} if q.spec.group else {})


def _note_bits(dequantized: ir.Value, bits: int) -> None:
    dequantize = dequantized.producer()
    quantize = None if dequantize is None or dequantize.inputs[0] is None else dequantize.inputs[0].producer()
    for node in (dequantize, quantize):
        if node is not None:
            node.metadata_props[BITS] = str(bits)
