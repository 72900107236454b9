"""The walk over a QDQ graph in topological order: pairs, image inputs, movers, shapes, graph outputs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from mulshift.ir import ACTIVATION_U8, QParams, QuantSpec, constant, set_qparams, users
from mulshift.passes.integer.compare import COMPARISONS, NEVER, compare, never
from mulshift.passes.integer.constants import quantized_constant
from mulshift.passes.integer.forms import Mover, NoFormError, Quantized
from mulshift.passes.integer.linear import accumulate
from mulshift.passes.integer.lowering import Lowering
from mulshift.passes.integer.move import THROUGH_S32
from mulshift.passes.integer.products import product_of
from mulshift.passes.integer.quantization import canonical, dequantize_qparams, quantize_qparams, storage

_IMAGE = {ir.DataType.UINT8: ACTIVATION_U8, ir.DataType.INT8: QuantSpec(8, signed=True, symmetric=False)}
_ATTENTION = frozenset({"Attention", "MaskedAttention"})
_ONWARD = frozenset("Concat DequantizeLinear Expand QuantizeLinear Reshape Split Squeeze Transpose Unsqueeze".split())


def walk(low: Lowering) -> None:
    """Write the integer form of everything that has one, before the float nodes, which stay for `finish`."""
    for node in list(low.graph):
        if node.domain not in ("", "ai.onnx"):
            continue
        low.anchor = node
        if node.op_type == "QuantizeLinear":
            _quantize(low, node)
        elif node.op_type == "DequantizeLinear":
            _dequantize(low, node)
        elif node.op_type == "Cast":
            _image(low, node)
        elif node.op_type in ("Shape", "Size"):
            _shape(low, node)
        elif node.op_type in ("ArgMax", "ArgMin"):
            _order(low, node)
        elif node.op_type in COMPARISONS:
            _compare(low, node)
        elif node.op_type in NEVER:
            with low.writing(node):
                never(low, node)
        elif (mover := low.mover_of(node)) is not None:
            _move(low, node, mover)
    low.anchor = None
    for value in low.graph.outputs:
        _output(low, value)


def _quantize(low: Lowering, node: ir.Node) -> None:
    value, q = node.inputs[0], quantize_qparams(node)
    if value is None or q is None or not q.per_tensor or q.spec.bits == 32 or constant(value) is not None:
        return
    y = node.outputs[0]
    plain = y.is_graph_output() or any(n.op_type != "DequantizeLinear" for n in users(y))
    with low.writing(node):
        made = low.quantize(value, q if plain else canonical(q, _second_operand(y)))
    low.integers[y] = made
    if plain:
        low.replaced[y] = made.value


def _second_operand(value: ir.Value, depth: int = 16) -> bool:
    """Whether a product reads it, through movers, as its second operand, which is to be signed."""
    for use in value.uses():
        node = use.node
        if (node.op_type == "MatMul" and use.idx == 1) or (node.op_type in _ATTENTION and use.idx in (1, 2)):
            return True
        onward = node.op_type in _ONWARD and (use.idx == 0 or node.op_type == "Concat")
        if onward and depth and any(_second_operand(v, depth - 1) for v in node.outputs):
            return True
    return False


def _dequantize(low: Lowering, node: ir.Node) -> None:
    x, q = node.inputs[0], dequantize_qparams(node)
    if x is None or q is None or constant(x) is not None or q.spec.bits == 32 or q.spec.group is not None:
        return
    if q.per_tensor and quantized_constant(node.outputs[0]) is not None:
        return  # `lookup` makes a constant of it for those that read it
    if x in low.integers:
        held = low.integers[x]
        shift = 0 if held.q.spec.signed == q.spec.signed else 2 ** (q.spec.bits - 1) * (1 if q.spec.signed else -1)
        low.known[node.outputs[0]] = Quantized(
            held.value, QParams(q.scale, q.zero_point + shift, held.q.spec) if q.per_tensor else q
        )
    elif x.dtype == storage(q.spec):
        producer = x.producer()
        if producer is None or producer.op_type != "QuantizeLinear" or q.per_tensor:
            low.known[node.outputs[0]] = Quantized(x, q)


def _image(low: Lowering, node: ir.Node) -> None:
    """Cast of an integer image to float: scale 1, zero point 0."""
    x = node.inputs[0]
    to = ir.DataType(node.attributes["to"].value)
    if x is not None and x.dtype in _IMAGE and to.is_floating_point() and constant(x) is None:
        q = QParams(np.asarray(1.0), np.asarray(0), _IMAGE[x.dtype])
        set_qparams(x, q)
        low.known[node.outputs[0]] = Quantized(x, q)


def _shape(low: Lowering, node: ir.Node) -> None:
    held = low.lookup(node.inputs[0])
    if held is not None:
        node.replace_input_with(0, held.value)


def _order(low: Lowering, node: ir.Node) -> None:
    """ArgMax and ArgMin read the integers: one scale keeps their order."""
    held = low.lookup(node.inputs[0])
    if held is None or not held.q.per_tensor:
        return
    value = held.value
    if value.dtype == ir.DataType.INT16 and node.op_type in THROUGH_S32:
        with low.writing(node):
            value = low.standard("Cast", [value], {"to": int(ir.DataType.INT32)}, ir.DataType.INT32, value.shape)
    node.replace_input_with(0, value)


def _compare(low: Lowering, node: ir.Node) -> None:
    with low.writing(node):
        compare(low, node)


def _move(low: Lowering, node: ir.Node, mover: Mover) -> None:
    """A mover whose data inputs are integers of one quantization needs no QuantizeLinear after it."""
    held = [(i, low.lookup(node.inputs[i])) for i in mover.data(node)]
    data = {i: h for i, h in held if h is not None and h.q.per_tensor}
    if len(data) != len(held) or len({_key(h.q) for h in data.values()}) != 1:
        return
    with low.writing(node):
        try:
            made: Sequence[ir.Value | None] = mover.write(low, node, data)
        except NoFormError as e:
            low.reasons.setdefault(node, str(e))
            return
    q = next(iter(data.values())).q
    for old, new in zip(node.outputs, made, strict=False):
        if new is not None:
            low.known[old] = low.hold(new, q, old)


def _key(q: QParams) -> tuple[float, int, QuantSpec]:
    return float(q.scale), int(q.zero_point), q.spec


def _output(low: Lowering, value: ir.Value) -> None:
    """A product that the graph returns gives its accumulator."""
    if low.lookup(value) is not None:
        return
    node = value.producer()
    if node is None:
        return
    with low.writing(node):
        try:
            product = product_of(low, value)
            if product is not None:
                low.known[value] = accumulate(low, product, value)
        except NoFormError as e:
            low.reasons.setdefault(node, str(e))
