"""What rounding found for one layer, and how it gets into the graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import onnx_ir as ir

from mulshift.ir import Array, constant
from mulshift.passes.rounding.layers import Layer, Product
from mulshift.passes.rounding.problem import Solution
from mulshift.passes.twins import replace_initializer

P = TypeVar("P", bound=Product, contravariant=True)


class Found(Protocol[P]):
    """What was found for one product."""

    @property
    def bias(self) -> Array | None:
        """float32 [channels]; None if the product has none that may move."""

    def weights(self, layer: P) -> Array:
        """What to multiply with from now on: float32, in the shape of the weights."""

    def arrays(self, name: str) -> dict[str, Array]:
        """For a checkpoint."""


@dataclass(frozen=True)
class Rounded:
    """Attributes:
    q: integers, int8, in the shape of the weights.
    scale: float32, in the shape of the pair's scale.
    bias: float32 [channels]; None if the layer has none that may move.
    """

    q: Array
    scale: Array
    bias: Array | None = None

    @classmethod
    def of(cls, layer: Layer, found: Solution) -> Rounded:
        """Of a method's solution; scales become float32 here, once."""
        scale = layer.array(found.scale).numpy()
        return cls(layer.array(found.q).numpy().astype(np.int8), layer.own_scale(scale).reshape(layer.q.scale.shape))

    @classmethod
    def now(cls, layer: Layer) -> Rounded:
        """What the graph says, rounded to nearest: the integers that it has, once they are on their grid."""
        ratio = layer.matrix(layer.weights) / layer.scales()
        bias = None if layer.bias is None else layer.bias.read(layer.channels).astype(np.float32)
        return cls(layer.array(layer.grid.round(ratio)).numpy().astype(np.int8), layer.q.scale, bias)

    def solution(self, layer: Layer) -> Solution:
        """As matrices."""
        return Solution(layer.matrix(self.q), layer.matrix(layer.spread(self.scale)))

    def weights(self, layer: Layer) -> Array:
        """`scale * q`, float32."""
        return np.asarray(self.q * layer.spread(self.scale), np.float32)

    def apply(self, graph: ir.Graph, layer: Layer) -> None:
        """Put weights, scales and bias into the graph; readers of the old initializers elsewhere keep them."""
        integers, scale = layer.dequantize.inputs[0], layer.dequantize.inputs[1]
        quantize = None if integers is None else integers.producer()
        assert quantize is not None and scale is not None
        new = replace_initializer(graph, layer.source, _name(layer.source), self.weights(layer))
        quantize.replace_input_with(0, new)
        if not np.array_equal(layer.q.scale, self.scale):
            scale.const_value = ir.tensor(self.scale.reshape(np.shape(constant(scale))), name=scale.name)  # type: ignore[arg-type]
        if self.bias is None or layer.bias is None:
            return
        old = layer.bias.value
        shaped = self.bias.reshape(np.shape(constant(old)))  # type: ignore[arg-type]
        layer.bias.node.replace_input_with(layer.bias.index, replace_initializer(graph, old, _name(old), shaped))

    def arrays(self, name: str) -> dict[str, Array]:
        """For a checkpoint."""
        found = {f"{name}/q": self.q, f"{name}/scale": self.scale}
        return found if self.bias is None else found | {f"{name}/bias": self.bias}

    @classmethod
    def from_arrays(cls, arrays: dict[str, Array], name: str) -> Rounded:
        """The inverse of `arrays`."""
        return cls(arrays[f"{name}/q"], arrays[f"{name}/scale"], arrays.get(f"{name}/bias"))


def _name(value: ir.Value) -> str:
    return f"{str(value.name).removesuffix('.rounded')}.rounded"
