"""Write a permutation into the constants around a region."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import onnx_ir as ir

from mulshift.ir import Array, add_initializer, constant
from mulshift.passes.linear_weights import drop_unused
from mulshift.passes.rotation.regions import Region
from mulshift.passes.rotation.weights import in_axis, out_axis, weight

Use: TypeAlias = tuple[ir.Node, int]
"""A node and the index of an input."""


def reorder(graph: ir.Graph, region: Region, order: Array) -> None:
    """Channel i of each run becomes channel `order[i]`, in all constants of the region.

    A constant that only the region reads is changed itself, also where a Transpose of it is read; else the region gets
    a copy.
    """
    wanted = [(n, i, axis) for (n, i), (axis, _) in region.constants.items() if axis >= 0]
    wanted += [(n, 1, out_axis(n)) for n in region.makers] + [(n, 1, in_axis(n)) for n in region.readers]
    axes: dict[Use, frozenset[int]] = {}
    for node, index, axis in wanted:
        here = axis % max(len(weight(node.inputs[index]).shape), 1)
        axes[node, index] = axes.get((node, index), frozenset()) | {here}
    by_source: dict[ir.Value, dict[Use, frozenset[int]]] = {}
    for (node, index), found in axes.items():
        source, turned = _source(node.inputs[index])
        by_source.setdefault(source, {})[node, index] = frozenset(1 - a for a in found) if turned else found
    for source, uses in by_source.items():
        if len(set(uses.values())) == 1 and source.is_initializer() and _all_in(source, uses):
            new = _taken(weight(source), next(iter(uses.values())), order)
            source.const_value = ir.tensor(new, name=source.name)
        else:
            _copy(graph, {use: axes[use] for use in uses}, order)


def _source(value: ir.Value | None) -> tuple[ir.Value, bool]:
    """The constant behind a value, and whether a Transpose of a matrix lies between."""
    assert value is not None
    node = value.producer()
    if constant(value) is not None or node is None or node.inputs[0] is None:
        return value, False
    return node.inputs[0], True


def _all_in(value: ir.Value, uses: dict[Use, frozenset[int]]) -> bool:
    """Whether all that read a constant take part, through a Transpose or not."""
    others = [u.node for u in value.uses() if (u.node, u.idx) not in uses]
    turned = [n.outputs[0] for n in others if n.op_type == "Transpose"]
    return len(turned) == len(others) and not value.is_graph_output() and all(_all_in(v, uses) for v in turned)


def _copy(graph: ir.Graph, uses: dict[Use, frozenset[int]], order: Array) -> None:
    """Constants of their own; others that read the old ones keep them."""
    for (node, index), axes in uses.items():
        old = node.inputs[index]
        assert old is not None
        node.replace_input_with(index, add_initializer(graph, str(old.name), _taken(weight(old), axes, order)))
        drop_unused(graph, old)


def _taken(array: Array, axes: frozenset[int], order: Array) -> Array:
    """The same permutation for every run of channels; one number for all channels stays."""
    for axis in axes:
        if array.ndim and array.shape[axis] > 1:
            runs = np.arange(array.shape[axis] // order.size)[:, None] * order.size
            array = array.take((runs + order).reshape(-1), axis)
    return np.ascontiguousarray(array)
