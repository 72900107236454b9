"""Axes of a plain tensor as constants of a node on its twin."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from mulshift.ir import Array, constant
from mulshift.ir.layout import AXES
from mulshift.passes.kernels.relayout import Relayout, StaysError


def axes_of(node: ir.Node, index: int, default: Sequence[int] | None, r: int) -> list[int]:
    """Constant axes from an input, normalized. Raises StaysError."""
    given = node.inputs[index] if len(node.inputs) > index else None
    array = constant(given)
    if array is not None and array.size:
        return [int(a) % r for a in array.reshape(-1)]
    if given is not None or default is None:
        raise StaysError("its axes are not constant")
    return list(default)


def axes_input(
    state: Relayout, node: ir.Node, index: int, axes: Sequence[int], r: int, lifted: bool = False
) -> ir.Value:
    """An initializer with the twin's axes, with the height that 3-D tensors lack if `lifted`."""
    moved = [AXES[r][a] for a in axes] + ([1] if lifted and r == 3 else [])
    given = node.inputs[index] if len(node.inputs) > index else None
    array = np.asarray(moved, np.int64)
    if given is None:
        return state.const(f"{node.outputs[0].name}.axes.nhwc", array)
    return state.derived(given, f"axes{r}{lifted}", "nhwc", array)


def check_order(removed: Sequence[int], r: int) -> None:
    """What is left without these plain axes is in plain order. Raises StaysError."""
    left = [AXES[r][a] for a in range(r) if a not in removed]
    if left != sorted(left):
        raise StaysError("its result has channels before positions")


def spread(numbers: Sequence[Any] | Array, r: int, filler: int) -> list[Any]:
    """A number for each plain axis -> one for each axis of the twin."""
    return at_axes(AXES[r], numbers, [filler] * 4)


def at_axes(axes: Sequence[int], numbers: Sequence[Any] | Array, others: Sequence[Any]) -> list[Any]:
    """`others` with `numbers` in the places `axes`."""
    found = list(others)
    for axis, number in zip(axes, numbers, strict=True):
        found[axis] = number
    return found
