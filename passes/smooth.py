"""smooth: activation outliers moved into the weights where that lowers the rounding error (SmoothQuant)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from operator import length_hint
from typing import TYPE_CHECKING, ClassVar

import onnx_ir as ir

from mulshift.ir import DataError, Interpreter, Samples, UsageError
from mulshift.passes.base import Contract, Pass
from mulshift.passes.calibrate import check_feeds
from mulshift.passes.smooth_measure import Choice, Seen, choose, measure
from mulshift.passes.smooth_regions import Region, find_regions, write
from mulshift.passes.smooth_split import drop_idle, split

if TYPE_CHECKING:
    import torch


@dataclass
class Smooth(Pass):
    """SmoothQuant (Xiao et al. 2023, arXiv:2211.10438), region by region, the strength chosen by measured error:

        y = W x = (W S) (S^-1 x),    S = diag(s),    s_j = max|x_j|^alpha / max|W_j|^(1 - alpha)

    Where a norm's output is read by others too (post-norm blocks), and behind nonlinear functions, linear readers get
    a product by one number a channel in front (`smooth_split`). A region is one activation x whose readers are all
    linear operators, and a maker that absorbs S^-1 exactly: scale and bias of a LayerNormalization or
    RMSNormalization, or the output channels of a linear operator, also through moves of elements, positively
    homogeneous functions, one factor of a product (`act(gate) * up`) and the values of attention (`softmax(q k^T) v`;
    heads that share keys and values share s). Queries and keys are regions too: `q S^-1` and `k S` have the same
    scores, with `s_j = max|q_j|^alpha / max|k_j|^(1 - alpha)` shared by channels that a rotary embedding turns into
    each other.

    The measure: mean squared error of the readers' outputs (of the scores), x rounded a tensor, weights an output
    channel, relative to the float outputs, on kept rows; of gated products and attention also with up and v rounded.
    A region keeps s = 1 unless that is clearly worse; the strengths are tried again on what was chosen until none
    helps, so that a second run finds next to nothing. Channels without range keep s = 1. Calibrated ranges of what is
    scaled are dropped: calibrate after it.

    Attributes:
        samples: feeds of the graph inputs; iterated once.
        count: at most so many samples.
        bits: of activations.
        weight_bits: of weights.
        functions: scale what nonlinear functions make too, by a product of its own: a pass over the activation.
        alphas: strengths to try, besides none.
        progress: called with (samples and regions done, their number or None).

    Raises:
        DataError: regions, but no samples; or samples that do not fit the graph.
        UsageError: an option out of range.
    """

    name: ClassVar[str] = "smooth"
    contract: ClassVar[Contract] = Contract.CLOSE
    samples: Samples = ()
    count: int = 32
    bits: int = 8
    weight_bits: int = 8
    functions: bool = True
    alphas: Sequence[float] = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    progress: Callable[[int, int | None], None] | None = None

    def __post_init__(self) -> None:
        if self.count < 1 or not 2 <= self.bits <= 16 or not 2 <= self.weight_bits <= 16:
            raise UsageError("smooth", "count must be positive, bits and weight_bits from 2 to 16")
        if not self.alphas or not all(0 <= a <= 1 for a in self.alphas):
            raise UsageError("smooth", f"alphas are {list(self.alphas)}", "give some in [0, 1]")

    def rewrite(self, model: ir.Model) -> None:
        """See the class; a maker whose output cannot be scaled is reported with the reason."""
        added = split(model.graph, self.functions)
        regions = find_regions(model.graph, self.skipped)
        try:
            self._smooth(model, regions)
        finally:
            drop_idle(model.graph, added)

    def _smooth(self, model: ir.Model, regions: list[Region]) -> None:
        if not regions:
            return
        seen = {region: {operand: Seen(operand) for operand in region.operands} for region in regions}
        done = self._watch(model, [view for views in seen.values() for view in views.values()], len(regions))
        for i, region in enumerate(regions):
            if all((view.low <= view.high).all() for view in seen[region].values()):
                choice = choose(measure(region, seen.pop(region), self.bits, self.weight_bits), self.alphas)
                self._report(region, choice)
                if choice.strengths:
                    write(model.graph, region, choice.s)
            self._tell(done + i + 1, done + len(regions))

    def _watch(self, model: ir.Model, seen: list[Seen], regions: int) -> int:
        """Run the samples; how many there were."""
        import torch

        wanted: dict[ir.Value, list[Seen]] = {}
        for view in seen:
            wanted.setdefault(view.operand.value, []).append(view)

        def observe(value: ir.Value, tensor: torch.Tensor) -> None:
            for view in wanted.get(value, ()):
                view.update(tensor)

        hint = length_hint(self.samples, -1)
        total = None if hint < 0 else min(hint, self.count) + regions
        interpreter, done = Interpreter(model), 0
        with torch.no_grad():
            for feeds in islice(self.samples, self.count):
                check_feeds(model.graph, feeds, f"calibration sample {done}")
                interpreter.run(feeds, observe)
                done += 1
                self._tell(done, total)
        if not done:
            raise DataError("smooth", "needs samples", "give calibration data")
        return done

    def _tell(self, done: int, total: int | None) -> None:
        if self.progress is not None:
            self.progress(done, total)

    def _report(self, region: Region, choice: Choice) -> None:
        readers = [f"'{node.name}'" for node in region.readers] or [
            f"'{flow.maker.name}'" for flow, _ in region.flows[1:]
        ]
        where = region.flows[0][0].maker
        if not choice.strengths:
            return self.skipped(where, f"{region.kind}: {_db(choice.before)} dB, no strength is clearly better")
        alphas = " then ".join(f"{a:g}" for a in choice.strengths)
        text = f"{region.kind}: alpha {alphas}, {_db(choice.before)} to {_db(choice.after)} dB"
        text += f", {choice.s.size} scales from {choice.s.min():.4g} to {choice.s.max():.4g}, undone in "
        return self.changed(where, text + ", ".join(readers))


def _db(error: float) -> str:
    return f"{-10 * math.log10(error):.1f}" if error > 0 else "inf"
