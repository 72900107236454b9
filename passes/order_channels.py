"""INTEGER graph -> the same graph, its hidden channels in an order with which the kernel library multiplies faster.

    W2 f(W1 x) = (W2 P) f((P' W1) x)        P: a permutation; f: whatever works channel by channel

Channels between products may stand in any order where nothing else sees it. One is chosen with which neighbouring
weights of the products that sum over them fit (`kernels.pairing`). Values keep their names and say how they are ordered
(`mulshift.ir.layout`). Where all weights fit already, or no order makes them fit, nothing changes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from mulshift.ir import (
    Array,
    Level,
    add_initializer,
    attribute,
    constant,
    describe,
    get_level,
    get_qparams,
    set_qparams,
)
from mulshift.ir.layout import set_channels
from mulshift.passes.base import Contract, Pass
from mulshift.passes.kernels.pairing import is_safe, pair_up
from mulshift.passes.kernels.products import DENSE, KERNEL
from mulshift.passes.kernels.relayout import StaysError
from mulshift.passes.kernels.spaces import Place, Space, spaces
from mulshift.passes.sparsity.found import zeros_of
from mulshift.passes.sparsity.pattern import Sparsity


@dataclass
class OrderChannels(Pass):
    """Order hidden channels for the kernel library; `lower` does it for the target `onnxruntime`."""

    name: ClassVar[str] = "order-channels"
    contract: ClassVar[Contract] = Contract.EXACT

    def rewrite(self, model: ir.Model) -> None:
        """See the module."""
        if get_level(model) is not Level.INTEGER:
            return
        for space in spaces(model.graph):
            space.bound = space.bound or _sparse(space)
            readers = [reader for node in space.readers if (reader := _reader(node)) is not None]
            if all(reader.safe for reader in readers):
                continue
            order, kept = _choose(space, readers)
            if order is not None:
                _apply(model.graph, space, order)
            for reader in readers:
                if reader.node not in kept:
                    self.changed(
                        reader.node, f"the {space.channels} channels that it sums over stand in pairs that fit"
                    )
                elif order is not None or not reader.safe:
                    self.skipped(reader.node, kept[reader.node])


@dataclass(frozen=True, eq=False)
class _Reader:
    """A product that the library runs.

    Attributes:
        node: Conv or Gemm with constant s8 weights and u8 activations.
        rows: weights [outputs, taps, channels].
        safe: whether neighbours fit now.
    """

    node: ir.Node
    rows: Array
    safe: bool

    @property
    def by_tap(self) -> Array:
        """[outputs * taps, channels]. Raises StaysError."""
        _, taps, channels = self.rows.shape
        if taps > 1 and channels % 2:
            raise StaysError(f"pairs of {channels} channels straddle the taps of its window")
        return self.rows.reshape(-1, channels)


def _sparse(space: Space) -> str | None:
    """Which zeros stand in the present order of the channels: along the inputs, or for neighbouring outputs alike.

    Told by the values of the weights, as kernels are chosen; one that was put back dense needs no order.
    """
    for place in space.places:
        zeros = None if place.index != 1 or place.node.metadata_props.get(KERNEL) == DENSE else zeros_of(place.node)
        sparsity = None if zeros is None or zeros.pattern is None else Sparsity.parse(zeros.pattern)
        if sparsity is not None and (place.node in space.readers or sparsity.across > 1):
            return f"{describe(place.node)} is sparse, {sparsity}, in this order"
    return None


def _reader(node: ir.Node) -> _Reader | None:
    x, w = node.inputs[0], constant(node.inputs[1])
    if x is None or x.dtype is not ir.DataType.UINT8 or w is None or w.dtype != np.int8:
        return None
    if attribute(node, "w_zero_point", 0) != 0:
        return None
    rows = w.T[:, None] if w.ndim == 2 else np.moveaxis(w.reshape(*w.shape[:2], -1), 1, 2)
    return _Reader(node, rows, is_safe(rows.reshape(len(rows), -1)))


def _choose(space: Space, readers: list[_Reader]) -> tuple[Array | None, dict[ir.Node, str]]:
    """An order with which as many weights as possible fit, the products of most weights first.

    Returns:
        The order, None if the channels stay as they are, and why each product that got nothing from it did not.
    """
    if space.bound is not None:
        return None, {r.node: f"the order of its input's channels is not free: {space.bound}" for r in readers}
    order, chosen, kept = None, list[_Reader](), dict[ir.Node, str]()
    for reader in sorted(readers, key=lambda r: -r.rows.size):
        try:
            order = pair_up([r.by_tap for r in (*chosen, reader)])
            chosen.append(reader)
        except StaysError as e:
            kept[reader.node] = str(e)
    if sum(r.rows.size for r in chosen) > sum(r.rows.size for r in readers if r.safe):
        return order, kept
    return None, {r.node: "what it needs others cannot have" for r in readers} | kept


def _apply(graph: ir.Graph, space: Space, order: Array) -> None:
    for place in space.places:
        _permute_constant(graph, place, order)
    for value in space.values:
        _permute_qparams(value, 1, len(value.shape or ()), order)
        set_channels(value, order)


def _permute_constant(graph: ir.Graph, place: Place, order: Array) -> None:
    """In place, or in a copy where others read it too."""
    value = place.node.inputs[place.index]
    array = constant(value)
    assert value is not None and array is not None
    moved = np.ascontiguousarray(array.take(order, place.axis))
    if value.is_initializer() and len(value.uses()) == 1 and not value.is_graph_output():
        value.const_value = ir.tensor(moved, name=value.name)
    else:
        copy = add_initializer(graph, f"{value.name}.ordered", moved)
        copy.metadata_props.update(value.metadata_props)
        place.node.replace_input_with(place.index, copy)
        value = copy
    _permute_qparams(value, place.axis, array.ndim, order)


def _permute_qparams(value: ir.Value, axis: int, rank: int, order: Array) -> None:
    q = get_qparams(value)
    if q is None or q.per_tensor or q.spec.axis is None or q.spec.axis % rank != axis:
        return
    set_qparams(value, replace(q, scale=q.scale[order], zero_point=q.zero_point[order]))
