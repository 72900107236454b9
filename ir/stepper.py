"""Run a graph a range of nodes at a time, from the values that are live there to the values that are live after it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from mulshift.ir.interpreter import Interpreter, Observer
from mulshift.ir.types import Array

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Live:
    """What one sample needs to go on from a place in the graph.

    Attributes:
        position: nodes before it have run.
        values: made before, read by a node at `position` or later, or graph outputs.
    """

    position: int
    values: Mapping[ir.Value, Any] = field(repr=False)


@dataclass
class Stepper(Interpreter):
    """An Interpreter that stops and goes on. The overrides may be exchanged between steps."""

    _positions: dict[str, int] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._positions = {str(node.name): i for i, (node, _) in enumerate(self._plan)}

    def __len__(self) -> int:
        return len(self._plan)

    def position(self, node: str) -> int:
        """Where the node of this name stands."""
        return self._positions[node]

    def nodes(self, start: int, stop: int) -> list[ir.Node]:
        """The nodes at positions start to stop - 1."""
        return [node for node, _ in self._plan[start:stop]]

    def start(self, feeds: Mapping[str, Array | torch.Tensor]) -> Live:
        """The graph inputs of one sample.

        Raises:
            DataError: an input is missing.
        """
        return Live(0, self._inputs(feeds, None))

    def advance(self, live: Live, stop: int, observer: Observer | None = None) -> Live:
        """Run the nodes before `stop`; `live` stays as it is, so that one can go on from it again.

        Raises:
            DataError: shapes do not fit a node.
            UnsupportedError: no way to run a node.
        """
        env = dict(live.values)
        outputs = set(self.model.graph.outputs)
        for node, dead in self._plan[live.position : stop]:
            self._step(node, env, observer)
            for value in dead:
                if value not in outputs:
                    env.pop(value, None)
        return Live(max(stop, live.position), env)

    def read(self, live: Live, value: ir.Value) -> torch.Tensor:
        """A live value, or a constant."""
        return self._lookup(dict(live.values), value)
