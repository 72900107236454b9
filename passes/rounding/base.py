"""What the rounding passes share: a subclass solves one layer's Problem."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace

from mulshift.ir import UsageError
from mulshift.passes.rounding.aim import aim, moved_bias, moves_bias
from mulshift.passes.rounding.layers import Layer
from mulshift.passes.rounding.moments import Moments
from mulshift.passes.rounding.pair_pass import PairPass
from mulshift.passes.rounding.problem import Problem, Solution
from mulshift.passes.rounding.reconstruct import Descent, reconstruct
from mulshift.passes.rounding.relaxation import FrozenIntegers, Relaxation
from mulshift.passes.rounding.result import Rounded
from mulshift.passes.rounding.walk import Block, Walk
from mulshift.passes.sparsity.survivors import refit

GRANULARITIES = ("layer", "block")
REFIT_STEPS = 40
"""Of the least squares that find the target of a sparse layer."""


@dataclass
class RoundingPass(PairPass):
    """Round layer after layer, each behind the rounded ones: `min E |(w u + b) - (s q x + b')|^2` over q, b' (and s).

    u are the layer's inputs in the float graph, x those in the quantized graph as it is by then. With the moments
    `H = E[x^T x]` and `U = E[u^T x]` about their means this is `(t - s q) H (t - s q)^T` plus what no weights can
    change, with `t = w + w (U - H) (H + l I)^-1`; `b' = b + w E[u] - s q E[x]`. Methods differ in how they find q, s.

    A node that has a pattern of zeros (`mulshift.passes.sparsity`) keeps it: t and q are zero where its weights are.

    The graph is cut into blocks where one value is all that goes on (a residual block is one). Memory: the weights
    twice, the values alive at the start of a block for each sample, in both graphs, and the moments of the layers that
    read one value, 32 bytes * inputs^2.

    Attributes:
        iterations: of a layer where the method descends, and of a block.
        positions: output positions of a layer looked at in each row of the batch.
        granularity: "layer"; or "block": after its layers, what the method leaves continuous is tuned by gradients
            so that the block's output comes close to the float block's (Li et al. 2021, BRECQ).
        damping: share of H's mean diagonal that is added to the diagonal.
        compensate: aim at the float graph's outputs (t above) instead of at w; biases too.
        block_layers: most layers of a block, where the graph can be cut so.
    """

    positions: int = 128
    granularity: str = "layer"
    damping: float = 0.01
    compensate: bool = True
    block_layers: int = 4

    @abstractmethod
    def solve(self, problem: Problem) -> Solution:
        """Integers and scales for one layer."""

    def relax(self, problem: Problem, found: Solution) -> Relaxation:
        """What gradients may move when a block is tuned."""
        return FrozenIntegers(found)

    def most_layers(self, total: int) -> int:
        return self.block_layers

    def moves_biases(self) -> bool:
        return self.compensate

    def check(self) -> None:
        super().check()
        if min(self.positions, self.block_layers) < 1 or not self.damping > 0:
            raise UsageError(self.name, "an option is not positive", "give positions, block_layers and damping above 0")
        if self.granularity not in GRANULARITIES:
            raise UsageError(self.name, f"granularity is '{self.granularity}'", f"use {' or '.join(GRANULARITIES)}")

    def block(self, walk: Walk[Layer], block: Block[Layer], number: int, done: int, total: int) -> list[Rounded]:
        """Layer after layer, then the block as a whole if asked to."""
        found: list[Rounded] = []
        relaxed: list[Relaxation] = []
        for group in walk.together(block):
            for layer, halves in zip(group, walk.observe(group, self.positions), strict=True):
                problem, moments = self._problem(layer, halves), halves[0] + halves[1]
                solution = self.solve(problem)
                found.append(self._with_bias(layer, moments, Rounded.of(layer, solution)))
                relaxed += [self.relax(problem, solution)] if self.granularity == "block" else []
                walk.set_layer(layer, found[-1])
                self.tell(done + len(found), total)
        descent = Descent(self.iterations, self.seed)
        return reconstruct(walk, block, found, relaxed, descent) if relaxed else found

    def _problem(self, layer: Layer, halves: tuple[Moments, Moments]) -> Problem:
        target, energy = aim(layer, halves, self.compensate)
        kept = layer.kept
        if kept is not None:
            target = refit(target, layer.matrix(layer.exact), kept, energy, self.damping, REFIT_STEPS)
        return Problem(target, energy, layer.scales(), layer.grid, kept)

    def _with_bias(self, layer: Layer, moments: Moments, rounded: Rounded) -> Rounded:
        if not moves_bias(layer, self.compensate):
            return rounded
        return replace(rounded, bias=moved_bias(layer, moments, rounded.weights(layer)))
