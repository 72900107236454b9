"""What each operator asks of the integers at its inputs and gives at its output: one row an operator.

An operator without a row has no integer form: it stays float between DequantizeLinear and QuantizeLinear.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace

import onnx_ir as ir

from mulshift.ir import Array, attribute, constant, ints, is_float, sole_user
from mulshift.ir.float_functions import DOMAIN as FLOAT_DOMAIN


class Ask(enum.Enum):
    """What an operator asks of one input."""

    U8 = "first operand of a product: unsigned, 8 bits"
    WEIGHT = "second operand of a product: constant weights, or signed symmetric 8 bits"
    WIDE = "16 bits where the recipe allows, else 8"
    ANY = "8 or 16 bits, whatever there is"
    NARROW = "8 bits of either sign"
    PLAIN = "not quantized: biases, indices, shapes, bounds"


class Give(enum.Enum):
    """Where the scale of the outputs comes from."""

    OWN = "their own calibrated range"
    SAME = "the scale of the first input: integers are moved, not computed"
    JOIN = "one scale with the inputs where that costs nothing"


@dataclass(frozen=True)
class Rule:
    """One operator.

    Attributes:
        asks: of each input; the last one repeats.
        gives: where the output scale comes from.
        limits: fixed output range of a bounded function, None otherwise.
        epilogue: a following Relu or Clip runs inside its clamp.
        product: has an int32 accumulator over constant weights, which a graph output may take as it is.
        wide: can write 16 bits.
    """

    asks: tuple[Ask, ...]
    gives: Give = Give.OWN
    limits: tuple[float, float] | None = None
    epilogue: bool = False
    product: bool = False
    wide: bool = True

    def ask(self, index: int) -> Ask:
        """What the input at `index` has to be."""
        return self.asks[min(index, len(self.asks) - 1)]


_A = Ask
_PRODUCT = Rule((_A.U8, _A.WEIGHT, _A.PLAIN), epilogue=True, product=True)
_SUM = Rule((_A.WIDE,), epilogue=True)
_MUL = Rule((_A.ANY,), epilogue=True)
_CLAMP = Rule((_A.ANY, _A.PLAIN))
_UNARY = Rule((_A.NARROW, _A.PLAIN))
_REDUCE = Rule((_A.ANY, _A.PLAIN), epilogue=True)
_POOL = Rule((_A.NARROW, _A.PLAIN), epilogue=True)
_MOVE = Rule((_A.ANY, _A.PLAIN), gives=Give.SAME)
_MOVE8 = Rule((_A.NARROW, _A.PLAIN), gives=Give.SAME, wide=False)
_CAST = Rule((_A.PLAIN,))
_COMPARE = Rule((_A.NARROW, _A.PLAIN))


def _bounded(low: float, high: float) -> Rule:
    return Rule((_A.NARROW, _A.PLAIN), limits=(low, high))


RULES: dict[str, Rule] = {
    **dict.fromkeys(("Conv", "ConvTranspose", "Gemm", "MatMul"), _PRODUCT),
    **dict.fromkeys(("Add", "Sub"), _SUM),
    "Mul": _MUL,
    "Div": Rule((_A.ANY, _A.PLAIN), epilogue=True),
    **dict.fromkeys(("Relu", "Clip"), _CLAMP),
    **dict.fromkeys(("LeakyRelu", "PRelu", "Elu", "Selu", "Celu", "ThresholdedRelu", "Softplus", "Mish"), _UNARY),
    **dict.fromkeys(("HardSwish", "Swish", "Gelu", "Abs", "Neg", "Exp", "Log", "Sqrt", "Pow"), _UNARY),
    "Reciprocal": Rule((_A.WIDE, _A.PLAIN)),
    **dict.fromkeys(("Floor", "Ceil", "Round", "Sign", "Sinh", "Cosh", "Tan", "Atan", "Asinh"), _UNARY),
    **dict.fromkeys(("Sigmoid", "HardSigmoid"), _bounded(0.0, 1.0)),
    **dict.fromkeys(("Tanh", "Erf", "Softsign", "Sin", "Cos"), _bounded(-1.0, 1.0)),
    "Softmax": Rule((_A.WIDE,), limits=(0.0, 1.0)),
    **dict.fromkeys(("LayerNormalization", "RMSNormalization"), Rule((_A.WIDE, _A.PLAIN))),
    **dict.fromkeys(("Attention", "MaskedAttention"), Rule((_A.U8, _A.WEIGHT, _A.WEIGHT, _A.PLAIN))),
    "RotaryEmbedding": Rule((_A.WIDE,)),
    "Hadamard": Rule((_A.WIDE, _A.PLAIN)),
    **dict.fromkeys(("GlobalAveragePool", "ReduceMean", "ReduceSum"), _REDUCE),
    "AveragePool": _POOL,
    **dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Slice", "Split", "Identity"), _MOVE),
    **dict.fromkeys(("Gather", "GatherElements", "GatherND", "Expand", "Tile", "TopK", "ReverseSequence"), _MOVE),
    **dict.fromkeys(("MaxPool", "GlobalMaxPool", "ReduceMax", "ReduceMin", "Pad", "Trilu"), _MOVE8),
    **dict.fromkeys(("DepthToSpace", "SpaceToDepth"), _MOVE8),
    **dict.fromkeys(("Shape", "Size", "ConstantOfShape"), Rule((_A.PLAIN,))),
    "Concat": Rule((_A.ANY,), gives=Give.JOIN),
    "Where": Rule((_A.PLAIN, _A.NARROW), gives=Give.JOIN, wide=False),
    **dict.fromkeys(("Max", "Min"), Rule((_A.NARROW,), gives=Give.JOIN, wide=False)),
    **dict.fromkeys(("ArgMax", "ArgMin", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"), _COMPARE),
}

SMOOTHS = "mulshift.smooth"
"""In `metadata_props` of a product that only scales channels for the products after it: it reads 16 bits, writes 8."""

FLOAT_RULE = Rule((_A.WIDE,))
"""An operator that stays float reads and writes the widest integers there are."""

_RESIZE = {"nearest": _MOVE8, "linear": Rule((_A.NARROW, _A.PLAIN))}


def rule_of(node: ir.Node) -> Rule | None:
    """The row of a node; None if it has no integer form."""
    if node.domain not in ("", "ai.onnx", FLOAT_DOMAIN):
        return None
    if node.op_type == "Resize":
        return _RESIZE.get(attribute(node, "mode", "nearest"))
    if node.op_type == "Cast":
        return _CAST if node.inputs[0] is not None and not is_float(node.inputs[0]) else None
    if node.op_type == "Div" and constant(node.inputs[1]) is None:
        return None
    if node.op_type == "Attention" and node.domain != FLOAT_DOMAIN:
        return None
    if SMOOTHS in node.metadata_props:
        return _SUM
    if node.op_type in ("Add", "Sub") and any(constant(v) is not None for v in node.inputs):
        return _MUL
    return RULES.get(node.op_type)


def may_read_rows(node: ir.Node) -> bool:
    """Whether a node can read rows with a power of two each: MatMul by constant weights, no bias, no graph output."""
    if node.op_type != "MatMul" or node.domain != "" or constant_weight(node) is None:
        return False
    y, user = node.outputs[0], sole_user(node.outputs[0])
    return not y.is_graph_output() and not (user is not None and is_bias(user))


def rule_of_rows(node: ir.Node, rule: Rule) -> Rule:
    """The row of a node where products read rows: these, and gates before them (`act(gate) * up`), take 16 bits."""
    if may_read_rows(node) or rule is _UNARY or (rule.limits is not None and rule.asks[0] is Ask.NARROW):
        return replace(rule, asks=(Ask.WIDE, *rule.asks[1:]))
    gates = node.op_type == "Mul" and node.domain == "" and all(constant(v) is None for v in node.inputs)
    return replace(rule, asks=(Ask.WIDE,)) if gates else rule


def is_fused(value: ir.Value, rule: Rule | None) -> bool:
    """Whether the value exists only inside its producer's epilogue: its sole user is a Relu, a constant Clip or a bias.

    Args:
        value: an activation.
        rule: its producer's row, None if that stays float.
    """
    user = sole_user(value)
    if rule is None or user is None:
        return False
    if is_bias(user):
        return value.producer() is product_of_bias(user)
    if user.op_type not in ("Relu", "Clip") or user.domain not in ("", "ai.onnx"):
        return False
    bounds = [v for v in user.inputs[1:] if v is not None]
    return rule.epilogue and is_float(value) and all(constant(v) is not None for v in bounds)


def is_bias(node: ir.Node) -> bool:
    """Whether an Add is the bias of a MatMul by constant weights: a constant vector along the channels."""
    return product_of_bias(node) is not None


def product_of_bias(node: ir.Node) -> ir.Node | None:
    """The MatMul by constant weights whose bias an Add brings; None if it brings none."""
    if node.op_type != "Add" or node.domain not in ("", "ai.onnx"):
        return None
    for x, other in (node.inputs, node.inputs[::-1]):
        made, bias = None if x is None else x.producer(), constant(other)
        if x is None or made is None or bias is None or made.op_type != "MatMul" or sole_user(x) is not node:
            continue
        weights = constant_weight(made)
        if weights is not None and bias.size in (1, weights.shape[-1]) and bias.size == max(bias.shape[-1:], default=1):
            return made
    return None


def constant_weight(node: ir.Node) -> Array | None:
    """The numbers of a product's constant weights, through their own pair and a Transpose; None for activations."""
    value, perm = node.inputs[1], None
    while value is not None and constant(value) is None:
        made = value.producer()
        if made is None or made.op_type not in ("QuantizeLinear", "DequantizeLinear", "Transpose"):
            return None
        if made.op_type == "Transpose":
            if perm is not None:
                return None
            perm = ints(made, "perm") or (-1, -2)
        value = made.inputs[0]
    array = constant(value)
    return array if array is None or perm is None else array.transpose(perm)


def turned_weight(value: ir.Value | None) -> ir.Node | None:
    """The Transpose of a constant matrix that only products read, as weights: too large a constant to be folded."""
    node = None if value is None else value.producer()
    if value is None or node is None or node.op_type != "Transpose" or node.domain != "":
        return None
    array, uses = constant(node.inputs[0]), value.uses()
    fits = array is not None and array.ndim == 2 and list(ints(node, "perm") or (1, 0)) == [1, 0]
    products = all(u.idx == 1 and u.node.op_type in ("MatMul", "Gemm") and u.node.domain == "" for u in uses)
    return node if fits and uses and products and not value.is_graph_output() else None


def is_image(value: ir.Value) -> bool:
    """Whether the value is an integer graph input cast to float, through a Transpose or not: scale 1, zero point 0."""
    node = value.producer()
    if node is None or node.op_type != "Cast" or node.domain not in ("", "ai.onnx") or not is_float(value):
        return False
    source = node.inputs[0]
    made = None if source is None else source.producer()
    if made is not None and made.op_type == "Transpose":
        source = made.inputs[0]
    eight = source is not None and source.dtype in (ir.DataType.UINT8, ir.DataType.INT8)
    return eight and source is not None and source.is_graph_input()


def in_affine_chain(value: ir.Value) -> bool:
    """Whether the value exists only between two steps of one `m * x + t` with constant m and t."""
    node, user = value.producer(), sole_user(value)
    return node is not None and user is not None and _is_affine(node) and _is_affine(user)


def is_image_step(node: ir.Node) -> bool:
    """Whether the node belongs to the `m * x + t` that turns pixels into what the network reads."""
    x = next((v for v in node.inputs if v is not None and constant(v) is None), None)
    if x is None or not _is_affine(node):
        return False
    made = x.producer()
    return is_image(x) or (made is not None and sole_user(x) is node and is_image_step(made))


def _is_affine(node: ir.Node) -> bool:
    if node.op_type not in ("Add", "Sub", "Mul", "Div") or rule_of(node) is None:
        return False
    return sum(constant(v) is not None for v in node.inputs) == 1


def in_pairs(node: ir.Node, weight: Array) -> bool:
    """Whether kernels without VNNI add neighbouring products of these weights in 16 bits (vpmaddubsw).

    Of depthwise convolutions 3x3 and 5x5 windows are, and 3x3 convolutions of all channels with stride 1 are not:
    Winograd does them, in 32 bits.
    """
    if node.op_type != "Conv" or has_direct_windows(node, weight):
        return True
    window = [*(ints(node, "strides") or ()), *(ints(node, "dilations") or ())]
    winograd = weight.shape[2:] == (3, 3) and all(n == 1 for n in window) and attribute(node, "group", 1) == 1
    return weight.shape[1] > 1 and not winograd


def has_direct_windows(node: ir.Node, weight: Array) -> bool:
    """Whether a node is a depthwise Conv whose 3x3 or 5x5 windows the kernels take from the image as they are."""
    groups = attribute(node, "group", 1)
    if node.op_type != "Conv" or weight.shape[1:] not in ((1, 3, 3), (1, 5, 5)) or not 1 < groups == weight.shape[0]:
        return False
    strides, dilations = (ints(node, name) or (1, 1) for name in ("strides", "dilations"))
    return strides[-1] <= 2 and all(n == 1 for n in dilations)


def channel_axis(node: ir.Node, rank: int) -> int:
    """The axis of a product's weights that holds the output channels (ConvTranspose: those of one group)."""
    if node.op_type == "Conv":
        return 0
    if node.op_type == "ConvTranspose":
        return 1
    if node.op_type == "Gemm":
        return 0 if attribute(node, "transB", 0) else 1
    return rank - 1
