"""permute-channels: an order of channels with which a pattern of zeros keeps more, absorbed by the weights around."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import islice
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import onnx_ir as ir

from mulshift.ir import Array, Interpreter, Level, Samples, UsageError, get_level
from mulshift.passes.base import Contract, Pass
from mulshift.passes.calibrate import check_feeds
from mulshift.passes.linear_weights import LINEAR
from mulshift.passes.rotation.regions import Region, grow, head_regions
from mulshift.passes.rounding.layers import Product, find_product
from mulshift.passes.shape_values import dims_of
from mulshift.passes.sparsity.channel_order import Search, kept_score, search
from mulshift.passes.sparsity.masks import unfit
from mulshift.passes.sparsity.pattern import BLOCK, Sparsity, sparsity_of
from mulshift.passes.sparsity.permuting import permuting
from mulshift.passes.sparsity.reordering import reorder

if TYPE_CHECKING:
    import torch

SCORES = ("magnitude", "wanda")
_ROWS = 1024
"""Rows of scores that are looked at, evenly spaced over the readers."""
_SHOWN = 2


@dataclass
class PermuteChannels(Pass):
    """`W2 f(W1 x) = (W2 P) f((P^T W1) x)` for a permutation P and any f that works channel by channel.

    N:M keeps the largest N of M neighbouring channels' weights: it loses less where neighbours are not all large. P is
    searched so that the sum of the scores that stay grows, over all products that read the channels (Pool and Yu 2021):
    swaps of two channels, the best first. Weights, biases, normalizations and embeddings around absorb it, also around
    a whole residual stream, and around values in the heads of an attention (one P for all heads). For `sparsify` next.

    Attributes:
        pattern: of the products to come, as in `sparsify`; a node's own counts more.
        score: "magnitude", `|w|`, or "wanda", `|w| |x|_2` with samples.
        samples: for wanda.
        max_samples: so many of them.
        layers, skip: as in `sparsify`: whose scores count.
        sweeps: over all pairs of channels, at most.
        escapes: perturbations where no swap gains, each searched again.
        seed: draws them.
        progress: told how many streams of channels are done.

    Raises:
        UsageError: an option that does not exist, or a graph that has pairs already.
    """

    name: ClassVar[str] = "permute-channels"
    contract: ClassVar[Contract] = Contract.CLOSE
    pattern: str = "2:4"
    score: str = "magnitude"
    samples: Samples = ()
    max_samples: int = 16
    layers: Sequence[str] = ("*",)
    skip: Sequence[str] = ()
    sweeps: int = 12
    escapes: int = 0
    seed: int = 0
    progress: Callable[[int, int | None], None] | None = None

    def rewrite(self, model: ir.Model) -> None:
        if get_level(model) is not Level.FLOAT:
            raise UsageError(self.name, "the graph has pairs already", "run it before insert-fake-quant")
        if self.score not in SCORES:
            raise UsageError(self.name, f"score is '{self.score}'", f"use {' or '.join(SCORES)}")
        if min(self.sweeps, self.max_samples) < 1 or self.escapes < 0:
            raise UsageError(self.name, "an option is out of range", "give sweeps and max_samples > 0 and escapes >= 0")
        regions = list(self._regions(model.graph))
        norms = self._norms(model, regions)
        for i, region in enumerate(regions):
            self._order(model.graph, region, norms)
            if self.progress is not None:
                self.progress(i + 1, len(regions))

    def _regions(self, graph: ir.Graph) -> Iterator[Region]:
        """What each product reads, with all that has the same order: whole streams, else runs of channels in heads."""
        heads = list(head_regions(graph, permuting))
        seen: set[ir.Value] = set()
        for node in graph:
            x, wanted = node.inputs[0] if node.inputs else None, self._wanted(node)
            if wanted is None or wanted.across == BLOCK or x is None or x in seen:
                continue
            axis, dims = LINEAR[node.op_type].axis_in(node), dims_of(x) or ()
            channels = dims[axis] if dims else None
            if not isinstance(channels, int):
                self.skipped(node, "how many channels it reads is not known")
                continue
            region = grow(graph, x, axis % len(dims), channels, permuting)
            if region.reasons:
                region = next((r for r in heads if x in r.values and not r.reasons), region)
            seen |= region.values.keys()
            why = _bound(region)
            if why:
                self.skipped(node, f"its {region.order} input channels stay: {why}")
            elif self._readers(region):
                yield region

    def _wanted(self, node: ir.Node) -> Sparsity | None:
        """The pattern that a product is to have; None if it stays dense."""
        product, name = find_product(node), str(node.name)
        asked = any(fnmatchcase(name, p) for p in self.layers) and not any(fnmatchcase(name, p) for p in self.skip)
        wanted = sparsity_of(node) or (Sparsity.parse(self.pattern) if self.pattern != "assigned" else None)
        if isinstance(product, str) or not asked or wanted is None or unfit(product, wanted):
            return None
        return wanted

    def _readers(self, region: Region) -> dict[Product, Sparsity]:
        """The products whose pattern gains from an order, all with groups of one size: that of the first."""
        found: dict[Product, Sparsity] = {}
        for node in region.readers:
            product, wanted = find_product(node), self._wanted(node)
            if wanted is None or isinstance(product, str) or wanted.across == BLOCK or region.order % wanted.of:
                continue
            if wanted.of == next(iter(found.values()), wanted).of:
                found[product] = wanted
        return found

    def _norms(self, model: ir.Model, regions: Sequence[Region]) -> Mapping[ir.Value, Array]:
        """`|x_j|_2` of each channel that a product reads, float64."""
        import torch

        wanted = {_input(p): r.values[_input(p)] for r in regions for p in self._readers(r)}
        squares: dict[ir.Value, Array] = {}
        if self.score != "wanda" or not wanted:
            return squares

        def add(value: ir.Value, tensor: torch.Tensor) -> None:
            if value in wanted:
                moved = tensor.detach().double().movedim(wanted[value], -1).flatten(0, -2)
                squares[value] = squares.get(value, np.zeros(1)) + moved.square().sum(dim=0).numpy()

        interpreter = Interpreter(model)
        with torch.no_grad():
            for i, feeds in enumerate(islice(self.samples, self.max_samples)):
                check_feeds(model.graph, feeds, f"calibration sample {i}")
                interpreter.run(feeds, add)
        if not squares:
            raise UsageError(self.name, "score 'wanda' needs samples", "give calibration data, or use 'magnitude'")
        return {value: np.sqrt(total) for value, total in squares.items()}

    def _order(self, graph: ir.Graph, region: Region, norms: Mapping[ir.Value, Array]) -> None:
        readers = self._readers(region)
        of = next(iter(readers.values())).of
        kept = min(s.kept for s in readers.values())
        scores = np.concatenate([_scores(p, s, region.order, norms) for p, s in readers.items()])
        some = scores[:: -(-len(scores) // _ROWS)]
        order = search(some, kept, of, Search(self.sweeps, self.escapes, self.seed))
        before, after = (kept_score(s, kept, of) for s in (scores, scores[:, order]))
        where = region.first()
        if not after > before:
            self.skipped(where, f"no order of its {region.order} channels keeps more")
            return
        reorder(graph, region, order)
        total = float(scores.sum(dtype=np.float64))
        told = f"{100 * before / total:.2f} to {100 * after / total:.2f} % of the scores of {len(readers)} readers stay"
        self.changed(where, f"{region.order} channels up to '{list(region.nodes)[-1].name}' in another order: {told}")


def _bound(region: Region) -> str:
    """Why the order of its channels is not free; empty if it is."""
    reasons = list(dict.fromkeys(region.reasons))
    if not reasons and not region.makers and not region.constants:
        return "no weights make them"
    more = f"; and {len(reasons) - _SHOWN} more reasons" if len(reasons) > _SHOWN else ""
    return "; ".join(reasons[:_SHOWN]) + more


def _input(product: Product) -> ir.Value:
    value = product.node.inputs[0]
    assert value is not None
    return value


def _scores(product: Product, sparsity: Sparsity, order: int, norms: Mapping[ir.Value, Array]) -> Array:
    """float32 [rows, order]: runs of channels below each other; tiles that share a pattern as one row."""
    w = np.abs(np.moveaxis(product.weights, product.axis, 0)).astype(np.float32)
    if _input(product) in norms:
        w = np.asarray(w * norms[_input(product)].reshape([1, -1] + [1] * (w.ndim - 2)), np.float32)
    if sparsity.across > 1:
        w = np.add.reduceat(w, np.arange(0, len(w), sparsity.across), axis=0)
    return np.moveaxis(w, 1, -1).reshape(-1, order)
