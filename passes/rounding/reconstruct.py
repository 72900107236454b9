"""Gradients on a stretch of the graph: weights, scales and biases of its layers, so that its output comes close."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from mulshift.passes.rounding.adam import Adam
from mulshift.passes.rounding.checkpoint import Checkpoints
from mulshift.passes.rounding.layers import Layer
from mulshift.passes.rounding.relaxation import Relaxation
from mulshift.passes.rounding.result import Rounded
from mulshift.passes.rounding.walk import Block, Walk

if TYPE_CHECKING:
    import torch

BIAS_RATE = 1e-3
"""`bias_rate` where nothing else is said."""
EVERY = 16
"""Steps between checkpoints."""


@dataclass
class Trained:
    """One layer inside a stretch: what moves in its weights, and its bias."""

    layer: Layer
    rounded: Rounded
    relaxation: Relaxation
    bias_rate: float = BIAS_RATE
    shift: torch.Tensor | None = None
    unit: float = 1.0

    def __post_init__(self) -> None:
        import torch

        if self.rounded.bias is not None:
            self.shift = torch.zeros(len(self.rounded.bias), requires_grad=True)
            self.unit = float(np.abs(self.rounded.bias).mean()) or 1.0

    def groups(self) -> list[tuple[list[torch.Tensor], float]]:
        """Parameters and the rate of each group."""
        weights = (self.relaxation.parameters(), self.relaxation.rate)
        return [weights] if self.shift is None else [weights, ([self.shift], self.bias_rate)]

    def install(self, walk: Walk[Layer], progress: float) -> None:
        """Let the quantized twin compute with what the parameters are now."""
        import torch

        walk.set_weights(self.layer, self.layer.array(self.relaxation.weights(progress)))
        if self.shift is not None and self.rounded.bias is not None and self.layer.bias is not None:
            walk.set_bias(self.layer.bias, torch.from_numpy(self.rounded.bias) + self.unit * self.shift)

    def penalty(self, progress: float) -> torch.Tensor | float:
        """Per weight."""
        return self.relaxation.penalty(progress) / max(self.rounded.q.size, 1)

    def result(self) -> Rounded:
        """What the parameters came to."""
        found = replace(Rounded.of(self.layer, self.relaxation.solution()), bias=self.rounded.bias)
        if self.shift is None or found.bias is None:
            return found
        return replace(found, bias=(found.bias + self.unit * self.shift.detach().numpy()).astype(np.float32))


@dataclass(frozen=True)
class Descent:
    """How far and how fast to go, who watches, and where steps are kept.

    Attributes:
        iterations: steps of Adam.
        seed: draws the order of the samples.
        bias_rate: step of Adam on biases, in units of the layer's mean |bias|.
        told: called with the number of steps done.
        kept: where a long descent is kept every `EVERY` steps, as `part`; a descent that is there goes on.
        part: see there.
    """

    iterations: int
    seed: int
    bias_rate: float = BIAS_RATE
    told: Callable[[int], None] | None = None
    kept: Checkpoints | None = None
    part: str = ""

    def sample(self, step: int, count: int) -> int:
        """Which of `count` samples a step takes: each once before one comes again, in an order drawn for each turn."""
        turn, place = divmod(step, count)
        return int(np.random.default_rng((self.seed, turn)).permutation(count)[place])

    def share(self, step: int) -> float:
        """Of the rates: from 1 to nearly 0 along half a cosine."""
        return 0.5 * (1 + math.cos(math.pi * step / self.iterations))


def reconstruct(
    walk: Walk[Layer], block: Block[Layer], found: Sequence[Rounded], relaxed: Sequence[Relaxation], descent: Descent
) -> list[Rounded]:
    """Adam on `|quantized output - float output|^2 / |float output|^2` of a block, a sample a step, from 1 on.

    If the error over all samples does not fall, all stays as it was.

    Args:
        walk: with all samples before the block; its overrides are left in disorder.
        found: of the block's layers.
        relaxed: what may move in each.
        descent: see there.
    """
    import torch

    trained = [Trained(*each, descent.bias_rate) for each in zip(block.layers, found, relaxed, strict=True)]
    with torch.no_grad():
        targets = [walk.exact_outputs(block, i) for i in range(len(walk.live))]
        before = _error(walk, block, targets)
    _descend(walk, block, trained, targets, max(before / len(targets), 1e-12), descent)
    made = [each.result() for each in trained]
    for each, rounded in zip(trained, made, strict=True):
        walk.set_layer(each.layer, rounded)
    with torch.no_grad():
        return made if _error(walk, block, targets) < before else list(found)


def _descend(
    walk: Walk[Layer],
    block: Block[Layer],
    trained: Sequence[Trained],
    targets: Sequence[Sequence[torch.Tensor]],
    unit: float,
    descent: Descent,
) -> None:
    groups = [group for each in trained for group in each.groups()]
    adam = Adam([(tensor, rate) for parameters, rate in groups for tensor in parameters])
    first = 0 if descent.kept is None else adam.load(descent.kept.read(descent.part))
    for step in range(first, descent.iterations):
        sample, progress = descent.sample(step, len(targets)), step / max(descent.iterations - 1, 1)
        for each in trained:
            each.install(walk, progress)
        loss = distance(walk.outputs(block, sample), targets[sample]) / unit
        loss = loss + sum(each.penalty(progress) for each in trained)
        adam.step(loss, descent.share(step))
        if descent.told is not None:
            descent.told(step + 1)
        if descent.kept is not None and (step + 1) % EVERY == 0:
            descent.kept.write(descent.part, adam.arrays())


def distance(outputs: Sequence[torch.Tensor], targets: Sequence[torch.Tensor]) -> torch.Tensor:
    """Sum over outputs of the squared error as a share of the squared target."""
    import torch

    pairs = zip(outputs, targets, strict=True)
    return torch.stack([(y - t).square().sum() / t.square().sum().clamp_min(1e-30) for y, t in pairs]).sum()


def _error(walk: Walk[Layer], block: Block[Layer], targets: Sequence[Sequence[torch.Tensor]]) -> float:
    return sum(float(distance(walk.outputs(block, i), t)) for i, t in enumerate(targets))
