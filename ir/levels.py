"""What each level may hold (docs/architecture.md): `check` lists what is wrong, `require` raises it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import onnx_ir as ir

from mulshift.ir.dyadic import INT32_LIMIT
from mulshift.ir.errors import ModelError
from mulshift.ir.frontend.opset import OPSET
from mulshift.ir.frontend.validate import is_known
from mulshift.ir.graphs import constant, is_float, users
from mulshift.ir.metadata import describe, get_level
from mulshift.ir.operators import DOMAIN, OPERATORS
from mulshift.ir.operators.norm import NORM_ROWS
from mulshift.ir.operators.packed import PACKED
from mulshift.ir.types import Array, Level

FLOAT_REASON = "mulshift.float_reason"
BOUND = "mulshift.accumulator_bound"
WIDTH = "mulshift.width"

_BORDER = frozenset({"QuantizeLinear", "DequantizeLinear"})
_QUANTIZED = frozenset({"DynamicQuantizeLinear", "ConvInteger", "MatMulInteger"})
_BOUNDED = frozenset("Conv ConvAccumulate Gemm GemmAccumulate MatMul Affine ReduceMean Lerp LayerNorm RmsNorm".split())
_BOUNDED |= {"RotaryEmbedding", "Hadamard", *NORM_ROWS.values()}
_BOUNDED |= {op.name for op in PACKED}
_REQUANTIZED = frozenset(name for name in _BOUNDED if not name.endswith("Accumulate")) - {"Lerp"}
"""Operators that end in a dyadic multiply, whose width is recorded; the others hand out the accumulator."""
_BOUNDED |= {"Attention", "MaskedAttention", "FlatAttention", "FlatMaskedAttention"}
"""Their b / 2^c are each row's own, found when they run, so they have no width; neither has Softmax, nor int32 sums."""


def check(model: ir.Model) -> list[str]:
    """Everything that the model's recorded level forbids, one line each, in graph order; empty if it is legal."""
    return [*_common(model), *_CHECKS[get_level(model)](model)]


def require(model: ir.Model) -> None:
    """Refuse a model that breaks its level.

    Raises:
        ModelError: tells the first breach and how many there are.
    """
    found = check(model)
    if found:
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise ModelError(f"{get_level(model)} graph", found[0] + more)


def float_nodes(model: ir.Model) -> list[ir.Node]:
    """Nodes of the main graph that compute in floating point, the border QuantizeLinear and DequantizeLinear aside.

    A node counts if it makes a float, or reads one that is not constant (the scales of a Resize are a constant), also
    inside its subgraphs.
    """
    idle = _BORDER | {"Constant"}
    return [node for node in model.graph if node.op_type not in idle and _computes_float(node)]


def _computes_float(node: ir.Node) -> bool:
    if any(is_float(v) for v in node.outputs):
        return True
    if any(is_float(v) and constant(v) is None for v in node.inputs):
        return True
    return any(_computes_float(inner) for graph in _subgraphs(node) for inner in graph)


def _subgraphs(node: ir.Node) -> Iterator[ir.Graph]:
    for attr in node.attributes.values():
        if attr.type == ir.AttributeType.GRAPH:
            yield attr.as_graph()
        elif attr.type == ir.AttributeType.GRAPHS:
            yield from attr.as_graphs()


def _common(model: ir.Model) -> Iterator[str]:
    version = model.opset_imports.get("", 0)
    if version < OPSET:
        yield f"opset {version} is older than {OPSET}"
    seen: set[str] = set()
    for node in model.graph:
        if not node.name:
            yield f"{describe(node)} has no name"
        elif node.name in seen:
            yield f"{describe(node)} shares its name with another node"
        seen.add(str(node.name))
        if not is_known(node, model.opset_imports) and node.op_identifier() not in model.functions:
            yield f"{describe(node)} is of the unknown operator '{node.domain}::{node.op_type}'"
        if node.op_type == "Constant" and not node.outputs[0].is_graph_output():
            yield f"{describe(node)} is to be an initializer"


def _float(model: ir.Model) -> Iterator[str]:
    for node in model.graph:
        if node.domain == DOMAIN or node.op_type in _BORDER or _is_quantized(node):
            yield f"{describe(node)} is quantized"


def _is_quantized(node: ir.Node) -> bool:
    return node.op_type in _QUANTIZED or (node.op_type.startswith(("QLinear", "QGemm", "QAttention")))


def _qdq(model: ir.Model) -> Iterator[str]:
    for node in model.graph:
        if node.domain == DOMAIN or _is_quantized(node):
            yield f"{describe(node)} is not a float operator between pairs"
        elif node.op_type in _BORDER:
            yield from _parameters(node)
            yield from _quantize(node) if node.op_type == "QuantizeLinear" else _dequantize(node)
    kinds = {node.op_type for node in model.graph if FLOAT_REASON not in node.metadata_props and _computes_float(node)}
    if kinds and "QuantizeLinear" not in {node.op_type for node in model.graph}:
        yield "no QuantizeLinear: this is a FLOAT graph"


def _parameters(node: ir.Node) -> Iterator[str]:
    scale = constant(node.inputs[1])
    if scale is None or (len(node.inputs) > 2 and node.inputs[2] is not None and constant(node.inputs[2]) is None):
        yield f"{describe(node)} has a scale or zero point that is not constant"
    elif not (np.isfinite(scale).all() and (scale > 0).all()):
        yield f"{describe(node)} has a scale that is not a positive number"


def _quantize(node: ir.Node) -> Iterator[str]:
    for reader in users(node.outputs[0]):
        if reader.op_type != "DequantizeLinear":
            yield f"{describe(reader)} reads the integers of {describe(node)}"
        elif not _equal(node, reader):
            yield f"{describe(reader)} has another scale or zero point than {describe(node)}"


def _dequantize(node: ir.Node) -> Iterator[str]:
    source = node.inputs[0]
    producer = source.producer() if source is not None else None
    if producer is not None and producer.op_type != "QuantizeLinear" and constant(source) is None:
        yield f"{describe(node)} reads integers that {describe(producer)} computes"


def _equal(quantize: ir.Node, dequantize: ir.Node) -> bool:
    """Same scale and zero point; an absent zero point is 0."""
    for index in (1, 2):
        a, b = (_parameter(node, index) for node in (quantize, dequantize))
        if not bool((a == b).all()):
            return False
    return True


def _parameter(node: ir.Node, index: int) -> Array:
    found = constant(node.inputs[index]) if len(node.inputs) > index else None
    return np.zeros(()) if found is None else found


def _integer(model: ir.Model) -> Iterator[str]:
    enclosing = {inner: node for node in model.graph for graph in _subgraphs(node) for inner in graph.all_nodes()}
    for node in model.graph:
        yield from _border(node, enclosing)
        if node.domain == DOMAIN:
            yield from _accumulator(node)
    for node in float_nodes(model):
        if FLOAT_REASON not in node.metadata_props:
            yield f"{describe(node)} computes in floating point without a reason"


def _border(node: ir.Node, enclosing: Mapping[ir.Node, ir.Node]) -> Iterator[str]:
    """A QuantizeLinear reads the user's floats or an island's, a DequantizeLinear writes to them.

    A reader inside a subgraph belongs to the main graph's node that encloses it.
    """
    if node.op_type == "QuantizeLinear":
        producer = node.inputs[0].producer() if node.inputs[0] is not None else None
        if producer is not None and producer.op_type in _BORDER:
            yield f"{describe(node)} requantizes through floating point"
    if node.op_type == "DequantizeLinear" and constant(node.inputs[0]) is None:
        for reader in dict.fromkeys(enclosing.get(n, n) for n in users(node.outputs[0])):
            if reader.op_type not in _BORDER and FLOAT_REASON not in reader.metadata_props:
                yield f"{describe(reader)} reads floats of {describe(node)} without a reason"


def _accumulator(node: ir.Node) -> Iterator[str]:
    if node.op_type not in OPERATORS:
        yield f"{describe(node)} is no operator of {DOMAIN}"
        return
    bound, width = node.metadata_props.get(BOUND, ""), node.metadata_props.get(WIDTH)
    if node.op_type in _BOUNDED and not (bound.isdigit() and int(bound) < INT32_LIMIT):
        yield f"{describe(node)} has no proven accumulator bound below 2^31, but {bound!r}"
    if node.op_type in _REQUANTIZED and width not in ("narrow", "wide"):
        yield f"{describe(node)} has no width, but {width!r}"


_CHECKS: Mapping[Level, Callable[[ir.Model], Iterator[str]]] = {
    Level.FLOAT: _float,
    Level.QDQ: _qdq,
    Level.INTEGER: _integer,
}
