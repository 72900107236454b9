"""Gradients on a stretch of the graph: weights, scales and biases of its layers, so that its output comes close."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from mulshift.passes.rounding.layers import Layer
from mulshift.passes.rounding.relaxation import Relaxation
from mulshift.passes.rounding.result import Rounded
from mulshift.passes.rounding.walk import Block, Walk

if TYPE_CHECKING:
    import torch

BIAS_RATE = 1e-3
"""`bias_rate` where nothing else is said."""


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

    def groups(self) -> list[dict[str, object]]:
        """Parameter groups of Adam."""
        weights = {"params": self.relaxation.parameters(), "lr": self.relaxation.rate}
        return [weights] if self.shift is None else [weights, {"params": [self.shift], "lr": self.bias_rate}]

    def install(self, walk: Walk, progress: float) -> None:
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


def reconstruct(
    walk: Walk,
    block: Block,
    found: Sequence[Rounded],
    relaxed: Sequence[Relaxation],
    iterations: int,
    seed: int,
    bias_rate: float = BIAS_RATE,
) -> list[Rounded]:
    """Adam on `|quantized output - float output|^2 / |float output|^2` of a block, a sample a step, from 1 on.

    The rate falls to nothing along half a cosine. If the error over all samples does not fall, all stays as it was.

    Args:
        walk: with all samples before the block; its overrides are left in disorder.
        found: of the block's layers.
        relaxed: what may move in each.
        iterations: steps.
        seed: draws the order of the samples.
        bias_rate: step of Adam on biases, in units of the layer's mean |bias|.
    """
    import torch

    trained = [Trained(*each, bias_rate) for each in zip(block.layers, found, relaxed, strict=True)]
    with torch.no_grad():
        targets = [walk.exact_outputs(block, i) for i in range(len(walk.live))]
        before = _error(walk, block, targets)
    unit = max(before / len(targets), 1e-12)
    optimizer = torch.optim.Adam([group for each in trained for group in each.groups()])
    fall = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, iterations)
    generator = torch.Generator().manual_seed(seed)
    order: list[int] = []
    for step in range(iterations):
        order = order or torch.randperm(len(walk.live), generator=generator).tolist()
        sample, progress = order.pop(), step / max(iterations - 1, 1)
        for each in trained:
            each.install(walk, progress)
        loss = distance(walk.outputs(block, sample), targets[sample]) / unit
        loss = loss + sum(each.penalty(progress) for each in trained)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        fall.step()
    made = [each.result() for each in trained]
    for each, rounded in zip(trained, made, strict=True):
        walk.set_layer(each.layer, rounded)
    with torch.no_grad():
        return made if _error(walk, block, targets) < before else list(found)


def distance(outputs: Sequence[torch.Tensor], targets: Sequence[torch.Tensor]) -> torch.Tensor:
    """Sum over outputs of the squared error as a share of the squared target."""
    import torch

    pairs = zip(outputs, targets, strict=True)
    return torch.stack([(y - t).square().sum() / t.square().sum().clamp_min(1e-30) for y, t in pairs]).sum()


def _error(walk: Walk, block: Block, targets: Sequence[Sequence[torch.Tensor]]) -> float:
    return sum(float(distance(walk.outputs(block, i), t)) for i, t in enumerate(targets))
