"""Operators that ONNX Runtime's optimizer and exporters fused, and attention of opset 23, as operators that we know.

A row each; what has a float operator of ours (`mulshift.ir.float_functions`) becomes that, anything else becomes
standard operators.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from mulshift.ir.frontend import fused_attention as attention
from mulshift.ir.frontend.expansion import Expansion, Row, Values
from mulshift.ir.frontend.shapes import infer_shapes

MICROSOFT = "com.microsoft"
_ADOPTED = {"SimplifiedLayerNormalization": 1 << 30, "LayerNormalization": 17}
"""Operators that ONNX Runtime writes into the default domain, up to the opset in which the standard has them."""


def adopt(model: ir.Model) -> None:
    """Move ONNX Runtime's operators in the default domain to its own, so that opset conversion leaves them alone."""
    version = model.opset_imports.get("", model.opset_imports.get("ai.onnx", 0))
    for node in model.graph.all_nodes():
        if node.domain in ("", "ai.onnx") and version < _ADOPTED.get(node.op_type, 0):
            node.domain = MICROSOFT
            node.version = None
            model.opset_imports.setdefault(MICROSOFT, 1)


def expand(model: ir.Model) -> None:
    """Replace every operator of the table in the main graph.

    Raises:
        UnsupportedError: an input, output or attribute that has no form here; names the node.
    """
    found = False
    for node in list(model.graph):
        row = ROWS.get((node.domain, node.op_type))
        if row is None:
            continue
        found = True
        e = Expansion(model, node, row)
        e.check()
        made = list(row.write(e))
        made += [None] * (len(node.outputs) - len(made))
        for old, new in zip(node.outputs, made, strict=False):
            used = bool(old.uses()) or old.is_graph_output()
            if new is None and used:
                raise e.error(f"its output '{old.name}' has no form here")
            if new is not None and used:
                _hand_over(e, old, new)
        model.graph.remove(node, safe=True)
    if found:
        infer_shapes(model)


def _hand_over(e: Expansion, old: ir.Value, new: ir.Value) -> None:
    """The new value under the old one's name, type and metadata."""
    if new.producer() is None or new.is_graph_output():
        new = e.op("Identity", new)
    new.type, new.shape = old.type or new.type, old.shape or new.shape
    new.metadata_props.update(old.metadata_props)
    name = old.name
    old.replace_all_uses_with(new, replace_graph_outputs=True)
    old.name, new.name = f"{name}.before", name


def _norm(e: Expansion, x: ir.Value, gamma: ir.Value, beta: ir.Value | None, epsilon: float) -> ir.Value:
    inputs = [x, gamma] if beta is None else [x, gamma, beta]
    return e.op("LayerNormalization", *inputs, axis=-1, epsilon=epsilon)


def _rms_norm(e: Expansion, x: ir.Value, gamma: ir.Value, epsilon: float) -> ir.Value:
    if len(e.shape(gamma)) != 1:
        raise e.error("it normalizes more than the last axis")
    return e.function("RMSNormalization", x, gamma, epsilon=epsilon)


def _skip(e: Expansion) -> ir.Value:
    """`input + skip + bias`."""
    total, bias = e.op("Add", e["input"], e["skip"]), e.get("bias")
    return total if bias is None else e.op("Add", total, bias)


def _skip_layer_norm(e: Expansion) -> Values:
    total = _skip(e)
    y = _norm(e, total, e["gamma"], e.get("beta"), e.attribute("epsilon", 1e-12))
    return [y, None, None, total]


def _skip_rms_norm(e: Expansion) -> Values:
    total = _skip(e)
    return [_rms_norm(e, total, e["gamma"], e.attribute("epsilon", 1e-12)), None, None, total]


def _layer_norm(e: Expansion) -> Values:
    inputs = [v for v in (e["x"], e["scale"], e.get("bias")) if v is not None]
    return [e.op("LayerNormalization", *inputs, axis=e.attribute("axis", -1), epsilon=e.attribute("epsilon", 1e-5))]


def _simplified_norm(e: Expansion) -> Values:
    if e.attribute("axis", -1) not in (-1, len(e.shape(e["x"])) - 1):
        raise e.error(f"it normalizes from axis {e.attribute('axis')} on, not the last alone")
    return [_rms_norm(e, e["x"], e["scale"], e.attribute("epsilon", 1e-5))]


def _embed(e: Expansion) -> Values:
    """Sum of the embeddings of words, positions and segments, normalized; the mask as numbers of keys."""
    ids, positions, segments, mask = e["input_ids"], e.get("position_ids"), e.get("segment_ids"), e.get("mask")
    if positions is None:
        positions = e.range(e.length(ids, 1))
    total = e.op("Gather", e["word_embedding"], ids, axis=0)
    total = e.op("Add", total, e.op("Gather", e["position_embedding"], positions, axis=0))
    if segments is not None and e.get("segment_embedding") is not None:
        total = e.op("Add", total, e.op("Gather", e["segment_embedding"], segments, axis=0))
    y = _norm(e, total, e["gamma"], e["beta"], e.attribute("epsilon", 1e-12))
    keys = None if mask is None else e.op("ReduceSum", mask, e.const([1]), keepdims=0)
    return [y, keys, total]


def _gelu(approximate: str) -> Row:
    def write(e: Expansion) -> Values:
        x, bias = e["x"], e.get("bias")
        return [e.op("Gelu", x if bias is None else e.op("Add", x, bias), approximate=approximate)]

    return Row(write, "x bias")


def _quick_gelu(e: Expansion) -> Values:
    return [e.function("Swish", e["x"], alpha=e.attribute("alpha", 1.702))]


def _product(e: Expansion) -> Values:
    """`alpha * op(A) op(B)`, op the transpose of the last two axes if asked for."""
    operands = [_turned(e, e[name]) if e.attribute(f"trans{name}", 0) else e[name] for name in "AB"]
    y, alpha = e.op("MatMul", *operands), e.attribute("alpha", 1.0)
    return [y if alpha == 1.0 else e.op("Mul", y, e.const(alpha, np.float32))]


def _turned(e: Expansion, x: ir.Value) -> ir.Value:
    n = len(e.shape(x))
    return x if n < 2 else e.op("Transpose", x, perm=[*range(n - 2), n - 1, n - 2])


_PRODUCT = Row(_product, "A B", attributes="transA transB alpha")
_SKIP_OUTPUTS = "y mean! inv_std_var! input_skip_bias_sum"
_NORM = "epsilon axis stash_type"

ROWS: Mapping[tuple[str, str], Row] = {
    (MICROSOFT, "SkipLayerNormalization"): Row(
        _skip_layer_norm, "input skip gamma beta bias", _SKIP_OUTPUTS, "epsilon"
    ),
    (MICROSOFT, "SkipSimplifiedLayerNormalization"): Row(
        _skip_rms_norm, "input skip gamma bias", _SKIP_OUTPUTS, "epsilon"
    ),
    (MICROSOFT, "SimplifiedLayerNormalization"): Row(_simplified_norm, "x scale", "y inv_std_var!", _NORM),
    (MICROSOFT, "LayerNormalization"): Row(_layer_norm, "x scale bias", "y mean! inv_std_var!", _NORM),
    (MICROSOFT, "EmbedLayerNormalization"): Row(
        _embed,
        """input_ids segment_ids word_embedding position_embedding segment_embedding gamma beta mask position_ids""",
        "y mask_index embedding_sum",
        "epsilon mask_index_type",
    ),
    (MICROSOFT, "BiasGelu"): _gelu("none"),
    (MICROSOFT, "Gelu"): _gelu("none"),
    (MICROSOFT, "FastGelu"): _gelu("tanh"),
    (MICROSOFT, "QuickGelu"): Row(_quick_gelu, "x", attributes="alpha"),
    (MICROSOFT, "FusedMatMul"): _PRODUCT,
    (MICROSOFT, "TransposeMatMul"): _PRODUCT,
    (MICROSOFT, "MultiHeadAttention"): attention.MULTI_HEAD,
    (MICROSOFT, "Attention"): attention.PACKED,
    (MICROSOFT, "GroupQueryAttention"): attention.GROUPED,
    (MICROSOFT, "RotaryEmbedding"): attention.ROTARY,
    ("", "RotaryEmbedding"): attention.STANDARD_ROTARY,
    ("", "Attention"): attention.STANDARD,
}
