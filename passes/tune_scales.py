"""tune-scales: scales and biases of a quantized graph, by gradients, so that its outputs follow the float graph's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mulshift.ir import UsageError
from mulshift.passes.rounding.layers import Layer
from mulshift.passes.rounding.pair_pass import PairPass
from mulshift.passes.rounding.reconstruct import Descent, reconstruct
from mulshift.passes.rounding.relaxation import FrozenIntegers
from mulshift.passes.rounding.result import Rounded
from mulshift.passes.rounding.walk import Block, Walk
from mulshift.passes.rounding.walk_pass import part


@dataclass
class TuneScales(PairPass):
    """Adam on `|y - float y|^2 / |float y|^2` of the graph's outputs, over one factor of the scales an output channel
    and the biases of all layers; integers stay (Chen et al. 2024, EfficientQAT's second stage, arXiv:2407.11062;
    distillation as Polino et al. 2018). No labels. A sample a step, gradients straight through the quantizers.

    Run it after a rounding pass; integers that are not on their grid are rounded to nearest first.

    Attributes:
        rate: step of Adam on the logarithm of a factor, and on biases in units of a layer's mean |bias|.
    """

    name: ClassVar[str] = "tune-scales"
    iterations: int = 128
    rate: float = 1e-3

    def check(self) -> None:
        super().check()
        if not self.rate > 0:
            raise UsageError(self.name, f"rate is {self.rate}", "give one above 0")

    def block(self, walk: Walk[Layer], block: Block[Layer], number: int, done: int, total: int) -> list[Rounded]:
        """The whole graph as one."""
        now = [Rounded.now(layer) for layer in block.layers]
        pairs = zip(block.layers, now, strict=True)
        relaxed = [FrozenIntegers(rounded.solution(layer), self.rate) for layer, rounded in pairs]
        steps = f"{part(number)}-steps"
        descent = Descent(self.iterations, self.seed, self.rate, self._tell, self.kept, steps)
        return reconstruct(walk, block, now, relaxed, descent)

    def _tell(self, done: int) -> None:
        self.tell(done, self.iterations)
