"""Blocks of a graph: stretches between places where one value is all that the rest needs of the layers so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import pairwise

import onnx_ir as ir

from mulshift.ir.evaluate import reads


@dataclass(frozen=True)
class Cut:
    """A place in the graph.

    Attributes:
        value: all that is read later of what layers made; its producer is the last node before the place.
        layers: before it.
    """

    value: str
    layers: int


def find_cuts(graph: ir.Graph, layers: Set[str], allowed: Set[str]) -> list[Cut]:
    """Where exactly one value that depends on a layer is still needed, and it has just been made.

    What does not depend on a layer (a mask, positions) may be alive beside it. Ends of the graph are no cuts.

    Args:
        graph: in topological order.
        layers: names of the layers' nodes.
        allowed: names of values that may be cut at.
    """
    nodes = list(graph)
    last = {value: i for i, node in enumerate(nodes) for value in reads(node)}
    last |= dict.fromkeys(graph.outputs, len(nodes))
    dependent: set[ir.Value] = set()
    alive: set[ir.Value] = set()
    cuts, seen = [], 0
    for i, node in enumerate(nodes):
        seen += node.name in layers
        if node.name in layers or any(v in dependent for v in reads(node)):
            dependent.update(node.outputs)
            alive.update(v for v in node.outputs if last.get(v, i) > i)
        alive = {v for v in alive if last[v] > i}
        if len(alive) == 1 and i + 1 < len(nodes):
            value = next(iter(alive))
            if value.producer() is node and value.name in allowed:
                cuts.append(Cut(str(value.name), seen))
    return cuts


def choose_cuts(cuts: Sequence[Cut], total: int, sizes: Mapping[str, int], most: int) -> list[Cut]:
    """The cuts that bound blocks of at most `most` layers where the graph allows it, each at the smallest value.

    Args:
        cuts: of `find_cuts`.
        total: layers in the graph.
        sizes: elements of each value; among equals the first place wins.
        most: layers a block.
    """
    chosen: list[Cut] = []
    done = 0
    rest = [cut for cut in cuts if cut.layers < total]
    while total - done > most:
        near = [cut for cut in rest if done < cut.layers <= done + most]
        near = near or [cut for cut in rest if cut.layers > done][:1]
        if not near:
            break
        cut = min(near, key=lambda c: sizes[c.value])
        # of the places behind the same layers, the last with that size: what follows a layer belongs to it
        chosen.append([c for c in near if c.layers == cut.layers and sizes[c.value] == sizes[cut.value]][-1])
        done = cut.layers
    return chosen


def block_sizes(chosen: Sequence[Cut], total: int) -> list[int]:
    """Layers of each block."""
    return [b - a for a, b in pairwise([0, *(cut.layers for cut in chosen), total])]
