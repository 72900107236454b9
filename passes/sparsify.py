"""sparsify: zeros in the weights of products, in a pattern that kernels make use of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import onnx_ir as ir

from mulshift.ir import Array, Level, UsageError, constant, get_level
from mulshift.passes.linear_weights import renew
from mulshift.passes.rounding.aim import aim, moved_bias
from mulshift.passes.rounding.layers import Product, find_product
from mulshift.passes.rounding.moments import Moments
from mulshift.passes.rounding.walk import Block, Walk
from mulshift.passes.rounding.walk_pass import WalkPass
from mulshift.passes.sparsity.masks import tap_order, unfit
from mulshift.passes.sparsity.pattern import Sparsity, set_sparsity, sparsity_of
from mulshift.passes.sparsity.scores import SCORES, Task

if TYPE_CHECKING:
    pass

ASSIGNED = "assigned"
"""The pattern that is each node's own, or none."""
_COMPARED = 64


@dataclass(frozen=True)
class Pruned:
    """Attributes:
    array: float32, in the shape of the weights.
    bias: float32 [channels]; None if it stays.
    """

    array: Array
    bias: Array | None = None

    def weights(self, layer: Product) -> Array:
        """They themselves."""
        return self.array

    def arrays(self, name: str) -> dict[str, Array]:
        """For a checkpoint."""
        found = {f"{name}/weights": self.array}
        return found if self.bias is None else found | {f"{name}/bias": self.bias}


@dataclass
class Sparsify(WalkPass[Product, Pruned]):
    """`min E |(w u + b) - (v x + b')|^2` over v, b' with `kept` of each `of` consecutive input channels of v not zero.

    u are a product's inputs in the model as it came, x those behind the products that are sparse already. Groups lie
    along the input channels, of a convolution at one tap. Scores choose what stays (`score`):

    - magnitude: `|w|`, without data.
    - wanda: `|w_j| |x_j|_2` (arXiv:2306.11695).
    - sparsegpt: `w_j^2 / [H^-1]_jj`, column by column, `H = E[x^T x]`, the columns behind making good what a dropped
      weight did (arXiv:2301.00774); then what stays is fitted by least squares, and biases keep the mean output.
    - admm: zeros that all weights of a product agree on in 30 steps (arXiv:2401.02938, 2406.07831), then the same fit.

    The model has the zeros, and each node says its pattern; the passes after it keep both. In a graph where nodes have
    a pattern (`assign-precision`), each of them gets its own. Memory: as of the rounding passes.

    Attributes:
        max_samples: rows of the batch axis that are looked at.
        iterations: steps of the least squares.
        pattern: "2:4" or any N:M; "2:4:shared", one for 64 output channels; "1x4@2:4", blocks of 4 output channels;
            "assigned": of each node that has one, nothing else.
        score: see above.
        layers: names, or patterns with *, of the products that become sparse.
        skip: of those that do not.
        positions: output positions of a product looked at in each row of the batch.
        damping: share of H's mean diagonal that is added to the diagonal.
        compensate: for sparsegpt and admm: aim at the outputs of the model as it came instead of at w; biases too.
        block_layers: products a checkpoint.

    Raises:
        UsageError: an option that does not exist, a pattern that fits no product, a graph that has pairs already.
        DataError: no samples, or samples that do not fit the graph.
    """

    name: ClassVar[str] = "sparsify"
    iterations: int = 40
    pattern: str = "2:4"
    score: str = "sparsegpt"
    layers: Sequence[str] = ("*",)
    skip: Sequence[str] = ()
    positions: int = 128
    damping: float = 0.01
    compensate: bool = True
    block_layers: int = 8

    def rewrite(self, model: ir.Model) -> None:
        if get_level(model) is not Level.FLOAT:
            raise UsageError(self.name, "the graph has pairs already", "run it before insert-fake-quant")
        if self.score in SCORES and not SCORES[self.score].measures:
            self.check()
            for layer in self.products(model):
                w = layer.matrix(layer.weights)
                blind = Task(w, w[:, 0], w, w[:, :0], self.damping, self.iterations)
                self.apply(model.graph, layer, Pruned(self._solved(layer, blind)))
            return
        super().rewrite(model)

    def check(self) -> None:
        super().check()
        if min(self.positions, self.block_layers) < 1 or not self.damping > 0:
            raise UsageError(self.name, "an option is not positive", "give positions, block_layers and damping above 0")
        if self.score not in SCORES:
            raise UsageError(self.name, f"score is '{self.score}'", f"use {', '.join(SCORES)}")
        if self.pattern != ASSIGNED:
            Sparsity.parse(self.pattern)

    def most_layers(self, total: int) -> int:
        return self.block_layers

    def products(self, model: ir.Model) -> list[Product]:
        products = [n for n in model.graph if find_product(n)]
        for asked in (*self.layers, *self.skip):
            if asked != "*" and not any(fnmatchcase(str(n.name), asked) for n in products):
                raise UsageError(self.name, f"no product by constants is called '{asked}'", "see `mulshift inspect`")
        return [found for node in products if (found := self._product(node)) is not None]

    def _product(self, node: ir.Node) -> Product | None:
        """The product that a node is, if it is to become sparse."""
        wanted, found = self._sparsity(node), find_product(node)
        if wanted is None:
            return None
        why = found if isinstance(found, str) else unfit(found, wanted)
        if not why:
            assert isinstance(found, Product)
            return found
        self.skipped(node, why)
        set_sparsity(node, None)
        return None

    def _sparsity(self, node: ir.Node) -> Sparsity | None:
        """The pattern that a node is to have."""
        name = str(node.name)
        if not _fits(name, self.layers) or _fits(name, self.skip):
            return None
        return sparsity_of(node) or (None if self.pattern == ASSIGNED else Sparsity.parse(self.pattern))

    def block(self, walk: Walk[Product], block: Block[Product], number: int, done: int, total: int) -> list[Pruned]:
        """Product after product, each behind the sparse ones."""
        found: list[Pruned] = []
        for group in walk.together(block):
            walk.approach(group[0])
            for layer, halves in zip(group, walk.observe(group, self.positions), strict=True):
                moments = halves[0] + halves[1]
                weights = self._solved(layer, self._task(layer, halves, moments))
                follows = SCORES[self.score].updates and self.compensate
                found.append(Pruned(weights, moved_bias(layer, moments, weights) if follows else None))
                walk.set_layer(layer, found[-1])
                self.tell(done + len(found), total)
        return found

    def _task(self, layer: Product, halves: tuple[Moments, Moments], moments: Moments) -> Task:
        target, energy = aim(layer, halves, self.compensate, _COMPARED)
        norms = moments.xx.diagonal(dim1=1, dim2=2).sqrt()
        return Task(layer.matrix(layer.weights), norms, target, energy, self.damping, self.iterations)

    def _solved(self, layer: Product, task: Task) -> Array:
        """The product's new weights."""
        sparsity = self._sparsity(layer.node)
        assert sparsity is not None
        order = tap_order(layer)
        matrix = layer.matrix(layer.weights)
        matrix[:, :, order] = SCORES[self.score].weights(task.ordered(order), sparsity)
        return layer.array(matrix).numpy().astype(np.float32)

    def apply(self, graph: ir.Graph, layer: Product, found: Pruned) -> None:
        sparsity, node = self._sparsity(layer.node), layer.node
        before, name = layer.weights, str(layer.source.name)
        set_sparsity(node, sparsity)
        renew(graph, node, 1, found.array, name)
        if found.bias is not None and layer.bias is not None:
            site, old = layer.bias, constant(layer.bias.value)
            assert old is not None
            renew(graph, site.node, site.index, found.bias.reshape(old.shape), str(site.value.name))
        squares = float((before.astype(np.float64) ** 2).sum()) or 1.0
        kept = float((before[found.array != 0].astype(np.float64) ** 2).sum()) / squares
        if not np.array_equal(before, found.array):
            self.changed(node, f"{sparsity}: {100 * kept:.1f} % of the squares of its weights stay")

    def restore(self, arrays: dict[str, Array], layer: Product) -> Pruned:
        return Pruned(arrays[f"{layer.name}/weights"], arrays.get(f"{layer.name}/bias"))


def _fits(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
