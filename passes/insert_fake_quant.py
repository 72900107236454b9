"""insert-fake-quant: QuantizeLinear/DequantizeLinear pairs from calibrated ranges (docs/architecture.md, QDQ)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import ClassVar

import onnx_ir as ir

from mulshift.ir import (
    Array,
    Level,
    QParams,
    UsageError,
    attribute,
    constant,
    describe,
    get_range,
    inherit_origin,
    is_float,
    set_level,
    sole_user,
    users,
)
from mulshift.ir.float_functions import DOMAIN, domain_of
from mulshift.ir.levels import FLOAT_REASON
from mulshift.passes.base import Contract, Pass
from mulshift.passes.calibrate import get_extremes, get_range_of_bits
from mulshift.passes.formats import SPECS, Formats, Planner
from mulshift.passes.integer.forms import asked_to_stay
from mulshift.passes.pairs import PairInserter, is_dequantized, is_quantized
from mulshift.passes.precision import ACTIVATION_BITS, WEIGHT_BITS, Precision
from mulshift.passes.product_bits import ProductBits
from mulshift.passes.quant_rules import (
    Ask,
    Give,
    Rule,
    channel_axis,
    constant_weight,
    in_affine_chain,
    is_bias,
    is_fused,
    is_image,
    is_image_step,
    may_read_rows,
    rule_of,
    rule_of_rows,
    turned_weight,
)
from mulshift.passes.scales import activation_qparams, weight_qparams
from mulshift.passes.sparsity.found import zeros_of
from mulshift.passes.sparsity.pattern import Sparsity, set_sparsity, sparsity_of
from mulshift.passes.weight_pairs import WeightPairs

LARGE_TABLE = 2**16
"""Elements above which the table of an embedding is worth scales of its rows."""


@dataclass
class InsertFakeQuant(Pass):
    """Pair every float activation and weight with the quantization that the rules and the ranges ask for.

    Attributes:
        weight_bits: 8, 4, 3, 2 (-1, 0, 1) or 1 (-1, 1): of products by constants.
        activation_bits: 8 or 4: of what they read as their first operand.
        group: weights along the reduced axis that share a scale, of 4 bits and fewer; 0 for one scale a channel.
        precision: name of a product, or pattern with *, -> precision such as "w4a8" or "w4g32a4"; the first that fits
            counts. What a node itself says (`mulshift.passes.precision`) counts more, the three options above less.
        reduce_range: keep 8-bit weights within +-64 where a machine without VNNI multiplies pairs of them in 16 bits:
            vpmaddubsw is then exact, and the kernels a quarter faster there; and 3x3 depthwise windows so that their
            columns add up in 16 bits. Elsewhere it only costs accuracy.
        residual_bits: 16 to keep the operands of additions of two activations in 16 bits, else 8.
        activations: "static", or "per-token" for a power of two for each row that a MatMul without bias reads (16 bits
            before): for decoders, where a few tokens are a thousand times as large as the others.
        output_bits: of a graph output that a Conv, Gemm or constant MatMul makes: None leaves it in its accumulator.
        narrow_outputs: names, or patterns with *, of graph outputs that need no 16 bits: a cache of keys and values.
        weight_range: "max", "mse", or "auto": "max" for 8 bits, "mse" for fewer.
        embedding: "rows" (a large table that only Gather reads has s8 and one scale a row, a quarter of its floats) or
            "tensor" (one scale and the bits of its output).
        concat: "auto" (an input that only the Concat reads takes the output's scale) or "own".
        target: "integer" (ours), "qdq" (interchange: no 16 bits, constants of elementwise operators paired too), or
            "signed" (TensorRT: pairs around products alone, s8 with zero point 0; what is between stays float).
        skip: names of nodes to keep float.

    Raises:
        UsageError: an option that does not exist; no range on any value (calibrate has not run).
    """

    name: ClassVar[str] = "insert-fake-quant"
    contract: ClassVar[Contract] = Contract.LOSSY
    weight_bits: int = 8
    activation_bits: int = 8
    group: int = 0
    precision: Mapping[str, str] = field(default_factory=dict)
    reduce_range: bool = False
    residual_bits: int = 16
    activations: str = "static"
    output_bits: int | None = None
    narrow_outputs: Sequence[str] = ()
    weight_range: str = "auto"
    embedding: str = "rows"
    concat: str = "auto"
    target: str = "integer"
    skip: Sequence[str] = ()
    _formats: dict[ir.Value, Formats] = field(default_factory=dict, init=False, repr=False, compare=False)
    _bits: ProductBits = field(default_factory=ProductBits, init=False, repr=False, compare=False)

    def rewrite(self, model: ir.Model) -> None:
        self._check(model.graph)
        graph, nodes = model.graph, list(model.graph)
        wanted = [v for v in (*graph.inputs, *(v for n in nodes for v in n.outputs)) if _is_activation(v)]
        if wanted and not any(get_range(v) for v in wanted):
            raise UsageError("insert-fake-quant", "no value has a range", "run calibrate first")
        default = Precision(self.weight_bits, self.activation_bits, self.group)
        self._bits = ProductBits.of((n for n in nodes if self._is_product(n)), self.precision, default)
        for node in self._bits.of_node:
            self._keep_zeros(node)
        planner = self._planner(graph)
        self._formats = planner.plan(graph)
        pairs = PairInserter(graph)
        for value in graph.inputs:
            self._activation(value, pairs, planner)
        for node in nodes:
            self._constants(node, pairs)
            for value in node.outputs:
                self._activation(value, pairs, planner)
        for node in nodes if self.activations == "per-token" else ():
            if may_read_rows(node):
                self._per_token(model, node)
        for node in self._bits.of_node:
            self._check_input(node)
        set_level(model, Level.QDQ)

    def _check(self, graph: ir.Graph) -> None:
        options: tuple[tuple[str, object, tuple[object, ...]], ...] = (
            ("weight_bits", self.weight_bits, WEIGHT_BITS),
            ("activation_bits", self.activation_bits, ACTIVATION_BITS),
            ("residual_bits", self.residual_bits, (8, 16)),
            ("activations", self.activations, ("static", "per-token")),
            ("output_bits", self.output_bits, (None, 8, 16)),
            ("weight_range", self.weight_range, ("auto", "max", "mse")),
            ("embedding", self.embedding, ("rows", "tensor")),
            ("concat", self.concat, ("auto", "own")),
            ("target", self.target, ("integer", "qdq", "signed")),
        )
        for name, value, allowed in options:
            if value not in allowed:
                raise UsageError("insert-fake-quant", f"{name} is {value!r}", f"use one of {allowed}")
        if self.group < 0:
            raise UsageError("insert-fake-quant", f"group is {self.group}", "give 0 or a number of weights")
        for pattern in self.narrow_outputs:
            if not any(fnmatchcase(str(v.name), pattern) for v in graph.outputs):
                there = ", ".join(str(v.name) for v in graph.outputs)
                raise UsageError("insert-fake-quant", f"no output is called '{pattern}'", f"there is {there}")
        unknown = set(self.skip) - {str(n.name) for n in graph}
        if unknown:
            raise UsageError("insert-fake-quant", f"no node '{sorted(unknown)[0]}' to skip", "see `mulshift inspect`")

    def _rule(self, node: ir.Node) -> Rule | None:
        if node.name in self.skip or asked_to_stay(node):
            return None
        rule = rule_of(node)
        return rule_of_rows(node, rule) if rule is not None and self.activations == "per-token" else rule

    def _planner(self, graph: ir.Graph) -> Planner:
        ours = self.target == "integer"
        names = {str(v.name) for v in graph.outputs}
        narrow = frozenset(n for n in names if any(fnmatchcase(n, p) for p in self.narrow_outputs))
        wide = ours and self.residual_bits == 16
        # ONNX Runtime 1.31 fuses MaxPool, Relu and Clip with pairs around them and then refuses them for 4 bits.
        only = "s8" if self.target == "signed" else None
        return Planner(self._rule, wide, "s16" if ours else "u8", narrow, self._bits.activations, ours, only)

    def _is_product(self, node: ir.Node) -> bool:
        rule = self._rule(node)
        return rule is not None and rule.product and constant_weight(node) is not None

    def _keep_zeros(self, node: ir.Node) -> None:
        """Weights that came with a pattern of zeros keep it: the passes that round them look for it on the node."""
        found = zeros_of(node) if sparsity_of(node) is None else None
        if found is not None and found.pattern is not None:
            set_sparsity(node, Sparsity.parse(found.pattern))
            self.changed(node, f"its weights are {found.pattern}, {found.density:.0%} of them not zero")

    def _check_input(self, node: ir.Node) -> None:
        """Tell where a product does not read the 4 bits that it was asked to."""
        made = None if node.inputs[0] is None else node.inputs[0].producer()
        if self._bits.activations(node) == 4 and (made is None or made.inputs[0].dtype != ir.DataType.UINT4):  # type: ignore[union-attr]
            self.skipped(node, "its input has no 4-bit pair: it is an image, has rows of its own, or stays float")

    # Activations -----------------------------------------------------------------------------------------------------

    def _activation(self, value: ir.Value, pairs: PairInserter, planner: Planner) -> None:
        if not _is_activation(value) or self._needs_no_pair(value):
            return
        reason = self._why_float(value)
        if reason:
            self.skipped(str(value.name), reason)
            return
        formats, name = self._formats[value], str(value.name)
        uses = {(u.node, u.idx): formats.pick(planner.demand(u.node, u.idx, self._formats)) for u in value.uses()}
        moved = self._moved_from(value)
        if moved is not None:
            made = pairs.insert_like(value, moved)
            self.changed(name, f"{formats.base}, the scale of its input")
        else:
            q = self._qparams(value, formats.base)
            made = pairs.insert(value, q, None, name)
            self.changed(name, _text(q))
        for form in formats.others:
            q = self._qparams(value, form)
            pairs.insert(made, q, [use for use, picked in uses.items() if picked == form], f"{name}.{form}")
            self.changed(name, f"also {_text(q)}")

    def _needs_no_pair(self, value: ir.Value) -> bool:
        node = value.producer()
        if turned_weight(value) is not None:
            return True
        if self.target == "signed" and not (self._read_by_product(value) or self._made_by_product(node)):
            return True
        chained = in_affine_chain(value) and (self.target == "integer" or node is None or is_image_step(node))
        rule = None if node is None else self._rule(node)
        return chained or is_fused(value, rule) or is_image(value)

    def _read_by_product(self, value: ir.Value) -> bool:
        rules = ((self._rule(u.node), u.idx) for u in value.uses())
        return any(rule is not None and rule.ask(index) in (Ask.U8, Ask.WEIGHT) for rule, index in rules)

    def _made_by_product(self, node: ir.Node | None) -> bool:
        """By constant weights; through its bias and a clamp that are fused."""
        while node is not None and not self._is_product(node) and not is_bias(node):
            x = node.inputs[0] if node.op_type in ("Relu", "Clip") else None
            made = None if x is None else x.producer()
            node = made if made is not None and x is not None and is_fused(x, self._rule(made)) else None
        return node is not None

    def _why_float(self, value: ir.Value) -> str:
        node = value.producer()
        if not value.uses() and (node is None or not value.is_graph_output()):
            return "nobody reads it"
        if get_range(value) is None:
            return "no calibrated range"
        if node is None:
            return "all that read it stay float" if self._floats_only(value) else ""
        if self._rule(node) is None:
            why = "asked for" if node.name in self.skip else f"{node.op_type} has no integer form"
            node.metadata_props[FLOAT_REASON] = why
            return (
                f"{describe(node)} stays float ({why}) and so do all that read it" if self._floats_only(value) else ""
            )
        return "a graph output keeps its accumulator" if self._keeps_accumulator(node, value) else ""

    def _floats_only(self, value: ir.Value) -> bool:
        """Whether no reader has an integer form; those inside subgraphs have none."""
        return all(self._rule(u.node) is None or u.node.graph is not value.graph for u in value.uses())

    def _keeps_accumulator(self, node: ir.Node, value: ir.Value) -> bool:
        if self.output_bits is not None or self.target != "integer" or value.uses() or not value.is_graph_output():
            return False
        return is_bias(node) or (node.op_type in ("Conv", "Gemm", "MatMul") and constant_weight(node) is not None)

    def _moved_from(self, value: ir.Value) -> ir.Node | None:
        """The DequantizeLinear whose integers the producer moves; None if it computes."""
        node = value.producer()
        rule = None if node is None else self._rule(node)
        if node is None or rule is None or rule.gives is not Give.SAME or node.inputs[0] is None:
            return None
        made = node.inputs[0].producer()
        if made is None or made.op_type != "DequantizeLinear":
            return None
        scale = constant(made.inputs[1])
        return made if scale is not None and scale.ndim == 0 else None

    def _qparams(self, value: ir.Value, form: str) -> QParams:
        spec, source = SPECS[form], self._range_source(value)
        node = source.producer()
        rule = None if node is None else self._rule(node)
        if rule is not None and rule.limits is not None:
            return activation_qparams(*rule.limits, spec)
        special = get_extremes(source) if spec.bits == 16 else get_range_of_bits(source, spec.bits)
        low, high = special or get_range(source) or (0.0, 0.0)
        return activation_qparams(low, high, spec)

    def _range_source(self, value: ir.Value) -> ir.Value:
        """The value whose range counts: the output of the last Concat that alone reads `value`, through movers."""
        source = walk = value
        while self.concat == "auto":
            user = sole_user(walk)
            rule = None if user is None else self._rule(user)
            if user is None or rule is None or rule.gives is Give.OWN or get_range(user.outputs[0]) is None:
                break
            walk = user.outputs[0]
            source = walk if rule.gives is Give.JOIN else source
        return source

    def _per_token(self, model: ir.Model, node: ir.Node) -> None:
        """RowQuantize between the 16-bit pair and the product; one for all that read it."""
        x = node.inputs[0]
        made = None if x is None else x.producer()
        scale = None if made is None or made.op_type != "DequantizeLinear" else constant(made.inputs[1])
        if x is None or made is None or scale is None or made.inputs[0].dtype != ir.DataType.INT16:  # type: ignore[union-attr]
            return self.skipped(node, "its input has no 16-bit pair, so it is quantized statically")
        row = next((u.node for u in x.uses() if u.node.op_type == "RowQuantize"), None)
        if row is None:
            domain_of(model, "RowQuantize")
            row = ir.node("RowQuantize", [x], {"step": float(scale)}, domain=DOMAIN, name=f"{x.name}/RowQuantize")
            inherit_origin([row], [made])
            y = row.outputs[0]
            y.name, y.type, y.shape = f"{x.name}.rows", x.type, x.shape
            model.graph.insert_after(made, row)
        node.replace_input_with(0, row.outputs[0])
        return self.changed(node, "a power of two for each row of its input")

    # Constants -------------------------------------------------------------------------------------------------------

    def _constants(self, node: ir.Node, pairs: PairInserter) -> None:
        rule = self._rule(node)
        if rule is None or is_image_step(node) or turned_weight(node.outputs[0]) is not None:
            return
        for index, given in enumerate(node.inputs):
            turn = turned_weight(given)
            value = given if turn is None else turn.inputs[0]
            array = constant(value)
            if value is None or array is None or not is_float(value):
                continue
            ask = rule.ask(index)
            if ask is Ask.WEIGHT and turn is not None:
                self._turned(node, turn, array, pairs)
            elif ask is Ask.WEIGHT:
                self._weight(node, index, array, pairs)
            elif node.op_type == "Gather" and self._embeds(node, value, array):
                self._rows(node, value, array, pairs)
            elif ask is Ask.U8 or (ask is not Ask.PLAIN and self._pairs_constants(rule)):
                self._operand(node, index, rule, pairs)

    def _pairs_constants(self, rule: Rule) -> bool:
        """Whether constants that take an activation's place have pairs."""
        return self.target == "qdq" or (self.target == "integer" and rule.gives is not Give.OWN)

    def _weight(self, node: ir.Node, index: int, array: Array, pairs: PairInserter) -> None:
        """A per-channel pair, shared by the products that read the same weights alike."""
        value = node.inputs[index]
        assert value is not None
        axis = channel_axis(node, array.ndim)
        alike = [
            (u.node, u.idx)
            for u in value.uses()
            if u.idx == index and u.node.graph is node.graph and self._reads_alike(u.node, axis, array.ndim)
        ]
        self._weight_pairs(pairs).insert(node, value, array, axis, alike, [n for n, _ in alike])

    def _turned(self, node: ir.Node, turn: ir.Node, array: Array, pairs: PairInserter) -> None:
        """A per-channel pair in front of the Transpose of a constant [N, K]."""
        value = turn.inputs[0]
        assert value is not None
        if not is_dequantized(value):
            axis, readers = 1 - channel_axis(node, 2), users(turn.outputs[0])
            self._weight_pairs(pairs).insert(node, value, array, axis, [(turn, 0)], readers)

    def _weight_pairs(self, pairs: PairInserter) -> WeightPairs:
        return WeightPairs(self, pairs, self._bits, self.weight_range, self.reduce_range)

    def _embeds(self, node: ir.Node, table: ir.Value, array: Array) -> bool:
        """Whether the table is large, and rows of it are all that is ever read."""
        if self.embedding != "rows" or self.target != "integer" or array.ndim != 2 or array.size <= LARGE_TABLE:
            return False
        if all(u.idx == 0 and _takes_rows(u.node) and u.node.graph is node.graph for u in table.uses()):
            return not table.is_graph_output()
        self.skipped(node, f"one scale for all rows of '{table.name}', which others read too")
        return False

    def _rows(self, node: ir.Node, table: ir.Value, array: Array, pairs: PairInserter) -> None:
        """A pair with one scale a row, for all that take rows."""
        q = weight_qparams(array, 0, 8, "max")
        pairs.insert(table, q, [(u.node, u.idx) for u in table.uses()], str(table.name))
        self.changed(node, f"table '{table.name}' s8, {q.scale.size} scales along axis 0")

    def _reads_alike(self, node: ir.Node, axis: int, rank: int) -> bool:
        rule = self._rule(node)
        return rule is not None and rule.product and channel_axis(node, rank) == axis

    def _operand(self, node: ir.Node, index: int, rule: Rule, pairs: PairInserter) -> None:
        """A per-tensor pair of a constant that takes an activation's place."""
        value, output = node.inputs[index], node.outputs[0]
        array = constant(value)
        assert value is not None and array is not None
        form = "u8" if rule.gives is Give.OWN and self.target != "signed" else self._formats[output].base
        own = (float(array.min(initial=0.0)), float(array.max(initial=0.0)))
        low, high = (get_range(output) or own) if rule.gives is Give.JOIN else own
        pairs.insert(value, activation_qparams(low, high, SPECS[form]), [(node, index)], str(value.name))
        self.changed(node, f"constant '{value.name}' {form}")


def _takes_rows(node: ir.Node) -> bool:
    return node.op_type == "Gather" and node.domain in ("", "ai.onnx") and attribute(node, "axis", 0) == 0


def _is_activation(value: ir.Value) -> bool:
    """A float value, not constant, that has no pair and comes from none."""
    return (
        is_float(value)
        and constant(value) is None
        and not is_dequantized(value)
        and not is_quantized(value)
        and not (value.producer() is None and not value.is_graph_input())
    )


def _text(q: QParams) -> str:
    sign = "s" if q.spec.signed else "u"
    return f"{sign}{q.spec.bits}, scale {float(q.scale):.6g}, zero point {int(q.zero_point)}"
