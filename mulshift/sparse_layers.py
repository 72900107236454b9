"""Layers whose kernel keeps two of four weights, timed beside their dense twins; slower ones go back to dense.

The zeros stay where they are, so the numbers are the same either way: it is a choice of kernel and of a layout.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from mulshift.backends import lower
from mulshift.ir import Feeds, UsageError, attribute
from mulshift.ir.operators.sparse import SPARSE
from mulshift.kernel_profile import known_times
from mulshift.passes.kernels.products import DENSE, KERNEL
from mulshift.single_nodes import single_nodes

CHOICES = ("timed", "all")
"""Which layers get a sparse kernel: those that it makes faster here, or all that can have one."""
LAYOUTS = {form.layout: form for form in SPARSE}


@dataclass(frozen=True)
class Compared:
    """One layer.

    Attributes:
        name: of its node.
        op: the sparse operator.
        sparse, dense: seconds of one run.
    """

    name: str
    op: str
    sparse: float
    dense: float

    @property
    def slower(self) -> bool:
        """Whether the dense twin is better."""
        return self.sparse > self.dense


def is_sparse(node: ir.Node) -> bool:
    """Whether a lowered node has a layout of two of four weights."""
    return attribute(node, "layout", "") in LAYOUTS


def sparse_layers(lowered: ir.Graph) -> dict[str, str]:
    """Node -> operator, of those."""
    return {str(n.name): n.op_type for n in lowered if is_sparse(n)}


def is_put_back(node: ir.Node) -> bool:
    """Whether a node was told to stay dense."""
    return node.metadata_props.get(KERNEL) == DENSE


def put_back(integer: ir.Graph, names: Iterable[str]) -> None:
    """Tell nodes of an INTEGER graph to stay dense.

    Raises:
        UsageError: there is no such node.
    """
    nodes = {str(n.name): n for n in integer}
    for name in names:
        if name not in nodes:
            raise UsageError("dense layers", f"there is no node '{name}'", "give those of this model")
        nodes[name].metadata_props[KERNEL] = DENSE


def compare(
    integer: ir.Model,
    feeds: Feeds,
    threads: int = 1,
    seconds: float = 0.2,
    folder: Path | None = None,
    progress: Callable[[str, int, int | None], None] | None = None,
) -> tuple[Compared, ...]:
    """Time the sparse kernels of a graph and their dense twins, each alone; times are kept with those of the profile.

    Args:
        integer: INTEGER level; left as it is.
        feeds: of it; decides the shapes.
        threads, seconds, folder, progress: as `mulshift.kernel_profile.profile` takes them.
    """
    lowered = lower(integer, "onnxruntime").model
    ops = sparse_layers(lowered.graph)
    if not ops:
        return ()
    twin = integer.clone()
    put_back(twin.graph, ops)
    sides = [single_nodes(made, set(ops), feeds) for made in (lowered, lower(twin, "onnxruntime").model)]
    if progress is not None:
        progress("sparse layers", 0, None)
    times = known_times({n.key: n for side in sides for n in side}, threads, seconds, folder)
    pairs = zip(*sides, strict=True)
    return tuple(Compared(a.name, ops[a.name], times[a.key], times[b.key]) for a, b in pairs)


__all__ = ["CHOICES", "Compared", "compare", "is_put_back", "is_sparse", "put_back", "sparse_layers"]
