"""What rules hand to each other: an integer tensor, and what is asked of one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import onnx_ir as ir

from mulshift.ir import QParams
from mulshift.ir.levels import FLOAT_REASON
from mulshift.passes.integer.quantization import storage

if TYPE_CHECKING:
    from mulshift.passes.integer.lowering import Lowering

FREE = 2.0**-6
"""A shortened mantissa costs nothing if it moves no result by more than this part of a step."""


def asked_to_stay(node: ir.Node) -> str:
    """The reason that an earlier pass gave for keeping a node float; empty if none, or if it only knew no form."""
    reason = node.metadata_props.get(FLOAT_REASON, "")
    return "" if reason.endswith("has no integer form") else reason


class NoFormError(Exception):
    """This node has no integer form here; the message says why. Never leaves the pass."""


@dataclass(frozen=True)
class Quantized:
    """An integer tensor and what it stands for: `real = q.scale * (value - q.zero_point)`."""

    value: ir.Value
    q: QParams


@dataclass(frozen=True)
class Output:
    """What an integer operator is asked for.

    Attributes:
        value: the float value that it stands for; gives shape and name.
        q: quantization of the result.
        low, high: clamp in integers, fused Relu and Clip included.
        free: error in steps that a shortened mantissa may cost; negative for none.
    """

    value: ir.Value
    q: QParams
    low: int
    high: int
    free: float = FREE

    @property
    def dtype(self) -> ir.DataType:
        """Element type of the result."""
        return storage(self.q.spec)

    @property
    def reach(self) -> int:
        """Largest difference of two results, in steps."""
        return self.high - self.low

    def attributes(self) -> dict[str, int]:
        """What every operator that ends in Requantize carries."""
        return {
            "zero_point": int(self.q.zero_point),
            "qmin": self.low,
            "qmax": self.high,
            "dtype": int(self.dtype),
        }


Rule: TypeAlias = "Callable[[Lowering, ir.Node, Output], ir.Value]"
"""Writes the integer form of a float node and returns its output; raises NoFormError."""


def _always(node: ir.Node) -> bool:
    return True


@dataclass(frozen=True)
class Mover:
    """An operator that moves integers: output and data inputs share one quantization.

    Attributes:
        data: picks the indices of the inputs that hold data.
        write: (lowering, node, integer inputs by index) -> integer outputs.
        applies: whether this node, by its attributes, moves at all.
    """

    data: Callable[[ir.Node], Sequence[int]]
    write: Callable[[Lowering, ir.Node, Mapping[int, Quantized]], Sequence[ir.Value | None]]
    applies: Callable[[ir.Node], bool] = _always
