"""The state of one walk that turns a graph channels last: which plain tensor has which twin, and how nodes are written.

A node that is rewritten makes the twin `NAME.nhwc` of each of its outputs, and a Transpose brings NAME back for whoever
still reads it; where nobody does in the end, the Transpose is dead and goes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx_ir as ir

from mulshift.ir import (
    Array,
    QParams,
    add_initializer,
    constant,
    get_qparams,
    inherit_origin,
    ints,
    set_qparams,
    static_shape,
)
from mulshift.ir.layout import AXES, set_twin, to_nhwc

TO_PLAIN = [0, 3, 1, 2]
_CHANNELS_LAST: dict[int, tuple[int, ...]] = {3: (0, 2, 1), 4: (0, 2, 3, 1)}


class StaysError(Exception):
    """This node keeps its form here; the message says why. Never leaves the pass."""


@dataclass
class Relayout:
    """One graph on its way to channels last.

    Attributes:
        graph: the main graph.
        twins: plain value -> its twin.
        ranks: of plain values that have a twin.
    """

    graph: ir.Graph
    twins: dict[ir.Value, ir.Value] = field(default_factory=dict)
    ranks: dict[ir.Value, int] = field(default_factory=dict)
    _derived: dict[tuple[ir.Value, str], ir.Value] = field(default_factory=dict)
    _names: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._names = {str(v.name) for v in self.graph.inputs} | set(self.graph.initializers)
        for node in self.graph.all_nodes():
            self._names |= {str(v.name) for v in node.outputs} | {str(node.name)}

    def rank(self, value: ir.Value | None) -> int | None:
        """Number of axes of a plain value, None if unknown."""
        if value is None or value in self.ranks:
            return None if value is None else self.ranks[value]
        return None if value.shape is None else len(value.shape)

    def ranked(self, value: ir.Value | None) -> int:
        """The same where there must be a twin. Raises StaysError."""
        rank = self.rank(value)
        if rank not in AXES:
            raise StaysError("its rank is not known" if rank is None else f"its input has {rank} axes")
        return rank

    def has_twin(self, value: ir.Value | None) -> bool:
        """Whether the twin costs nothing: it exists, or the value is a Transpose of it."""
        return value is not None and (value in self.twins or (self.rank(value) == 4 and _order(value) == TO_PLAIN))

    def twin(self, value: ir.Value | None, node: ir.Node, rank: int | None = None) -> ir.Value:
        """The twin of a value, written in front of `node` if there is none yet; a constant's is a constant.

        Args:
            rank: of the value, where its shape does not tell.
        """
        assert value is not None
        if value not in self.twins:
            rank = self.ranked(value) if rank is None else rank
            if constant(value) is not None:
                return self.converted(value, rank, keep=True)
            self.twins[value], self.ranks[value] = self._transposed(value, rank, node), rank
        return self.twins[value]

    def _transposed(self, value: ir.Value, rank: int, node: ir.Node) -> ir.Value:
        order, source = _order(value), value
        if order is not None and len(order) == rank:
            source = _source(value)
        else:
            order = list(range(rank))
        perm = [order[a] for a in _CHANNELS_LAST[rank]]
        found = source
        if perm != sorted(perm):
            found = self.write(node, "Transpose", [source], {"perm": perm}, value.dtype)
        if rank == 3:
            found = self.write(node, "Unsqueeze", [found, self.const("height.axis", np.asarray([1]))], {}, value.dtype)
        if found is not source:
            self.become_twin(found, value, rank)
        return found

    def operand(self, value: ir.Value | None, rank: int, node: ir.Node) -> ir.Value | None:
        """An operand that broadcasts against tensors of that rank, as it must be beside their twins.

        Raises:
            StaysError: it has fewer axes and is not constant.
        """
        if value is None or static_shape(value) in ((), (1,)):
            return value
        if constant(value) is not None:
            return self.converted(value, rank)
        if self.rank(value) != rank:
            raise StaysError("its operands differ in rank")
        return self.twin(value, node)

    def converted(self, value: ir.Value, rank: int, keep: bool = False) -> ir.Value:
        """The twin of a constant of at most that rank; axes of size 1 in front are dropped unless `keep`."""
        array = constant(value)
        assert array is not None
        if array.size <= 1 and not keep:
            return value
        moved = to_nhwc(array.reshape((1,) * (rank - array.ndim) + array.shape))
        if not keep:
            moved = moved.reshape(moved.shape[next((i for i, d in enumerate(moved.shape) if d > 1), 3) :])
        made = self.derived(value, f"nhwc{rank}{keep}", "nhwc", moved)
        q = get_qparams(value)
        if q is not None:
            set_qparams(made, q)
        return made

    def derived(self, value: ir.Value, key: str, suffix: str, array: Array) -> ir.Value:
        """The initializer `NAME.suffix` made from another one, the same one each time it is asked for by `key`."""
        if (value, key) not in self._derived:
            self._derived[value, key] = self.const(f"{value.name}.{suffix}", array)
        return self._derived[value, key]

    def const(self, name: str, array: Array) -> ir.Value:
        """A new initializer."""
        return add_initializer(self.graph, self._unique(name), array)

    def write(
        self,
        before: ir.Node,
        op: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, Any],
        dtype: ir.DataType | None,
    ) -> ir.Value:
        """A standard node with one output, in front of another one, from which it has its origin."""
        node = ir.node(op, inputs, attributes, name=self._unique(f"{before.name}/{op}"))
        inherit_origin([node], [before])
        self.graph.insert_before(before, node)
        made = node.outputs[0]
        made.name = self._unique(f"{node.name}/out")
        made.type = None if dtype is None else ir.TensorType(dtype)
        return made

    def become_twin(self, made: ir.Value, plain: ir.Value, rank: int) -> None:
        """Give a new value name, type, shape and metadata of the twin of `plain`."""
        made.name, made.type = self._unique(f"{plain.name}.nhwc"), plain.type
        made.metadata_props.update(plain.metadata_props)
        q = get_qparams(plain)
        if q is not None and q.spec.axis is not None:
            spec = replace(q.spec, axis=AXES[rank][q.spec.axis % rank])
            set_qparams(made, QParams(q.scale, q.zero_point, spec))
        set_twin(made, str(plain.name), rank)
        if plain.shape is not None and len(plain.shape) == rank:
            dims: list[int | ir.SymbolicDim] = [1] * 4
            for axis, dim in zip(AXES[rank], plain.shape, strict=True):
                dims[axis] = dim
            made.shape = ir.Shape(dims)

    def rewrite(
        self,
        node: ir.Node,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, Any],
        rank: int,
        op: str | None = None,
        domain: str | None = None,
    ) -> None:
        """`op` on twins in the place of `node`; rank: of the node's outputs."""
        new = ir.node(
            op or node.op_type,
            inputs,
            {k: v for k, v in attributes.items() if v is not None},
            domain=node.domain if domain is None else domain,
            num_outputs=len(node.outputs),
            name=node.name,
        )
        new.metadata_props.update(node.metadata_props)
        self.graph.insert_before(node, new)
        for old, made in zip(node.outputs, new.outputs, strict=True):
            if not old.name:
                made.name = ""
                continue
            self.become_twin(made, old, rank)
            self._bring_back(node, old, made, rank)
        self.graph.remove(node, safe=True)

    def _bring_back(self, node: ir.Node, old: ir.Value, made: ir.Value, rank: int) -> None:
        """The plain tensor from its twin, in the place of `old`."""
        source, perm = made, TO_PLAIN
        if rank == 3:
            axis = self.const("height.axis", np.asarray([1]))
            source, perm = self.write(node, "Squeeze", [made, axis], {}, old.dtype), [0, 2, 1]
        plain = self.write(node, "Transpose", [source], {"perm": perm}, old.dtype)
        plain.type, plain.shape = old.type, old.shape
        plain.metadata_props.update(old.metadata_props)
        old.replace_all_uses_with(plain, replace_graph_outputs=True)
        plain.name, old.name = old.name, self._unique(f"{old.name}/old")
        self.twins[plain], self.ranks[plain] = made, rank

    def _unique(self, base: str) -> str:
        name, k = base, 0
        while name in self._names:
            k += 1
            name = f"{base}_{k}"
        self._names.add(name)
        return name


def _order(value: ir.Value) -> list[int] | None:
    """perm of the Transpose that makes a value."""
    node = value.producer()
    if node is None or node.domain != "" or node.op_type != "Transpose":
        return None
    return ints(node, "perm")


def _source(value: ir.Value) -> ir.Value:
    node = value.producer()
    assert node is not None and node.inputs[0] is not None
    return node.inputs[0]
