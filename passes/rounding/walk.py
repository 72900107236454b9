"""Walk along a graph with other weights and the float graph under it, block by block, for all samples side by side.

The other one is a QDQ graph, or a float graph some of whose weights become zeros.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np
import onnx_ir as ir

from mulshift.ir import Feeds, constant
from mulshift.ir.stepper import Live, Stepper
from mulshift.passes.pairs import is_quantized
from mulshift.passes.patches import patches
from mulshift.passes.rounding.blocks import choose_cuts, find_cuts
from mulshift.passes.rounding.layers import BiasSite, Product
from mulshift.passes.rounding.moments import Moments
from mulshift.passes.rounding.result import Found
from mulshift.passes.twins import float_twin, frozen_twin

if TYPE_CHECKING:
    import torch

P = TypeVar("P", bound=Product)


@dataclass(frozen=True)
class Block(Generic[P]):
    """Attributes:
    layers: in graph order.
    output: the value at its end; None for the graph's outputs.
    exact, quantized: position after its last node, in each twin.
    """

    layers: tuple[P, ...]
    output: str | None
    exact: int
    quantized: int


class Walk(Generic[P]):
    """The two twins, and what each sample has come to in both.

    Memory: the weights twice, and for each sample the values that are alive at the start of a block, twice.
    """

    def __init__(self, model: ir.Model, layers: Sequence[P], samples: Sequence[Feeds], most: int) -> None:
        import torch

        self.exact, self.quantized = Stepper(float_twin(model)), Stepper(frozen_twin(model))
        self._exact_inputs, self._inputs = _input_names(self.exact), _input_names(self.quantized)
        self._exact_nodes = {str(n.name): n for n in self.exact.model.graph}
        self._nodes = {str(n.name): n for n in self.quantized.model.graph}
        self.blocks = self._blocks(model, layers, samples[0], most)
        with torch.no_grad():
            self.live = [(self.exact.start(f), self.quantized.start(f)) for f in samples]

    def _blocks(self, model: ir.Model, layers: Sequence[P], feeds: Feeds, most: int) -> list[Block[P]]:
        import torch

        sizes: dict[str, int] = {}

        def measure(value: ir.Value, tensor: torch.Tensor) -> None:
            sizes[str(value.name)] = tensor.numel()

        with torch.no_grad():
            self.exact.run(feeds, measure)
        made_there = [v for n in model.graph for v in n.outputs]
        paired = {str(v.name) for v in made_there if is_quantized(v)}
        allowed = paired or {str(v.name) for v in made_there}
        cuts = find_cuts(self.exact.model.graph, {layer.name for layer in layers}, allowed)
        chosen = choose_cuts(cuts, len(layers), sizes, most)
        made = [{str(v.name): i for i, n in enumerate(t.nodes(0, len(t))) for v in n.outputs} for t in self._twins]
        blocks, done = list[Block[P]](), 0
        for cut in chosen:
            exact, quantized = (m[cut.value] + 1 for m in made)
            blocks.append(Block(tuple(layers[done : cut.layers]), cut.value, exact, quantized))
            done = cut.layers
        return [*blocks, Block(tuple(layers[done:]), None, len(self.exact), len(self.quantized))]

    @property
    def _twins(self) -> tuple[Stepper, Stepper]:
        return self.exact, self.quantized

    def together(self, block: Block[P]) -> Iterator[list[P]]:
        """The block's layers in order; those in a row that read one value at once."""
        group: list[P] = []
        for layer in block.layers:
            if group and self._inputs[layer.name] != self._inputs[group[0].name]:
                yield group
                group = []
            group.append(layer)
        if group:
            yield group

    def approach(self, layer: P) -> None:
        """All samples to the place before a layer, for good: nothing before it changes any more."""
        import torch

        with torch.no_grad():
            for i, (exact, other) in enumerate(self.live):
                before = self.exact.position(layer.name), self.quantized.position(layer.name)
                self.live[i] = self.exact.advance(exact, before[0]), self.quantized.advance(other, before[1])

    def observe(self, layers: Sequence[P], limit: int) -> list[tuple[Moments, Moments]]:
        """Second moments of what layers that read the same value see, with all layers before them as they are now.

        Args:
            layers: of the block that the samples stand before.
            limit: about how many rows of a sample (of each row of its batch) at most.

        Returns:
            Of each layer: of every second sample, and of the others.
        """
        import torch

        found: list[tuple[Moments, Moments]] = []
        first = layers[0].name
        with torch.no_grad():
            for turn, (exact, quantized) in enumerate(self.live):
                e = self.exact.advance(exact, self.exact.position(first))
                q = self.quantized.advance(quantized, self.quantized.position(first))
                for i, layer in enumerate(layers):
                    node, twin = self._nodes[layer.name], self._exact_nodes[layer.name]
                    x, u = _operand(self.quantized, q, node), _operand(self.exact, e, twin)
                    rows = limit * (len(x) if x.ndim > 1 else 1)
                    new = Moments.of(patches(node, x, layer.kernel, rows), patches(node, u, layer.kernel, rows))
                    if len(found) == i:
                        found.append((new.empty(), new.empty()))
                    found[i][turn % 2].add(new)
        return found

    def set_weights(self, layer: P, weights: torch.Tensor) -> None:
        """What the quantized twin multiplies with from now on."""
        self._override(self._nodes[layer.name].inputs[1], weights)

    def set_bias(self, site: BiasSite, bias: torch.Tensor) -> None:
        """What the quantized twin adds there from now on: float32 [channels]."""
        value = self._nodes[str(site.node.name)].inputs[site.index]
        self._override(value, bias.reshape(np.shape(constant(site.value))))  # type: ignore[arg-type]

    def _override(self, value: ir.Value | None, tensor: torch.Tensor) -> None:
        assert value is not None
        self.quantized.overrides = {**self.quantized.overrides, str(value.name): tensor}

    def set_layer(self, layer: P, found: Found[P]) -> None:
        """Weights and bias as they were found."""
        import torch

        self.set_weights(layer, torch.from_numpy(found.weights(layer)))
        if found.bias is not None and layer.bias is not None:
            self.set_bias(layer.bias, torch.from_numpy(found.bias))

    def exact_outputs(self, block: Block[P], sample: int) -> list[torch.Tensor]:
        """What the float twin has at the end of the block that the samples stand before."""
        return _ends(self.exact, self.exact.advance(self.live[sample][0], block.exact), block.output)

    def outputs(self, block: Block[P], sample: int) -> list[torch.Tensor]:
        """What the quantized twin has there."""
        return _ends(self.quantized, self.quantized.advance(self.live[sample][1], block.quantized), block.output)

    def finish(self, block: Block[P]) -> None:
        """All samples to the start of the next block."""
        import torch

        with torch.no_grad():
            for i, (exact, quantized) in enumerate(self.live):
                self.live[i] = (
                    self.exact.advance(exact, block.exact),
                    self.quantized.advance(quantized, block.quantized),
                )


def _ends(twin: Stepper, live: Live, name: str | None) -> list[torch.Tensor]:
    if name is None:
        outputs = [twin.read(live, v) for v in twin.model.graph.outputs]
        return [y for y in outputs if y.is_floating_point()]
    return [next(y for v, y in live.values.items() if v.name == name)]


def _operand(twin: Stepper, live: Live, node: ir.Node) -> torch.Tensor:
    value = node.inputs[0]
    assert value is not None
    return twin.read(live, value)


def _input_names(twin: Stepper) -> dict[str, str]:
    return {
        str(n.name): str(n.inputs[0].name) for n in twin.nodes(0, len(twin)) if n.inputs and n.inputs[0] is not None
    }
