"""Run a graph of any level node by node in torch; free each value after its last use; let observers watch.

Peak memory is the weights plus the live values of one sample. Operators come from the table `mulshift.ir.torch_ops`;
`mulshift::` operators run by their Python reference; model functions by their bodies; ONNX Runtime runs the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import onnx_ir as ir

from mulshift.ir.errors import DataError, UnsupportedError
from mulshift.ir.metadata import describe
from mulshift.ir.operators import DOMAIN, OPERATORS
from mulshift.ir.types import Array

if TYPE_CHECKING:
    import torch

Observer: TypeAlias = "Callable[[ir.Value, torch.Tensor], torch.Tensor | None]"
"""Sees each value right after it is made; what it returns (if not None) takes the value's place."""


@dataclass
class Interpreter:
    """Runs one model. The model may be edited between runs only if a new Interpreter is made.

    Attributes:
        model: any level.
        overrides: initializer name -> tensor used in its place (a trainable parameter, a trial rounding).
    """

    model: ir.Model
    overrides: Mapping[str, torch.Tensor] = field(default_factory=dict)
    _weights: dict[str, torch.Tensor] = field(default_factory=dict, init=False, repr=False)
    _plan: list[tuple[ir.Node, tuple[ir.Value, ...]]] = field(default_factory=list, init=False, repr=False)
    _fallback: dict[Any, Any] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        self._plan = _last_uses(self.model.graph)

    def run(
        self,
        feeds: Mapping[str, Array | torch.Tensor],
        observer: Observer | None = None,
        outputs: Sequence[str] | None = None,
    ) -> dict[str, torch.Tensor]:
        """Outputs by name for one feed.

        Args:
            feeds: graph input name -> array; float inputs may require gradients.
            observer: called for graph inputs and every node output, in order.
            outputs: value names to return instead of the graph outputs; execution stops after the last of them.

        Raises:
            DataError: an input is missing or a name is unknown.
            UnsupportedError: no way to run a node.
        """
        graph = self.model.graph
        env: dict[ir.Value, Any] = {}
        for value in graph.inputs:
            name = str(value.name)
            if name in feeds:
                env[value] = _observed(observer, value, to_torch(feeds[name]))
            elif name not in graph.initializers:
                raise DataError(f"input '{name}'", "no data given", f"feed {[v.name for v in graph.inputs]}")
        wanted = {str(v.name) for v in graph.outputs} if outputs is None else set(outputs)
        result = {str(v.name): t for v, t in env.items() if v.name in wanted}
        for node, dead in self._plan:
            if wanted <= result.keys():
                break
            values = [None if v is None else self._lookup(env, v) for v in node.inputs]
            made = self._evaluate(node, values, env)
            for value, tensor in zip(node.outputs, made, strict=False):
                if tensor is None:
                    continue
                env[value] = _observed(observer, value, tensor)
                if value.name in wanted:
                    result[str(value.name)] = env[value]
            for value in dead:
                env.pop(value, None)
        for value in graph.outputs:  # an initializer may itself be an output
            if value.name in wanted - result.keys():
                result[str(value.name)] = self._lookup(env, value)
        missing = wanted - result.keys()
        if missing:
            raise DataError(f"value '{sorted(missing)[0]}'", "the graph has no such value")
        return result

    def _lookup(self, env: Mapping[ir.Value, Any], value: ir.Value) -> torch.Tensor:
        if value in env:
            return env[value]  # type: ignore[no-any-return]
        name = str(value.name)
        if name in self.overrides:
            return self.overrides[name]
        if name not in self._weights:
            tensor = value.const_value
            if tensor is None:
                raise DataError(f"value '{name}'", "has no producer and no data")
            self._weights[name] = to_torch(tensor.numpy())
        return self._weights[name]

    def _evaluate(self, node: ir.Node, values: list[Any], env: Mapping[ir.Value, Any]) -> Sequence[Any]:
        from mulshift.ir.torch_ops import TORCH_OPS

        if node.domain == DOMAIN and node.op_type in OPERATORS:
            attributes = {k: a.value for k, a in node.attributes.items()}
            arrays = [None if v is None else v.numpy() for v in values]
            return (to_torch(OPERATORS[node.op_type].reference(attributes, *arrays)),)
        function = self.model.functions.get(node.op_identifier())
        if function is not None:
            raise UnsupportedError(describe(node), "model-local function", "inline it first (canonicalize does)")
        run = TORCH_OPS.get((node.domain, node.op_type))
        if run is not None:
            made = run(node, values)
            if made is not NotImplemented:
                return made if isinstance(made, tuple) else (made,)
        from mulshift.ir.ort_node import run_node

        return run_node(self._fallback, node, values, lambda v: self._lookup(env, v), self.model)


def to_torch(array: Array | torch.Tensor) -> torch.Tensor:
    """A tensor that shares the array's memory where it can."""
    import torch

    if isinstance(array, torch.Tensor):
        return array
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.astype(np.float32)).to(torch.bfloat16)
    contiguous = array if array.ndim == 0 else np.ascontiguousarray(array)
    return torch.from_numpy(contiguous if contiguous.flags.writeable else contiguous.copy())


def _observed(observer: Observer | None, value: ir.Value, tensor: torch.Tensor) -> torch.Tensor:
    if observer is None:
        return tensor
    replaced = observer(value, tensor)
    return tensor if replaced is None else replaced


def _last_uses(graph: ir.Graph) -> list[tuple[ir.Node, tuple[ir.Value, ...]]]:
    """Each node with the values that nobody needs after it (captures by subgraphs count as uses)."""
    last: dict[ir.Value, int] = {}
    nodes = list(graph)
    for i, node in enumerate(nodes):
        for value in _reads(node):
            last[value] = i
        for value in node.outputs:
            last.setdefault(value, i)
    dead: list[list[ir.Value]] = [[] for _ in nodes]
    for value, i in last.items():
        dead[i].append(value)
    return [(node, tuple(dead[i])) for i, node in enumerate(nodes)]


def _reads(node: ir.Node) -> list[ir.Value]:
    """Inputs of a node and of all nodes in its subgraphs."""
    found = [v for v in node.inputs if v is not None]
    for attr in node.attributes.values():
        graphs = (
            [attr.value]
            if attr.type == ir.AttributeType.GRAPH
            else list(attr.value)
            if attr.type == ir.AttributeType.GRAPHS
            else []
        )
        for sub in graphs:
            for inner in sub.all_nodes():
                found.extend(v for v in inner.inputs if v is not None)
            found.extend(sub.outputs)
    return found
