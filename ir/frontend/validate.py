"""What makes a model unusable, found before anything is built on it; one clear line each."""

from __future__ import annotations

from collections.abc import Iterator

import onnx
import onnx_ir as ir
from onnx_ir.passes import common

from mulshift.ir.errors import ModelError, UnsupportedError
from mulshift.ir.frontend.skeleton import skeleton
from mulshift.ir.metadata import describe
from mulshift.ir.operators import DOMAIN

_MICROSOFT = frozenset(
    """
    Attention BiasGelu ConvTransposeWithDynamicPads DequantizeLinear DynamicQuantizeLSTM DynamicQuantizeMatMul
    EmbedLayerNormalization FastGelu FusedConv FusedGemm FusedMatMul FusedMatMulActivation Gelu GroupNorm
    GroupQueryAttention Inverse LayerNormalization MatMulInteger16 MatMulIntegerToFloat MatMulNBits MultiHeadAttention
    NGramRepeatBlock Pad QAttention QEmbedLayerNormalization QGemm QLinearAdd QLinearAveragePool QLinearConcat
    QLinearGlobalAveragePool QLinearLeakyRelu QLinearMul QLinearReduceMean QLinearSigmoid QLinearSoftmax QLinearWhere
    QuantizeLinear QuickGelu RotaryEmbedding Sampling SimplifiedLayerNormalization SkipGroupNorm
    SkipLayerNormalization SkipSimplifiedLayerNormalization Tokenizer TransposeMatMul Unique
    """.split()
)
"""Operators of `com.microsoft` that may enter; what has no integer form stays float later, by name."""

_ONNXRUNTIME = frozenset({"SimplifiedLayerNormalization"})
"""Operators that ONNX Runtime adds to the default domain."""

_UNCHECKED = frozenset({"Constant", "GroupNormalization"})
"""Left out of the node check: big, or called deprecated in opset 18 to 20 although it is written and runs."""

_STANDARD_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml"})


def is_ours(domain: str) -> bool:
    """Whether functions of a domain are operators to us, not to be inlined: `mulshift` and `mulshift.*`."""
    return domain.split(".")[0] == DOMAIN


def is_known(node: ir.Node, imports: dict[str, int]) -> bool:
    """Whether an operator is standard in the imported opset, one of ONNX Runtime's that we list, or ours."""
    if node.domain == "com.microsoft":
        return node.op_type in _MICROSOFT
    if node.domain not in _STANDARD_DOMAINS:
        return node.domain == DOMAIN
    domain = "" if node.domain == "ai.onnx" else node.domain
    version = imports.get(domain) or imports.get(node.domain) or onnx.defs.onnx_opset_version()
    return node.op_type in _ONNXRUNTIME or bool(onnx.defs.has(node.op_type, version, domain))


def check_proto(proto: onnx.ModelProto, where: str) -> None:
    """A graph with outputs and an opset are there, and every name is defined once.

    Raises:
        ModelError: names the file, or the name that is defined twice.
    """
    if not proto.HasField("graph") or not proto.opset_import:
        raise ModelError(where, "is not an ONNX model, or is cut short: it has no graph", "export or copy it again")
    if not proto.graph.output:
        raise ModelError(where, "is cut short or empty: its graph has no outputs", "export or copy it again")
    for graph in _graphs(proto.graph):
        _check_defined_once(graph, where)


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for attr in node.attribute:
            for inner in (*((attr.g,) if attr.HasField("g") else ()), *attr.graphs):
                yield from _graphs(inner)


def _check_defined_once(graph: onnx.GraphProto, where: str) -> None:
    """An input may have an initializer as its default; any other second definition is an error."""
    groups = (
        [v.name for v in graph.input],
        [t.name for t in graph.initializer] + [t.values.name for t in graph.sparse_initializer],
        [name for node in graph.node for name in node.output if name],
    )
    for names in (*groups, [*{*groups[0], *groups[1]}, *groups[2]]):
        seen: set[str] = set()
        for name in names:
            if name in seen:
                raise ModelError(
                    where, f"the name '{name}' is defined twice in graph '{graph.name}'", "export it again"
                )
            seen.add(name)


def sort(model: ir.Model) -> None:
    """Put the nodes of every graph into an order in which they can run.

    Raises:
        ModelError: there is none, since nodes feed each other in a circle.
    """
    try:
        common.TopologicalSortPass()(model)
    except ValueError as e:
        raise ModelError("graph", "has nodes that feed each other in a circle", "export it again") from e


def check_structure(model: ir.Model) -> None:
    """Every operator is known and well formed, every value that a node reads exists, and the types fit.

    Raises:
        ModelError: names the node.
        UnsupportedError: an operator or domain that nobody defines.
    """
    for node in model.graph.all_nodes():
        if not is_known(node, model.opset_imports) and node.op_identifier() not in model.functions:
            raise _unknown(node, model)
        for value in node.inputs:
            if value is not None and not _is_defined(value):
                raise ModelError(describe(node), f"reads '{value.name}', which nothing defines", "export it again")
    for value in model.graph.outputs:
        if not _is_defined(value):
            raise ModelError(f"output '{value.name}'", "is not computed by any node", "export it again")
    _check_nodes(model)
    try:
        onnx.shape_inference.infer_shapes(skeleton(model), check_type=True)
    except onnx.shape_inference.InferenceError as e:
        raise ModelError("graph", f"has operators that do not fit together ({_line(e)})", "export it again") from e


def _unknown(node: ir.Node, model: ir.Model) -> UnsupportedError:
    if node.domain in _STANDARD_DOMAINS:
        version = model.opset_imports.get(node.domain) or model.opset_imports.get("ai.onnx")
        return UnsupportedError(describe(node), f"is no operator of opset {version}", "export with another opset")
    return UnsupportedError(
        describe(node),
        f"operator '{node.op_type}' of domain '{node.domain}' is not known",
        "replace it by standard operators or put its function body into the model",
    )


def _is_defined(value: ir.Value) -> bool:
    return value.producer() is not None or value.is_graph_input() or value.is_initializer()


def _check_nodes(model: ir.Model) -> None:
    """Attributes and numbers of inputs as the operator's schema wants them; nodes with subgraphs are left out."""
    context = onnx.checker.C.CheckerContext()
    context.ir_version = model.ir_version
    context.opset_imports = {"" if d == "ai.onnx" else d: v for d, v in model.opset_imports.items()}
    for node in model.graph.all_nodes():
        kinds = {attr.type for attr in node.attributes.values()}
        if node.op_type in _UNCHECKED or kinds & {ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS}:
            continue
        try:
            onnx.checker.check_node(ir.serde.serialize_node(node), context)
        except onnx.checker.ValidationError as e:
            raise ModelError(describe(node), f"is not valid ({_line(e)})", "export it again") from e


def _line(error: Exception) -> str:
    """The first line of a message that has something to say."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
