"""Slices after each other and a Pad behind them as one node, SlicePad.

Such is the shortcut of a residual block that takes each second pixel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from mulshift.ir import DOMAIN, Array, attribute, constant, inherit_origin, rank, sole_user
from mulshift.passes.base import Pass
from mulshift.passes.kernels.epilogue import take_over

_BYTES = (ir.DataType.UINT8, ir.DataType.INT8)
_MOST = 2**31 - 1
"""The kernel's greatest end."""


@dataclass
class _Box:
    """Attributes of SlicePad so far, a number for each axis."""

    starts: list[int]
    ends: list[int]
    steps: list[int]
    before: list[int]
    after: list[int]
    value: int = 0


def fuse_boxes(owner: Pass, graph: ir.Graph) -> None:
    """Each chain of at least two nodes."""
    for node in list(graph):
        if node.graph is None or not _is(node, "Slice") or node.inputs[0] is None:
            continue
        x, axes = node.inputs[0], rank(node.inputs[0])
        if x.dtype not in _BYTES or not axes or axes > 8:
            continue
        box = _Box([0] * axes, [_MOST] * axes, [1] * axes, [0] * axes, [0] * axes)
        chain = _chain(node, box)
        if len(chain) > 1:
            owner.changed(_fuse(graph, chain, box), f"is {', '.join(n.op_type for n in chain)}")


def _is(node: ir.Node, op: str) -> bool:
    return not node.domain and node.op_type == op


def _chain(node: ir.Node | None, box: _Box) -> list[ir.Node]:
    """The nodes from a Slice on that `box` takes."""
    found: list[ir.Node] = []
    while node is not None and _is(node, "Slice") and _takes_slice(node, box):
        found.append(node)
        node = sole_user(node.outputs[0])
    if found and node is not None and _is(node, "Pad") and _takes_pad(node, box):
        found.append(node)
    return found


def _numbers(node: ir.Node) -> list[Array | None] | None:
    """Its inputs from the second on, None each where there is none; None if one is not constant."""
    given = [*node.inputs[1:], None, None, None, None]
    arrays = [constant(v) for v in given]
    if any(v is not None and a is None for v, a in zip(given, arrays, strict=True)):
        return None
    return arrays


def _takes_slice(node: ir.Node, box: _Box) -> bool:
    axes = len(box.starts)
    numbers = _numbers(node)
    if numbers is None or numbers[0] is None or numbers[1] is None:
        return False
    starts, ends = numbers[0].tolist(), numbers[1].tolist()
    where = list(range(len(starts))) if numbers[2] is None else [a % axes for a in numbers[2].tolist()]
    steps = [1] * len(starts) if numbers[3] is None else numbers[3].tolist()
    if min([*starts, *ends], default=0) < 0 or min(steps, default=1) < 1:
        return False
    made = {}
    for axis, start, end, step in zip(where, starts, ends, steps, strict=True):
        first, by = box.starts[axis], box.steps[axis]
        made[axis] = (first + start * by, min(box.ends[axis], first + end * by), by * step)
    if any(start > _MOST or step > _MOST for start, _, step in made.values()):
        return False
    for axis, (start, end, step) in made.items():
        box.starts[axis], box.ends[axis], box.steps[axis] = start, end, step
    return True


def _takes_pad(node: ir.Node, box: _Box) -> bool:
    axes = len(box.starts)
    numbers = _numbers(node)
    if numbers is None or numbers[0] is None or attribute(node, "mode", "constant") != "constant":
        return False
    pads = numbers[0].tolist()
    where = list(range(axes)) if numbers[2] is None else [a % axes for a in numbers[2].tolist()]
    if min(pads, default=0) < 0 or max(pads, default=0) > _MOST:
        return False
    for i, axis in enumerate(where):
        box.before[axis], box.after[axis] = pads[i], pads[len(where) + i]
    box.value = 0 if numbers[1] is None else int(numbers[1].reshape(-1)[0])
    return True


def _fuse(graph: ir.Graph, chain: list[ir.Node], box: _Box) -> ir.Node:
    attributes: dict[str, Any] = dict(vars(box))
    new = ir.node("SlicePad", [chain[0].inputs[0]], attributes, domain=DOMAIN, name=chain[-1].name)
    inherit_origin([new], chain)
    graph.insert_before(chain[-1], new)
    take_over(chain[-1].outputs[0], new.outputs[0])
    for node in reversed(chain):
        graph.remove(node, safe=True)
    return new
