"""Small samples put together, so that a step through the graph has enough to do."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from mulshift.ir import Feeds

MOST = 2**17
"""Numbers in a sample up to which others join it: one image of 224 x 224, or 40 of 32 x 32."""


def merged(graph: ir.Graph, samples: Sequence[Feeds]) -> list[Feeds]:
    """Samples along their first axis where the graph has a batch there, one symbol for all inputs; else as they are.

    The order stays, samples of different shapes stay apart.
    """
    axes = [v.shape[0] if v.shape is not None and len(v.shape) else None for v in graph.inputs]
    if not axes or isinstance(axes[0], int) or axes[0] is None or any(a != axes[0] for a in axes):
        return list(samples)
    groups: list[list[Feeds]] = []
    for feeds in samples:
        fits = bool(groups) and _shapes(groups[-1][0]) == _shapes(feeds)
        if fits and sum(_size(f) for f in groups[-1]) + _size(feeds) <= MOST:
            groups[-1].append(feeds)
        else:
            groups.append([feeds])
    return [{name: np.concatenate([f[name] for f in group]) for name in group[0]} for group in groups]


def _shapes(feeds: Feeds) -> dict[str, tuple[int, ...]]:
    return {name: array.shape[1:] for name, array in feeds.items()}


def _size(feeds: Feeds) -> int:
    return sum(array.size for array in feeds.values())
