"""What the rows of `fused` and `fused_attention` write with: the operands of one node by name, new nodes before it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import onnx_ir as ir

from mulshift.ir.errors import UnsupportedError
from mulshift.ir.float_functions import domain_of
from mulshift.ir.frontend.shapes import infer_shapes
from mulshift.ir.graphs import add_initializer, attribute, constant
from mulshift.ir.metadata import describe, inherit_origin

_NEUTRAL = (0, -1, "", "NONE")
"""Values with which an attribute that a row does not know asks for nothing."""


@dataclass(frozen=True)
class Row:
    """One fused operator.

    Attributes:
        write: new values for its outputs, as many as it knows; None for one that it does not make.
        inputs: their names, in order; one that ends in `!` has no form here.
        outputs: the same.
        attributes: what `write` reads or may ignore; any other must be neutral.
    """

    write: Callable[[Expansion], Sequence[ir.Value | None]]
    inputs: str
    outputs: str = "y"
    attributes: str = ""


@dataclass
class Expansion:
    """One node that is being replaced; values are written in front of it."""

    model: ir.Model
    node: ir.Node
    row: Row
    _names: list[str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._names = [name.rstrip("!") for name in self.row.inputs.split()]

    def error(self, cause: str, remedy: str = "export the model with standard operators there") -> UnsupportedError:
        """One line that names the node."""
        return UnsupportedError(describe(self.node), cause, remedy)

    def check(self) -> None:
        """Refuse what the row has no form for.

        Raises:
            UnsupportedError: names the input, output or attribute.
        """
        inputs, outputs = self.row.inputs.split(), self.row.outputs.split()
        for i, value in enumerate(self.node.inputs):
            name = inputs[i] if i < len(inputs) else f"number {i}!"
            if value is not None and name.endswith("!"):
                raise self.error(f"its input '{name[:-1]}' is not supported")
        for i, made in enumerate(self.node.outputs):
            name = outputs[i] if i < len(outputs) else f"number {i}!"
            if name.endswith("!") and (made.uses() or made.is_graph_output()):
                raise self.error(f"its output '{name[:-1]}' is not supported")
        for name, attr in self.node.attributes.items():
            if name not in self.row.attributes.split() and attr.value not in _NEUTRAL:
                raise self.error(f"its attribute {name} = {attr.value} is not supported")

    def get(self, name: str) -> ir.Value | None:
        """The input of that name."""
        index = self._names.index(name)
        return self.node.inputs[index] if index < len(self.node.inputs) else None

    def __getitem__(self, name: str) -> ir.Value:
        """The input of that name.

        Raises:
            UnsupportedError: it is left out.
        """
        value = self.get(name)
        if value is None:
            raise self.error(f"its input '{name}' is left out")
        return value

    def attribute(self, name: str, default: Any = None) -> Any:
        """An attribute, or the default."""
        return attribute(self.node, name, default)

    def op(self, op: str, *inputs: ir.Value | None, domain: str = "", **attributes: Any) -> ir.Value:
        """The first output of a new node."""
        return self.ops(op, *inputs, domain=domain, **attributes)[0]

    def ops(
        self, op: str, *inputs: ir.Value | None, outputs: int = 1, domain: str = "", **attributes: Any
    ) -> list[ir.Value]:
        """All outputs of a new node; their type is that of the first input until shapes are inferred."""
        name = f"{self.node.name}/{op}"
        node = ir.node(op, inputs, attributes, domain=domain, num_outputs=outputs, name=name)
        inherit_origin([node], [self.node])
        self.model.graph.insert_before(self.node, node)
        for made in node.outputs:
            made.type = None if inputs[0] is None or op in _OF_OTHER_TYPE else inputs[0].type
        return list(node.outputs)

    def function(self, name: str, *inputs: ir.Value | None, **attributes: Any) -> ir.Value:
        """A float operator that is standard at this opset, or a model function of ours."""
        return self.op(name, *inputs, domain=domain_of(self.model, name), **attributes)

    def const(self, array: Any, dtype: Any = np.int64) -> ir.Value:
        """A new initializer."""
        return add_initializer(self.model.graph, f"{self.node.name}.constant", np.asarray(array, dtype))

    def shape(self, value: ir.Value) -> list[Any]:
        """The shape: numbers, and what stands for unknown ones.

        Raises:
            UnsupportedError: its rank cannot be inferred.
        """
        if value.shape is None:
            infer_shapes(self.model)
        if value.shape is None:
            raise self.error(f"the shape of '{value.name}' is not known", "export the model with shapes")
        return list(value.shape)

    def size(self, value: ir.Value, axis: int) -> int:
        """Length of an axis.

        Raises:
            UnsupportedError: it is not known before the model runs.
        """
        size = self.shape(value)[axis]
        if not isinstance(size, int):
            infer_shapes(self.model)
            size = self.shape(value)[axis]
        if not isinstance(size, int):
            raise self.error(
                f"axis {axis} of '{value.name}' has no fixed size", "export the model with that size fixed"
            )
        return size

    def split(self, value: ir.Value, sizes: Sequence[int], axis: int) -> list[ir.Value]:
        """Parts of a value; those of a constant are constants."""
        array = constant(value)
        if array is None:
            return self.ops("Split", value, self.const(list(sizes)), outputs=len(sizes), axis=axis)
        parts = np.split(array, np.cumsum(sizes)[:-1], axis=axis)
        return [add_initializer(self.model.graph, f"{value.name}.{i}", p) for i, p in enumerate(parts)]

    def length(self, value: ir.Value, axis: int) -> ir.Value:
        """Length of an axis as the model runs, [1]."""
        return self.op("Shape", value, start=axis, end=axis + 1)

    def range(self, length: ir.Value) -> ir.Value:
        """0, 1, ..., length - 1."""
        return self.op("Range", self.const(0), self.op("Squeeze", length), self.const(1))


_OF_OTHER_TYPE = frozenset("Cast Gather GreaterOrEqual Less LessOrEqual Shape Where".split())

Values: TypeAlias = Sequence[ir.Value | None]
