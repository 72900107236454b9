"""A pass that walks along the graph block by block: samples, checkpoints, progress. A subclass does one block."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import onnx_ir as ir

from mulshift.ir import Array, DataError, Feeds, Samples, UsageError
from mulshift.passes.base import Contract, Pass
from mulshift.passes.calibrate import batch_rows, check_feeds
from mulshift.passes.rounding.checkpoint import Checkpoints, run_key
from mulshift.passes.rounding.feeds import merged
from mulshift.passes.rounding.layers import Product
from mulshift.passes.rounding.result import Found
from mulshift.passes.rounding.walk import Block, Walk

P = TypeVar("P", bound=Product)
F = TypeVar("F", bound=Found[Any])
_NO_NUMBERS = ("samples", "progress", "resume")


@dataclass
class WalkPass(Pass, Generic[P, F]):
    """Both graphs advance block by block; each sample keeps the values alive at the start of its block, in both.

    Attributes:
        samples: feeds of the graph inputs; read once, until `max_samples` rows of the batch axis are seen.
        max_samples: see there.
        iterations: steps of Adam.
        seed: draws the order of the samples.
        resume: folder for checkpoints; a run that was killed goes on from there and gives the same bytes. Empty: none.
        progress: called with (layers done, their number).

    Raises:
        DataError: no samples, or samples that do not fit the graph.
        UsageError: an option out of range.
    """

    contract: ClassVar[Contract] = Contract.LOSSY
    samples: Samples = ()
    max_samples: int = 64
    iterations: int = 100
    seed: int = 0
    resume: str = ""
    progress: Callable[[int, int | None], None] | None = None
    kept: Checkpoints | None = field(default=None, init=False, repr=False, compare=False)

    @abstractmethod
    def block(self, walk: Walk[P], block: Block[P], number: int, done: int, total: int) -> list[F]:
        """What becomes of the block's layers; the walk stands before it. `done` of `total` layers are behind it."""

    @abstractmethod
    def products(self, model: ir.Model) -> list[P]:
        """What is walked along, in graph order; told why others are not."""

    @abstractmethod
    def apply(self, graph: ir.Graph, layer: P, found: F) -> None:
        """Put it into the graph, and tell."""

    @abstractmethod
    def restore(self, arrays: dict[str, Array], layer: P) -> F:
        """What was found, from the arrays of a checkpoint."""

    def most_layers(self, total: int) -> int:
        """Of a block, where the graph can be cut so."""
        return total

    def rewrite(self, model: ir.Model) -> None:
        self.check()
        feeds = self._feeds(model)
        layers = self.products(model)
        if not layers:
            return
        kept = self.kept = self._checkpoints(model, feeds)
        walk = Walk(model, layers, feeds, self.most_layers(len(layers)))
        done = 0
        for i, block in enumerate(walk.blocks):
            found = self._found(kept, i, walk, block, done, len(layers))
            for layer, each in zip(block.layers, found, strict=True):
                walk.set_layer(layer, each)
                self.apply(model.graph, layer, each)
            done += len(block.layers)
            self.tell(done, len(layers))
            if i + 1 < len(walk.blocks):
                walk.finish(block)

    def check(self) -> None:
        """The options.

        Raises:
            UsageError: one is out of range.
        """
        if min(self.max_samples, self.iterations) < 1:
            raise UsageError(self.name, "an option is not positive", "give max_samples and iterations above 0")

    def tell(self, done: int, total: int) -> None:
        """Layers done and their number, to whoever watches."""
        if self.progress is not None:
            self.progress(done, total)

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

    def _checkpoints(self, model: ir.Model, feeds: list[Feeds]) -> Checkpoints | None:
        if not self.resume:
            return None
        names = [f.name for f in dataclasses.fields(self) if f.init and f.name not in _NO_NUMBERS]
        options = {name: getattr(self, name) for name in names}
        kept = Checkpoints(Path(self.resume), self.name, run_key(model, options, feeds))
        if kept.open({"options": options}):
            self.skipped(self.resume, "holds checkpoints of other runs, which are left alone")
        return kept

    def _found(
        self, kept: Checkpoints | None, number: int, walk: Walk[P], block: Block[P], done: int, total: int
    ) -> list[F]:
        """The block's layers, from its checkpoint if there is one; a new one is written."""
        arrays = None if kept is None else kept.read(part(number))
        if arrays is not None:
            return [self.restore(arrays, layer) for layer in block.layers]
        found = self.block(walk, block, number, done, total)
        if kept is not None:
            pairs = zip(block.layers, found, strict=True)
            kept.write(part(number), {k: a for layer, each in pairs for k, a in each.arrays(layer.name).items()})
        return found


def part(number: int) -> str:
    """Of a checkpoint: a block."""
    return f"{number:04d}"
