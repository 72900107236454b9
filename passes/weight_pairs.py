"""The pair of a product's constant weights: at the bits that its readers agree on, in groups where these fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from mulshift.ir import Array, constant
from mulshift.passes.base import Pass
from mulshift.passes.pairs import PairInserter
from mulshift.passes.precision import Precision
from mulshift.passes.product_bits import ProductBits, group_axis
from mulshift.passes.quant_rules import has_direct_windows, in_pairs
from mulshift.passes.scales import on_range, reduce_range, weight_qparams
from mulshift.passes.sparsity.pattern import sparsity_of
from mulshift.passes.twins import clip_initializer


@dataclass(frozen=True)
class WeightPairs:
    """Inserts them into one graph.

    Attributes:
        owner: the pass that logs.
        pairs: of the graph.
        bits: of its products.
        method: "max", "mse" or "auto", see `mulshift.passes.scales.weight_qparams`.
        reduce_range: 8-bit weights that add up in 16 bits where kernels without VNNI multiply pairs of them.
    """

    owner: Pass
    pairs: PairInserter
    bits: ProductBits
    method: str
    reduce_range: bool

    def insert(
        self,
        node: ir.Node,
        value: ir.Value,
        array: Array,
        axis: int,
        uses: Sequence[tuple[ir.Node, int]],
        readers: Sequence[ir.Node],
    ) -> None:
        """One pair.

        Args:
            node: a product that reads the weights.
            value: the weights, `array` its numbers.
            axis: of the output channels.
            uses: (node, input index) to redirect.
            readers: the products that read it, which agree on its bits.
        """
        wanted = self._with_zeros(node, self.bits.weights(readers), readers)
        groups = self._groups(node, array.shape, axis, wanted)
        q = weight_qparams(array, axis, wanted.weights, self.method, *_bias_of(node), groups)
        reduced = self.reduce_range and wanted.weights == 8 and in_pairs(node, array)
        q = reduce_range(q, array, axis, has_direct_windows(node, array)) if reduced else q
        fitted, name = on_range(array, q), str(value.name)
        if fitted is not array:
            value = clip_initializer(self.pairs.graph, value, fitted)
        self.pairs.insert(value, q, uses, name)
        within = " that add up in 16 bits" if reduced else ""
        grouped = f", groups of {groups[1]} along axis {groups[0]}" if groups else ""
        text = f"weights s{wanted.weights}{within}, {array.shape[axis]} scales along axis {axis}{grouped}"
        self.owner.changed(node, text)

    def _with_zeros(self, node: ir.Node, wanted: Precision, readers: Sequence[ir.Node]) -> Precision:
        """One bit is a sign, which has no zero: sparse weights get two."""
        if wanted.weights != 1 or not any(sparsity_of(n) for n in readers):
            return wanted
        self.owner.skipped(node, "weights of 1 bit have no zeros, so its sparse ones have 2")
        return replace(wanted, weights=2)

    def _groups(self, node: ir.Node, shape: tuple[int, ...], axis: int, wanted: Precision) -> tuple[int, int] | None:
        """(axis, size) of the groups of a product's weights; None for one scale a channel."""
        if not wanted.group:
            return None
        along, why = group_axis(node, shape, wanted.group, axis)
        if wanted.weights == 8:
            why = "8-bit weights have no groups: a multiple of one would have more bits"
        if why:
            self.owner.skipped(node, why)
        return None if why else (along, wanted.group)


def _bias_of(node: ir.Node) -> tuple[Array | None, float]:
    """The bias and the scale of the input that it is added to."""
    bias = constant(node.inputs[2]) if len(node.inputs) > 2 else None
    made = None if node.inputs[0] is None else node.inputs[0].producer()
    scale = constant(made.inputs[1]) if made is not None and made.op_type == "DequantizeLinear" else None
    return bias, 1.0 if scale is None else float(np.max(scale))
