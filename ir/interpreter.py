"""Run a graph of any level node by node in torch; free each value after its last use; let observers watch.

Peak memory is the weights plus the live values of one sample. Operators come from the table `mulshift.ir.torch_ops`;
`mulshift::` operators run by their Python reference; model functions by their bodies; ONNX Runtime runs the rest.

Differentiable through the torch table: give inputs or `overrides` that require gradients. QuantizeLinear then passes
them straight through (`mulshift.ir.torch_ops.quantize`); a node without a gradient on the way raises UnsupportedError.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import onnx_ir as ir

from mulshift.ir.errors import DataError
from mulshift.ir.evaluate import Evaluator, Plan, constant_tensor, last_uses
from mulshift.ir.tensors import as_tensor
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
    _plan: Plan = field(default_factory=list, init=False, repr=False)
    _evaluator: Evaluator = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._plan = last_uses(self.model.graph)
        self._evaluator = Evaluator(self.model)

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
            DataError: an input is missing, a name is unknown, or shapes do not fit a node.
            UnsupportedError: no way to run a node.
        """
        graph = self.model.graph
        wanted = [str(v.name) for v in graph.outputs] if outputs is None else list(outputs)
        env = self._inputs(feeds, observer)
        result = {str(v.name): t for v, t in env.items() if v.name in wanted}
        for node, dead in self._plan:
            if result.keys() >= set(wanted):
                break
            self._step(node, env, observer)
            result |= {str(v.name): env[v] for v in node.outputs if v.name in wanted and v in env}
            for value in dead:
                env.pop(value, None)
        for value in graph.initializers.values():
            if value.name in wanted and value.name not in result:
                result[str(value.name)] = self._lookup(env, value)
        missing = [name for name in wanted if name not in result]
        if missing:
            raise DataError(f"value '{missing[0]}'", "the graph has no such value")
        return {name: result[name] for name in wanted}

    def _inputs(self, feeds: Mapping[str, Array | torch.Tensor], observer: Observer | None) -> dict[ir.Value, Any]:
        graph = self.model.graph
        env: dict[ir.Value, Any] = {}
        for value in graph.inputs:
            name = str(value.name)
            if name in feeds:
                env[value] = _observed(observer, value, as_tensor(feeds[name]))
            elif name not in graph.initializers:
                raise DataError(f"input '{name}'", "no data given", f"feed {[v.name for v in graph.inputs]}")
        return env

    def _step(self, node: ir.Node, env: dict[ir.Value, Any], observer: Observer | None) -> None:
        """Run one node into env; no reference to its inputs outlives the call."""
        values = [None if v is None else self._lookup(env, v) for v in node.inputs]
        made = self._evaluator.evaluate(node, values, lambda v: self._lookup(env, v))
        for value, tensor in zip(node.outputs, made, strict=False):
            if tensor is not None:
                env[value] = _observed(observer, value, tensor)

    def _lookup(self, env: Mapping[ir.Value, Any], value: ir.Value) -> torch.Tensor:
        if value in env:
            return env[value]  # type: ignore[no-any-return]
        name = str(value.name)
        if name in self.overrides:
            return self.overrides[name]
        if name not in self._weights:
            self._weights[name] = constant_tensor(value)
        return self._weights[name]


def _observed(observer: Observer | None, value: ir.Value, tensor: torch.Tensor) -> torch.Tensor:
    if observer is None:
        return tensor
    replaced = observer(value, tensor)
    return tensor if replaced is None else replaced
