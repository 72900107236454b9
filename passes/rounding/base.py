"""What the rounding passes share: options, the walk, biases, checkpoints. A subclass solves one layer's Problem."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import onnx_ir as ir

from mulshift.ir import DataError, Feeds, Samples, UsageError
from mulshift.passes.base import Contract, Pass
from mulshift.passes.calibrate import batch_rows, check_feeds
from mulshift.passes.rounding.checkpoint import Checkpoints, run_key
from mulshift.passes.rounding.feeds import merged
from mulshift.passes.rounding.layers import Layer, find_layer, find_layers, give_bias
from mulshift.passes.rounding.moments import Moments
from mulshift.passes.rounding.problem import Problem, Solution, bias_moved, regress
from mulshift.passes.rounding.reconstruct import reconstruct
from mulshift.passes.rounding.relaxation import FrozenIntegers, Relaxation
from mulshift.passes.rounding.result import Rounded
from mulshift.passes.rounding.walk import Block, Walk

if TYPE_CHECKING:
    pass

GRANULARITIES = ("layer", "block")


@dataclass
class RoundingPass(Pass):
    """Round layer after layer, each behind the rounded ones: `min E |(w u + b) - (s q x + b')|^2` over q, b' (and s).

    u are the layer's inputs in the float graph, x those in the quantized graph as it is by then. With the moments
    `H = E[x^T x]` and `U = E[u^T x]` about their means this is `(t - s q) H (t - s q)^T` plus what no weights can
    change, with `t = w + w (U - H) (H + l I)^-1`; `b' = b + w E[u] - s q E[x]`. Methods differ in how they find q, s.

    The graph is cut into blocks where one value is all that goes on (a residual block is one). Both graphs advance
    block by block; each sample keeps the values that are alive at the start of its block, in both. Memory: the
    weights twice, these values, and the moments of the layers that read one value, 32 bytes * inputs^2.

    Attributes:
        samples: feeds of the graph inputs; read once, until `max_samples` rows of the batch axis are seen.
        max_samples: see there.
        positions: output positions of a layer looked at in each row of the batch.
        granularity: "layer"; or "block": after its layers, what the method leaves continuous is tuned by gradients
            so that the block's output comes close to the float block's (Li et al. 2021, BRECQ).
        iterations: steps of Adam, of a layer where the method descends, and of a block.
        damping: share of H's mean diagonal that is added to the diagonal.
        compensate: aim at the float graph's outputs (t above) instead of at w; biases too.
        block_layers: most layers of a block, where the graph can be cut so.
        seed: draws the samples of the steps on a block.
        resume: folder for checkpoints; a run that was killed goes on from there and gives the same bytes. Empty: none.
        progress: called with (layers done, their number).

    Raises:
        DataError: no samples, or samples that do not fit the graph.
        UsageError: an option out of range.
    """

    contract: ClassVar[Contract] = Contract.LOSSY
    samples: Samples = ()
    max_samples: int = 64
    positions: int = 128
    granularity: str = "layer"
    iterations: int = 100
    damping: float = 0.01
    compensate: bool = True
    block_layers: int = 4
    seed: int = 0
    resume: str = ""
    progress: Callable[[int, int | None], None] | None = None

    @abstractmethod
    def solve(self, problem: Problem) -> Solution:
        """Integers and scales for one layer."""

    def relax(self, problem: Problem, found: Solution) -> Relaxation | None:
        """What gradients may move when a block is tuned; None for nothing but biases."""
        return FrozenIntegers(found)

    def rewrite(self, model: ir.Model) -> None:
        self._check()
        feeds = self._feeds(model)
        layers = find_layers(model.graph, self.skipped)
        if not layers:
            return
        key = run_key(model, self._options(), feeds) if self.resume else ""
        if self.compensate:
            layers = [_with_bias(model.graph, layer) for layer in layers]
        kept = Checkpoints(Path(self.resume), self.name, key) if self.resume else None
        walk = Walk(model, layers, feeds, self.block_layers)
        if kept is not None and kept.open({"blocks": len(walk.blocks), "options": self._options()}):
            self.skipped(self.resume, "holds checkpoints of other runs, which are left alone")
        done = 0
        for i, block in enumerate(walk.blocks):
            arrays = None if kept is None else kept.read(i)
            if arrays is not None:
                found = [Rounded.from_arrays(arrays, layer.name) for layer in block.layers]
                self._use(walk, block, found)
            else:
                found = self._block(walk, block, done, len(layers))
                if kept is not None:
                    kept.write(
                        i,
                        {
                            k: a
                            for layer, r in zip(block.layers, found, strict=True)
                            for k, a in r.arrays(layer.name).items()
                        },
                    )
            done += len(block.layers)
            self._progress(done, len(layers))
            for layer, rounded in zip(block.layers, found, strict=True):
                self._apply(model.graph, layer, rounded)
            if i + 1 < len(walk.blocks):
                walk.finish(block)

    # One block -------------------------------------------------------------------------------------------------------

    def _block(self, walk: Walk, block: Block, done: int, total: int) -> list[Rounded]:
        found: list[Rounded] = []
        relaxed: list[Relaxation | None] = []
        for group in walk.together(block):
            for layer, moments in zip(group, walk.observe(group, self.positions), strict=True):
                problem = self._problem(layer, moments)
                solution = self.solve(problem)
                rounded = self._with_bias_of(layer, moments, Rounded.of(layer, solution))
                found.append(rounded)
                relaxed.append(self.relax(problem, solution) if self.granularity == "block" else None)
                walk.set_layer(layer, rounded)
                self._progress(done + len(found), total)
        if self.granularity == "block":
            found = reconstruct(walk, block, found, relaxed, self.iterations, self.seed)
            self._use(walk, block, found)
        return found

    def _problem(self, layer: Layer, moments: Moments) -> Problem:
        w = layer.matrix(layer.weights)
        xx, ux = moments.centered() if self._moves_bias(layer) else (moments.xx, moments.ux)
        target = regress(w, xx, ux, self.damping) if self.compensate else w
        return Problem(target, xx, layer.scales(), layer.grid)

    def _with_bias_of(self, layer: Layer, moments: Moments, rounded: Rounded) -> Rounded:
        if not self._moves_bias(layer):
            return rounded
        assert layer.bias is not None
        new = layer.matrix(rounded.weights(layer))
        moved = bias_moved(moments, layer.matrix(layer.weights), new).reshape(-1).numpy()
        return replace(rounded, bias=(layer.bias.read(layer.channels) + moved).astype(np.float32))

    def _moves_bias(self, layer: Layer) -> bool:
        return self.compensate and layer.bias is not None

    def _use(self, walk: Walk, block: Block, found: list[Rounded]) -> None:
        for layer, rounded in zip(block.layers, found, strict=True):
            walk.set_layer(layer, rounded)

    def _apply(self, graph: ir.Graph, layer: Layer, rounded: Rounded) -> None:
        step = layer.spread(layer.q.scale)
        nearest = np.clip(np.rint(layer.weights / step), layer.grid.low, layer.grid.high)
        share = float((nearest != rounded.q).mean()) if rounded.q.size else 0.0
        moved = float(np.abs(rounded.scale / np.reshape(layer.q.scale, rounded.scale.shape) - 1).max())
        rounded.apply(graph, layer)
        self.changed(
            layer.node, f"{100 * share:.3g} % of its weights not to nearest, scales moved by at most {moved:.1e}"
        )

    # Options ---------------------------------------------------------------------------------------------------------

    def _check(self) -> None:
        counts = (self.max_samples, self.positions, self.iterations, self.block_layers)
        if min(counts) < 1 or not self.damping > 0:
            remedy = "give max_samples, positions, iterations, block_layers and damping above 0"
            raise UsageError(self.name, "an option is not positive", remedy)
        if self.granularity not in GRANULARITIES:
            raise UsageError(self.name, f"granularity is '{self.granularity}'", f"use {' or '.join(GRANULARITIES)}")

    def _options(self) -> dict[str, object]:
        """All that shapes the result."""
        import dataclasses

        hidden = ("samples", "progress", "resume", "log")
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.init and f.name not in hidden}

    def _feeds(self, model: ir.Model) -> list[Feeds]:
        feeds: list[Feeds] = []
        seen = 0
        for sample in self.samples:
            check_feeds(model.graph, sample, f"calibration sample {len(feeds)}")
            feeds.append(sample)
            seen += batch_rows(sample)
            if seen >= self.max_samples:
                break
        if not feeds:
            raise DataError("calibration data", "holds no sample", "give at least one")
        return merged(model.graph, feeds)

    def _progress(self, done: int, total: int) -> None:
        if self.progress is not None:
            self.progress(done, total)


def _with_bias(graph: ir.Graph, layer: Layer) -> Layer:
    if layer.bias is not None or not give_bias(graph, layer):
        return layer
    found = find_layer(layer.node)
    assert isinstance(found, Layer)
    return found
