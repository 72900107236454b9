"""rotate: orthogonal rotations of the residual stream, of heads and before down-projections, absorbed by weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import ClassVar

import onnx_ir as ir

from mulshift.ir import Array, DataError, Samples, UsageError
from mulshift.passes.base import Contract, Pass
from mulshift.passes.hadamard import hadamard
from mulshift.passes.rotation.choice import NONE, Bits, choose, observe, rotation
from mulshift.passes.rotation.online import online_regions, write_online
from mulshift.passes.rotation.regions import MARK, Region, head_regions, stream_regions
from mulshift.passes.rotation.weights import Writer, unwritable
from mulshift.passes.sparsity.pattern import sparsity_of

_METHODS = ("hadamard", "random", "adaptive")
_SHOWN = 3


@dataclass
class Rotate(Pass):
    """For an orthogonal Q, `Q Q^T = I` (QuaRot, arXiv:2404.00456; SpinQuant, arXiv:2405.16406):

        x W = (x Q) (Q^T W)

    `x Q` spreads a channel that is much larger than others over all of them, so a common scale fits all. Where x is a
    sum of what linear operators make, and linear operators read it, their weights absorb Q and nothing else changes:

        W_out <- W_out Q,   b <- b Q,   E <- E Q,   W_in <- Q^T W_in

    - residual: all values that additions and reshapes tie together. A normalization passes once its scale is in the
      weights that read it, `RMSNorm(x Q) = RMSNorm(x) Q`; `LayerNorm(x) = RMSNorm(x - mean(x))`, where the weights that
      make x take the mean away, `W_out <- W_out (I - 1 1^T / n)` (SliceGPT, arXiv:2401.15024).
    - heads: `P (v Q) = (P v) Q` between the projection of values and that of outputs, one Q for all heads.
    - online: an explicit `mulshift.float::Hadamard` of what a nonlinearity made, undone in the weights behind it.

    What sparse weights read and make is not rotated: that would fill their zeros. Calibrated ranges of what is rotated
    are dropped: calibrate after it. A region that was rotated is not again.

    Attributes:
        residual, heads, online: which of the three.
        method: "hadamard" (random orthogonal where no Hadamard matrix is known), "random", or "adaptive": for each
            region the one of none, Hadamard, random and two that look at the activations with the least mean squared
            error of what linear operators make of inputs rounded to `bits` and weights rounded to `weight_bits`; online
            only where that is less than without.
        block: the largest order of an online Hadamard; more channels are transformed in groups.
        seed: of random signs and rotations.
        samples: for "adaptive".
        progress: told how many regions are done.
        bits, weight_bits: for "adaptive".
        count: at most so many samples.

    Raises:
        UsageError: an option that does not exist.
        DataError: "adaptive" without samples.
    """

    name: ClassVar[str] = "rotate"
    contract: ClassVar[Contract] = Contract.CLOSE
    residual: bool = True
    heads: bool = True
    online: bool = False
    method: str = "hadamard"
    block: int = 512
    seed: int = 0
    samples: Samples = ()
    progress: Callable[[int, int | None], None] | None = None
    bits: int = 8
    weight_bits: int = 8
    count: int = 16

    def __post_init__(self) -> None:
        if self.method not in _METHODS:
            raise UsageError("rotate", f"method is '{self.method}'", f"use {' or '.join(_METHODS)}")
        if self.count < 1 or self.block < 4 or not (2 <= self.bits <= 16 and 2 <= self.weight_bits <= 16):
            raise UsageError("rotate", "count must be positive, block 4 or more, bits and weight_bits from 2 to 16")

    def rewrite(self, model: ir.Model) -> None:
        """See the class; a stream or heads that cannot be rotated are reported with the reason."""
        if self.residual:
            self._rotate(model, [r for r in stream_regions(model.graph) if r.is_stream or _is_chain(r)])
        if self.heads:
            self._rotate(model, [r for r in head_regions(model.graph) if r.makers or r.readers])
        if self.online:
            self._online(model)

    def _rotate(self, model: ir.Model, regions: list[Region]) -> None:
        fit = [r for r in regions if not self._declined(r)]
        rows = self._rows(model, fit)
        choices = []
        for i, region in enumerate(fit):
            if self.method == "adaptive":
                choices.append(choose(region, rows, Bits(self.bits, self.weight_bits), self.seed))
            else:
                choices.append((*rotation(region.order, self.method, self.seed), ""))
            if self.progress is not None:
                self.progress(i + 1, len(fit))
        for region, (kind, q, errors) in zip(fit, choices, strict=True):
            where = region.first()
            if q is None:
                self.skipped(where, f"no rotation of its {region.order} channels is better than {NONE}: {errors}")
                continue
            self.changed(where, _told(region, kind) + (f"; errors: {errors}" if errors else ""))
            Writer(model, fit, region, q, kind).write()

    def _rows(self, model: ir.Model, regions: list[Region]) -> dict[ir.Value, Array]:
        """What the method looks at."""
        if self.method != "adaptive" or not regions:
            return {}
        rows = observe(model, regions, islice(self.samples, self.count))
        if not rows:
            raise DataError("rotate", "method 'adaptive' needs samples", "give calibration data, or use 'hadamard'")
        return rows

    def _online(self, model: ir.Model) -> None:
        """A Hadamard matrix by any method, since only that is additions; adaptive leaves out what gains nothing."""
        regions = online_regions(self, model.graph, self.block)
        rows = self._rows(model, regions)
        for region in regions:
            if sparse := _sparse(region):
                self.skipped(next(iter(region.readers)), sparse)
                continue
            h = hadamard(region.order)
            if rows and h is not None:
                only = {f"Hadamard {region.order}": h}
                best, _, errors = choose(region, rows, Bits(self.bits, self.weight_bits), self.seed, only)
                if best == NONE:
                    self.skipped(next(iter(region.readers)), f"an online Hadamard is not better than {NONE}: {errors}")
                    continue
            write_online(self, model, region)

    def _declined(self, region: Region) -> bool:
        marks = {v.metadata_props[MARK] for v in region.values if MARK in v.metadata_props}
        if marks:
            self.skipped(region.first(), f"already rotated: {', '.join(sorted(marks))}")
            return True
        reasons = list(dict.fromkeys(region.reasons)) or [r for r in [_sparse(region) or unwritable(region)] if r]
        if not reasons:
            return False
        more = f"; and {len(reasons) - _SHOWN} more reasons" if len(reasons) > _SHOWN else ""
        self.skipped(region.first(), f"its {region.order} channels stay: {'; '.join(reasons[:_SHOWN])}{more}")
        return True


def _is_chain(region: Region) -> bool:
    """Linear operators with nothing between: nobody asks why one nonlinearity keeps two of them apart."""
    return bool(region.readers) and not region.reasons


def _sparse(region: Region) -> str:
    """Why the weights around it cannot take a rotation; empty if they can."""
    sparse = [n for n in (*region.makers, *region.readers) if sparsity_of(n) is not None]
    return f"'{sparse[0].name}' is sparse, and a rotation fills its zeros: rotate before sparsify" if sparse else ""


def _told(region: Region, kind: str) -> str:
    last = list(region.nodes)[-1].name
    parts = [
        f"{len(region.makers) + len(region.constants)} weights and constants make them",
        f"{len(region.readers)} read them",
    ]
    if region.norms:
        parts.append(f"{len(region.norms)} normalizations pass them" + (" without the mean" if region.centred else ""))
    return f"{region.order} channels up to '{last}' rotated ({kind}): {', '.join(parts)}"
