"""What scaling and shifting channels does to the weights of Conv, ConvTranspose, Gemm and MatMul: one row each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from mulshift.ir import Array, add_initializer, attribute, constant, ints


@dataclass(frozen=True)
class Linear:
    """A row: `y = W x + bias` for one operator, channels of x along `axis_in`, of y along `axis_out`.

    Attributes:
        axis_in, axis_out: of the data, given the node; negative counts from the end.
        outputs, inputs: number of channels, given node and W.
        scale_out: W' with `W' x = a * (W x)`.
        scale_in: W' with `W' x = W (a * x)`.
        shift_in: `W b` as [outputs]; None where it is not the same at every position.
        bias: index of the bias input; None if the operator has none.
    """

    axis_in: Callable[[ir.Node], int]
    axis_out: int
    outputs: Callable[[ir.Node, Array], int]
    inputs: Callable[[ir.Node, Array], int]
    scale_out: Callable[[ir.Node, Array, Array], Array]
    scale_in: Callable[[ir.Node, Array, Array], Array]
    shift_in: Callable[[ir.Node, Array, Array], Array | None]
    bias: int | None = 2


def _tail(w: Array) -> tuple[int, ...]:
    return (1,) * (w.ndim - 2)


def _group(node: ir.Node) -> int:
    return int(attribute(node, "group", 1))


def _pads_zero(node: ir.Node) -> bool:
    return not any(ints(node, "pads") or ()) and attribute(node, "auto_pad", "NOTSET") in ("NOTSET", "VALID")


def _conv_out(node: ir.Node, w: Array, a: Array) -> Array:
    """w: [O, I/g, k...]; a: [O]."""
    return w * a.reshape(-1, 1, *_tail(w))


def _conv_in(node: ir.Node, w: Array, a: Array) -> Array:
    """w: [O, I/g, k...]; a: [I]."""
    g = _group(node)
    grouped = w.reshape(g, -1, *w.shape[1:]) * a.reshape(g, 1, -1, *_tail(w))
    return grouped.reshape(w.shape)


def _conv_shift(node: ir.Node, w: Array, b: Array) -> Array | None:
    """`sum over i, k of w[o, i, k] * b[i]`; padding with zeros sees no b at the border."""
    if b.any() and not _pads_zero(node):
        return None
    return np.asarray(_conv_in(node, w, b).reshape(w.shape[0], -1).sum(axis=1))


def _transposed_out(node: ir.Node, w: Array, a: Array) -> Array:
    """w: [I, O/g, k...]; a: [O]."""
    g = _group(node)
    grouped = w.reshape(g, -1, *w.shape[1:]) * a.reshape(g, 1, -1, *_tail(w))
    return grouped.reshape(w.shape)


def _transposed_shift(node: ir.Node, w: Array, b: Array) -> Array | None:
    """Another number of taps reaches each position, so only b = 0 is the same everywhere."""
    return None if b.any() else np.zeros(w.shape[1] * _group(node))


def _gemm_matrix(node: ir.Node, w: Array) -> Array:
    """[K, N] view of B."""
    return w.T if attribute(node, "transB", 0) else w


def _gemm_out(node: ir.Node, w: Array, a: Array) -> Array:
    return _gemm_matrix(node, _gemm_matrix(node, w) * a)


def _gemm_in(node: ir.Node, w: Array, a: Array) -> Array:
    return _gemm_matrix(node, _gemm_matrix(node, w) * a[:, None])


def _gemm_shift(node: ir.Node, w: Array, b: Array) -> Array:
    return np.asarray(attribute(node, "alpha", 1.0) * (b @ _gemm_matrix(node, w)))


def _matmul_shift(node: ir.Node, w: Array, b: Array) -> Array | None:
    if w.ndim > 2 and b.any():
        return None
    return np.asarray(b @ w) if w.ndim == 2 else np.zeros(w.shape[-1])


LINEAR: dict[str, Linear] = {
    "Conv": Linear(
        lambda node: 1,
        1,
        lambda node, w: int(w.shape[0]),
        lambda node, w: int(w.shape[1]) * _group(node),
        _conv_out,
        _conv_in,
        _conv_shift,
    ),
    "ConvTranspose": Linear(
        lambda node: 1,
        1,
        lambda node, w: int(w.shape[1]) * _group(node),
        lambda node, w: int(w.shape[0]),
        _transposed_out,
        _conv_out,
        _transposed_shift,
    ),
    "Gemm": Linear(
        lambda node: 0 if attribute(node, "transA", 0) else 1,
        1,
        lambda node, w: int(_gemm_matrix(node, w).shape[1]),
        lambda node, w: int(_gemm_matrix(node, w).shape[0]),
        _gemm_out,
        _gemm_in,
        _gemm_shift,
    ),
    "MatMul": Linear(
        lambda node: -1,
        -1,
        lambda node, w: int(w.shape[-1]),
        lambda node, w: int(w.shape[-2]),
        lambda node, w, a: w * a,
        lambda node, w, a: w * a[:, None],
        _matmul_shift,
        bias=None,
    ),
}


def linear_of(node: ir.Node | None) -> Linear | None:
    """The row of a node, None if it is no linear operator (a MatMul of two activations is none)."""
    if node is None or node.domain != "" or (node.op_type == "MatMul" and constant(node.inputs[1]) is None):
        return None
    return LINEAR.get(node.op_type)


def weight_of(node: ir.Node) -> Array | None:
    """W of a linear node as float64, None if it is not a constant of rank 2 or more."""
    w = constant(node.inputs[1])
    return w.astype(np.float64) if w is not None and w.ndim >= 2 and w.dtype.kind == "f" else None


def bias_of(node: ir.Node, row: Linear, channels: int) -> Array | None:
    """What the node adds, [channels] (Gemm: or what broadcasts to [M, channels], times beta); None if not constant."""
    value = node.inputs[row.bias] if row.bias is not None and len(node.inputs) > row.bias else None
    if value is None:
        return np.zeros(channels)
    bias = constant(value)
    if bias is None:
        return None
    return bias.astype(np.float64) * (attribute(node, "beta", 1.0) if node.op_type == "Gemm" else 1.0)


def set_weight(graph: ir.Graph, node: ir.Node, w: Array) -> None:
    """Give the node its own weights; others that read the old ones keep them."""
    renew(graph, node, 1, w, str(node.inputs[1].name) if node.inputs[1] is not None else "weight")


def set_bias(graph: ir.Graph, node: ir.Node, row: Linear, bias: Array) -> None:
    """Give the node (one that has a bias input) its own bias, beta = 1."""
    index = row.bias
    assert index is not None
    if len(node.inputs) <= index:
        node.resize_inputs(index + 1)
    old = node.inputs[index]
    weight = node.inputs[1]
    stem = str(node.name if weight is None else weight.name).removesuffix(".weight")
    renew(graph, node, index, bias, f"{stem}.bias" if old is None else str(old.name))
    node.attributes.pop("beta", None)


def renew(graph: ir.Graph, node: ir.Node, index: int, array: Array, name: str) -> None:
    """Give a node a constant of its own; others that read the old one keep it."""
    old, like = node.inputs[index], node.inputs[1]
    dtype = np.dtype(np.float32) if like is None or like.dtype is None else like.dtype.numpy()
    node.replace_input_with(index, None)
    drop_unused(graph, old)
    node.replace_input_with(index, add_initializer(graph, name, array.astype(dtype)))


def drop_unused(graph: ir.Graph, value: ir.Value | None) -> None:
    """Remove an initializer that nothing reads any more."""
    if value is None or value.uses() or value.is_graph_output() or value.is_graph_input():
        return
    if graph.initializers.get(str(value.name)) is value:
        del graph.initializers[str(value.name)]
