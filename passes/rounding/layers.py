"""The layers whose weights are rounded: where their weights, scales and bias are, and how they become matrices."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from mulshift.ir import Array, QParams, attribute, constant, sole_user
from mulshift.passes.lattice import Grid
from mulshift.passes.pairs import pair_qparams, pair_source
from mulshift.passes.quant_rules import channel_axis, product_of_bias
from mulshift.passes.rotation.ties import is_weight
from mulshift.passes.sparsity.pattern import sparsity_of
from mulshift.passes.twins import FLOAT_ORIGIN, replace_initializer

if TYPE_CHECKING:
    import torch

OPERATORS = ("Conv", "Gemm", "MatMul")


@dataclass(frozen=True)
class BiasSite:
    """Input `index` of `node`: a constant vector, one number an output channel, added to what a product gives."""

    node: ir.Node
    index: int

    @property
    def value(self) -> ir.Value:
        """The initializer."""
        found = self.node.inputs[self.index]
        assert found is not None
        return found

    def read(self, channels: int) -> Array:
        """float64 [channels], as it is now."""
        array = constant(self.value)
        assert array is not None
        return np.broadcast_to(array.reshape(-1).astype(np.float64), (channels,)).copy()

    def exact(self, channels: int) -> Array:
        """float64 [channels], as the float model has it."""
        return np.broadcast_to(original(self.value).reshape(-1).astype(np.float64), (channels,)).copy()


@dataclass(frozen=True)
class Product:
    """A product by constant weights.

    Attributes:
        node: Conv, Gemm or MatMul.
        source: the float weights.
        axis: the axis of the weights that holds the output channels.
        groups: of a convolution, else 1.
        bias: where one number an output channel is added; None if nowhere.
    """

    node: ir.Node
    source: ir.Value
    axis: int
    groups: int
    bias: BiasSite | None

    @property
    def name(self) -> str:
        """Of the node, the same in every twin."""
        return str(self.node.name)

    @property
    def weights(self) -> Array:
        """The float weights as they are now."""
        array = constant(self.source)
        assert array is not None
        return array

    @property
    def exact(self) -> Array:
        """The float model's weights, before any pass clipped or rounded them."""
        return original(self.source)

    @property
    def kernel(self) -> tuple[int, ...]:
        """Spatial shape of a convolution's weights."""
        return self.weights.shape[2:] if self.node.op_type == "Conv" else ()

    @property
    def channels(self) -> int:
        """Output channels."""
        return int(self.weights.shape[self.axis])

    def matrix(self, array: Array) -> torch.Tensor:
        """The weights, or what has their shape: float64 [groups, outputs, K], K as `patches` has it."""
        import torch

        moved = np.moveaxis(array, self.axis, 0).astype(np.float64)
        return torch.from_numpy(np.ascontiguousarray(moved)).reshape(self.groups, self.channels // self.groups, -1)

    def array(self, matrix: torch.Tensor) -> torch.Tensor:
        """The inverse of `matrix`, with gradients, in the type of the matrix."""
        moved = list(np.moveaxis(np.empty(self.weights.shape, bool), self.axis, 0).shape)
        return matrix.reshape(moved).movedim(0, self.axis).contiguous()


@dataclass(frozen=True)
class Layer(Product):
    """A product by constant weights behind a pair.

    Attributes:
        dequantize: the end of their pair.
        q: its quantization.
    """

    dequantize: ir.Node
    q: QParams

    @property
    def kept(self) -> torch.Tensor | None:
        """Where weights may be other than zero: bool [groups, outputs, K]; None if the graph calls the node dense."""
        return None if sparsity_of(self.node) is None else self.matrix(self.weights) != 0

    def spread(self, scale: Array) -> Array:
        """The pair's scale at each weight: the shape of the weights, the type of the scale."""
        spec, shape = self.q.spec, self.weights.shape
        if spec.group is not None and spec.axis is not None:
            scale = scale.take(np.arange(shape[spec.axis]) // spec.group, axis=spec.axis)
        elif scale.size > 1:
            scale = scale.reshape([-1 if i == self.axis else 1 for i in range(len(shape))])
        return np.broadcast_to(scale, shape)

    def own_scale(self, spread: Array) -> Array:
        """The inverse of `spread`, float32: one of each channel or group."""
        spec, rank = self.q.spec, spread.ndim
        if spec.group is not None and spec.axis is not None:
            return spread.take(np.arange(0, spread.shape[spec.axis], spec.group), axis=spec.axis).astype(np.float32)
        first = tuple(slice(None) if i == self.axis and not self.q.per_tensor else slice(0, 1) for i in range(rank))
        return spread[first].reshape(-1).astype(np.float32)

    def scales(self) -> torch.Tensor:
        """The scale of each weight: float64 [groups, outputs, K]."""
        return self.matrix(self.spread(self.q.scale))

    @property
    def grid(self) -> Grid:
        """The integers that the weights may be.

        Of 8 bits, no further than rounding to nearest goes: the scale may leave room on purpose (`reduce_range`).
        """
        bits = self.q.spec.bits
        if bits == 1:
            return Grid(-1, 1, binary=True)
        most = 2 ** (bits - 1) - 1
        if bits == 8:
            most = min(most, int(np.abs(np.rint(self.weights / self.spread(self.q.scale))).max(initial=0)))
        return Grid(-most, most)


def original(value: ir.Value) -> Array:
    """The numbers of an initializer, or those of the float model's that a pass made it from."""
    tensor = value.meta.get(FLOAT_ORIGIN, value.const_value)
    assert tensor is not None
    return np.asarray(tensor.numpy())


def find_layer(node: ir.Node) -> Layer | str:
    """The layer that a node is, or why it is none that can be rounded; empty for nodes that nobody would expect."""
    if node.domain not in ("", "ai.onnx") or node.op_type not in OPERATORS or node.inputs[1] is None:
        return ""
    made = node.inputs[1].producer()
    source = None if made is None else pair_source(made)
    if made is None or source is None:
        return "" if constant(node.inputs[1]) is None else "its weights are not behind a pair"
    q, array = pair_qparams(made), constant(source)
    if q is None or array is None or array.dtype != np.float32 or (node.op_type != "Conv" and array.ndim != 2):
        return "its weights are not float32 constants behind a pair"
    if np.any(q.zero_point):
        return "its weights are not symmetric"
    axis = channel_axis(node, array.ndim)
    if q.spec.group is None and not q.per_tensor and q.spec.axis != axis:
        return "its scales do not belong to output channels"
    groups = int(attribute(node, "group", 1)) if node.op_type == "Conv" else 1
    return Layer(node, source, axis, groups, _bias(node, array.shape[axis]), made, q)


def find_product(node: ir.Node) -> Product | str:
    """The product by float constants that a node is, or why it is none whose weights may change; as `find_layer`."""
    if node.domain not in ("", "ai.onnx") or node.op_type not in OPERATORS or node.inputs[1] is None:
        return ""
    value, array = node.inputs[1], constant(node.inputs[1])
    if array is None:
        return "its weights are a table's that is read elsewhere too" if is_weight(value) else ""
    if array.dtype != np.float32 or (node.op_type != "Conv" and array.ndim != 2) or not value.is_initializer():
        return "its weights are not a float32 matrix or kernel"
    if len(value.uses()) > 1 or value.is_graph_output():
        return "its weights are read elsewhere too"
    axis = channel_axis(node, array.ndim)
    groups = int(attribute(node, "group", 1)) if node.op_type == "Conv" else 1
    return Product(node, value, axis, groups, _bias(node, array.shape[axis]))


def _bias(node: ir.Node, channels: int) -> BiasSite | None:
    if node.op_type == "MatMul":
        user = sole_user(node.outputs[0])
        if user is None or product_of_bias(user) is not node:
            return None
        return BiasSite(user, 0 if user.inputs[1] is node.outputs[0] else 1)
    if node.op_type == "Gemm" and not (attribute(node, "alpha", 1.0) == attribute(node, "beta", 1.0) == 1.0):
        return None
    bias = constant(node.inputs[2]) if len(node.inputs) > 2 else None
    return BiasSite(node, 2) if bias is not None and bias.size == math.prod(bias.shape[-1:]) == channels else None


def give_bias(graph: ir.Graph, layer: Layer) -> bool:
    """Add zeros where a Conv or Gemm has no bias, so that one can be learned; whether there is one now."""
    if layer.bias is not None:
        return True
    node, plain = layer.node, attribute(layer.node, "alpha", 1.0) == attribute(layer.node, "beta", 1.0) == 1.0
    if node.op_type == "MatMul" or not plain or (len(node.inputs) > 2 and node.inputs[2] is not None):
        return False
    node.resize_inputs(3)
    node.replace_input_with(2, replace_initializer(graph, None, f"{node.name}.bias", np.zeros(layer.channels, "f4")))
    return True


def with_bias(graph: ir.Graph, layer: Layer) -> Layer:
    """The layer, with zeros as bias where it is a Conv or Gemm without one."""
    if layer.bias is not None or not give_bias(graph, layer):
        return layer
    found = find_layer(layer.node)
    assert isinstance(found, Layer)
    return found


def find_layers(graph: ir.Graph, skipped: Callable[[ir.Node, str], None]) -> list[Layer]:
    """All of them in graph order; weights that several layers read are rounded for the first.

    Args:
        graph: of level QDQ.
        skipped: told about products that are left alone.
    """
    layers: list[Layer] = []
    taken: set[ir.Value] = set()
    for node in graph:
        found = find_layer(node)
        if isinstance(found, str):
            if found:
                skipped(node, found)
        elif found.source in taken:
            skipped(node, "it reads weights that were rounded for an earlier layer")
        else:
            taken.add(found.source)
            layers.append(found)
    return layers
