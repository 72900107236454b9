"""A walk along the products whose weights have a pair, with integers and scales as what is found for each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from mulshift.ir import Array
from mulshift.passes.rounding.layers import Layer, find_layers, with_bias
from mulshift.passes.rounding.result import Rounded
from mulshift.passes.rounding.walk_pass import WalkPass


@dataclass
class PairPass(WalkPass[Layer, Rounded]):
    """Base of what moves integers, scales and biases of a QDQ graph."""

    def moves_biases(self) -> bool:
        """Whether layers without a bias get one."""
        return True

    def products(self, model: ir.Model) -> list[Layer]:
        found = find_layers(model.graph, self.skipped)
        return [with_bias(model.graph, layer) for layer in found] if self.moves_biases() else found

    def apply(self, graph: ir.Graph, layer: Layer, found: Rounded) -> None:
        before = Rounded.now(layer)
        share = float((before.q != found.q).mean()) if found.q.size else 0.0
        moved = float(np.abs(found.scale / before.scale - 1).max(initial=0))
        found.apply(graph, layer)
        self.changed(layer.node, f"{100 * share:.3g} % of its integers changed, scales moved by at most {moved:.1e}")

    def restore(self, arrays: dict[str, Array], layer: Layer) -> Rounded:
        return Rounded.from_arrays(arrays, layer.name)
