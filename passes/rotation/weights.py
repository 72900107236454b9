"""Write a rotation into the weights and constants around a region."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from mulshift.ir import Array, add_initializer, attribute, constant, fresh_name, inherit_origin, sole_user
from mulshift.ir.float_functions import domain_of
from mulshift.ir.metadata import RANGE
from mulshift.passes.calibrate import EXTREMES
from mulshift.passes.fold_affine import add_after
from mulshift.passes.linear_weights import LINEAR, bias_of, drop_unused, set_bias
from mulshift.passes.rotation.regions import MARK, Norm, Region

_ROWS = 8192
"""Rows that are turned at a time: float64 copies of an embedding table stay small."""


def turned(w: Array, axis: int, q: Array, gain: Array | None = None) -> Array:
    """`w R` along an axis: every run v of its channels becomes `(gain * v) Q`; in float64, back in w's type.

    A weight that reads rotated channels is `R^T diag(gain) W`, which is the same along its input axis.
    """
    moved = np.moveaxis(w, axis, -1)
    rows = moved.reshape(-1, q.shape[0])
    made = np.empty_like(rows)
    for at in range(0, len(rows), _ROWS):
        part = rows[at : at + _ROWS].astype(np.float64)
        made[at : at + _ROWS] = (part if gain is None else part * gain) @ q
    return np.moveaxis(made.reshape(moved.shape), -1, axis)


def weight(value: ir.Value | None) -> Array:
    """A constant, also where a Transpose of a constant matrix stands for it."""
    array = constant(value)
    if array is not None:
        return array
    node = None if value is None else value.producer()
    source = None if node is None else constant(node.inputs[0])
    assert source is not None, "the region checked it"
    return np.asarray(source.T)


def out_axis(node: ir.Node) -> int:
    """The axis of a linear node's weights that makes its output channels."""
    if node.op_type == "Gemm":
        return 0 if attribute(node, "transB", 0) else 1
    return {"Conv": 0, "ConvTranspose": 1}.get(node.op_type, -1)


def in_axis(node: ir.Node) -> int:
    """The axis of a linear node's weights that reads its input channels."""
    if node.op_type == "Gemm":
        return 1 if attribute(node, "transB", 0) else 0
    return {"Conv": 1, "ConvTranspose": 0}.get(node.op_type, -2)


@dataclass
class Writer:
    """Writes one region; constants that were shared and turned alike stay shared.

    Attributes:
        regions: all that are written; a bias that a node gets here is a constant of the one that it makes.
        q: [order, order] orthogonal.
        kind: what Q is, for the marks.
    """

    model: ir.Model
    regions: Sequence[Region]
    region: Region
    q: Array
    kind: str
    _made: dict[tuple[ir.Value, object], ir.Value] = field(default_factory=dict, init=False)

    def write(self) -> None:
        """`W_out <- W_out P R`, c <- `c P R`, `W_in <- R^T diag(gamma) W_in`; P takes the mean away for LayerNorm."""
        region = self.region
        out = self.q - self.q.mean(axis=0) if region.centred else self.q  # P Q, P = I - 1 1^T / n
        for node, norm in region.readers.items():
            self._read(node, norm)
        for node in region.makers:
            self._set(node, 1, ("out", out_axis(node)), turned(weight(node.inputs[1]), out_axis(node), out))
        for (node, index), (axis, channels) in region.constants.items():
            c = _wide(weight(node.inputs[index]), axis, channels)
            self._set(node, index, ("constant", axis, channels), turned(c, max(axis, 0), out))
        for value in region.values:
            value.metadata_props[MARK] = self.kind
            _forget(value)
        for norm in region.norms.values():
            self._plain(norm)

    def _read(self, node: ir.Node, norm: Norm | None) -> None:
        """`(gamma * u + beta) W + b = (u R) (R^T diag(gamma) W) + (b + beta W)`."""
        folded = None if norm is None or norm.kept else norm
        axis = in_axis(node)
        w = weight(node.inputs[1])
        if folded is not None and folded.beta.any():
            shift = shift_of(node, w, folded.beta)
            assert shift is not None, "the region checked it"
            self._shift(node, shift)
        gain = None if folded is None else folded.gamma
        key = ("in", axis, None if folded is None else folded.gamma.tobytes())
        self._set(node, 1, key, turned(w, axis, self.q, gain))

    def _shift(self, node: ir.Node, shift: Array) -> None:
        """Add a constant [outputs] to what a linear node makes."""
        row, graph = LINEAR[node.op_type], self.model.graph
        _forget(node.outputs[0])
        if row.bias is not None:
            bias = bias_of(node, row, shift.size)
            assert bias is not None
            set_bias(graph, node, row, bias + shift)
            return self._owe(node.outputs[0], node, row.bias, max(bias.ndim, 1) - 1, shift.size)
        add = sole_user(node.outputs[0])
        index = None if add is None or add.op_type != "Add" or add.domain != "" else _bias_index(add, shift.size)
        if add is not None and index is not None:
            old = weight(add.inputs[index])
            return self._set(add, index, None, (old.astype(np.float64) + shift).astype(old.dtype))
        out = add_after(graph, node, shift)
        made = out.producer()
        assert made is not None
        return self._owe(node.outputs[0], made, 1, 0, shift.size)

    def _owe(self, value: ir.Value, node: ir.Node, index: int, axis: int, channels: int) -> None:
        """A constant that was added to a value is rotated with it."""
        for region in self.regions:
            if value in region.values:
                region.constants[node, index] = (axis, channels)

    def _set(self, node: ir.Node, index: int, key: object, array: Array) -> None:
        """Give a node its own constant; `key` says how it was made from the old one (None: never shared)."""
        old, graph = node.inputs[index], self.model.graph
        assert old is not None
        known = None if key is None else self._made.get((old, key))
        if known is not None:
            node.replace_input_with(index, known)
            return _drop(graph, old)
        name = str(old.name) if old.producer() is None else fresh_name(graph, f"{old.name}.rotated")
        node.replace_input_with(index, None)
        _drop(graph, old)
        made = add_initializer(graph, name, array)
        node.replace_input_with(index, made)
        if key is not None:
            self._made[old, key] = made
        return None

    def _plain(self, norm: Norm) -> None:
        """RMSNormalization, with scale one unless it commutes."""
        node, graph, n = norm.node, self.model.graph, self.region.order
        scale = node.inputs[1]
        assert scale is not None and scale.dtype is not None
        if not norm.kept:
            self._set(node, 1, "one", np.ones(n, scale.dtype.numpy()))
        if not norm.centred:
            return
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        epsilon = float(attribute(node, "epsilon", 1e-5))
        name = "RMSNormalization"
        domain = domain_of(self.model, name)
        made = ir.node(name, node.inputs[:2], {"epsilon": epsilon}, domain=domain, name=node.name)
        inherit_origin([made], [node])
        made.metadata_props.update({k: v for k, v in node.metadata_props.items() if k not in made.metadata_props})
        made.outputs[0].metadata_props.update(node.outputs[0].metadata_props)
        ir.convenience.replace_nodes_and_values(graph, node, [node], [made], node.outputs[:1], made.outputs)
        _drop(graph, bias)


def unwritable(region: Region) -> str:
    """Why a region whose nodes all agree is still left alone; empty if it can be written."""
    if not region.makers and not region.constants:
        return "no weights make its channels"
    if not region.readers:
        return "no weights read its channels"
    for node, norm in region.readers.items():
        if norm is None or norm.kept or not norm.beta.any():
            continue
        if shift_of(node, weight(node.inputs[1]), norm.beta) is None:
            return f"the bias of '{norm.node.name}' meets zeros at the border of '{node.name}'"
        row = LINEAR[node.op_type]
        if row.bias is not None and bias_of(node, row, 1) is None:
            return f"the bias of '{node.name}' is not constant"
    for node, index in region.constants:
        if not np.isfinite(weight(node.inputs[index]).astype(np.float64)).all():
            return f"a constant of '{node.name}' is not finite"
    return ""


def shift_of(node: ir.Node, w: Array, beta: Array) -> Array | None:
    """`beta W` for every run of channels, [outputs]; None where it is not the same at every position."""
    row, wide = LINEAR[node.op_type], w.astype(np.float64)
    return row.shift_in(node, wide, np.tile(beta, row.inputs(node, wide) // beta.size))


def _bias_index(add: ir.Node, channels: int) -> int | None:
    arrays = [constant(v) for v in add.inputs]
    fits = (i for i, a in enumerate(arrays) if a is not None and a.size == channels and a.shape[-1:] == (channels,))
    return next(fits, None)


def _wide(c: Array, axis: int, channels: int) -> Array:
    """With `channels` elements along the axis, which is put in front if broadcasting would add it."""
    if axis < 0:
        c = c.reshape((1,) * -axis + c.shape)
    shape = list(c.shape)
    shape[max(axis, 0)] = channels
    return np.broadcast_to(c, shape)


def _forget(value: ir.Value) -> None:
    value.metadata_props.pop(RANGE, None)
    value.metadata_props.pop(EXTREMES, None)


def _drop(graph: ir.Graph, value: ir.Value | None) -> None:
    """Remove a constant that nothing reads any more, and the Transpose that made it."""
    node = None if value is None else value.producer()
    if value is None or node is None:
        return drop_unused(graph, value)
    if value.uses() or value.is_graph_output() or node.op_type not in ("Transpose", "Constant"):
        return None
    sources = [v for v in node.inputs if v is not None]
    graph.remove(node, safe=True)
    for source in sources:
        drop_unused(graph, source)
    return None
