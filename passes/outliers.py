"""Where the extremes of an activation lie: at the first token (attention sinks, MixDQ), or in few channels."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from mulshift.ir import Array
from mulshift.passes.observers import Histogram

if TYPE_CHECKING:
    import torch

OUTLIERS = "mulshift.outliers"
ROWS = 64
"""Rows of one tensor, evenly taken, that the extremes of channels come from: outlier channels are so in all rows."""


@dataclass
class Outliers:
    """Streaming extremes of `x: [..., positions, channels]`: position 0, and all others.

    Attributes:
        counted: whether a histogram of position 0 is wanted too.
        first: extremes (and histogram) of position 0.
        low, high: of all other positions.
        rest: how many elements those have had.
        largest: largest |x| of each channel over up to ROWS rows a tensor, [channels]; empty where their number varies.
    """

    counted: bool = False
    first: Histogram = field(default_factory=Histogram)
    low: float = math.inf
    high: float = -math.inf
    rest: int = 0
    largest: Array | None = None

    def update(self, tensor: torch.Tensor) -> None:
        """Take one finite tensor in; fewer than two positions are none."""
        if tensor.ndim < 2 or tensor.shape[-2] < 2 or not tensor.numel():
            return
        x = tensor.detach()
        first, rest = x[..., 0, :], x[..., 1:, :]
        self.first.update(first, counted=self.counted)
        self.low, self.high = min(self.low, float(rest.amin())), max(self.high, float(rest.amax()))
        self.rest += rest.numel()
        if self.largest is not None and self.largest.shape != x.shape[-1:]:
            self.largest = np.zeros(0)
            return
        rows = x.reshape(-1, x.shape[-1])
        found = rows[:: -(-len(rows) // ROWS)].abs().amax(0).double().numpy()
        if self.largest is None:
            self.largest = found
        self.largest = np.maximum(self.largest, found)

    @property
    def position(self) -> float | None:
        """Largest |x| at position 0 over that at all others; None without any."""
        if not self.rest:
            return None
        return _ratio(max(-self.first.low, self.first.high), max(-self.low, self.high))

    @property
    def channel(self) -> float | None:
        """Largest |x| of the worst channel over that of the median one; None where their number varies."""
        if self.largest is None or not self.largest.size:
            return None
        return _ratio(float(self.largest.max()), float(np.median(self.largest)))

    def without_first(self, low: float, high: float, levels: int = 256) -> tuple[float, float] | None:
        """The range of the other positions, if it lowers the squared error of all elements; None if it does not.

        With a step d (of `levels` over the range and 0) an element inside the range costs `d^2 / 12`, one at position 0
        that is clipped the square of what is cut off; position 0 inside the range is taken to gain nothing.
        """
        a, b = max(low, min(self.low, 0.0)), min(high, max(self.high, 0.0))
        wide, narrow = (max(top, 0.0) - min(bottom, 0.0) for bottom, top in ((low, high), (a, b)))
        saved = self.rest * (wide**2 - narrow**2) / (levels - 1) ** 2 / 12
        centers = self.first.centers
        clipped = float((self.first.counts * (centers - np.clip(centers, a, b)) ** 2).sum())
        return (a, b) if narrow > 0 and saved > clipped else None


def _ratio(a: float, b: float) -> float:
    return a / b if b > 0 else (1.0 if a == 0 else math.inf)


def set_outliers(value: ir.Value, found: Outliers) -> None:
    """Write both ratios, 4 digits; infinite ones (all else is 0) as null."""
    ratios = {"position": found.position, "channel": found.channel}
    plain = {k: float(f"{r:.4g}") if r is not None and math.isfinite(r) else None for k, r in ratios.items()}
    value.metadata_props[OUTLIERS] = json.dumps(plain)


@dataclass(frozen=True)
class OutlierRatios:
    """Attributes:
    name: of the value.
    position: largest |x| at position 0 over that of all others; None if there is only one, or all else is 0.
    channel: largest |x| of the worst channel over that of the median one; None if their number varies.
    """

    name: str
    position: float | None
    channel: float | None

    @property
    def worst(self) -> float:
        """The larger ratio."""
        return max(self.position or 0.0, self.channel or 0.0)


def worst_outliers(model: ir.Model, least: float = 8.0, most: int = 10) -> tuple[OutlierRatios, ...]:
    """The values on which calibrate wrote a ratio of `least` or more, the worst first."""
    values = [*model.graph.inputs, *(v for node in model.graph for v in node.outputs)]
    texts = [(str(v.name), json.loads(v.metadata_props[OUTLIERS])) for v in values if OUTLIERS in v.metadata_props]
    found = [OutlierRatios(name, d["position"], d["channel"]) for name, d in texts]
    return tuple(sorted((f for f in found if f.worst >= least), key=lambda f: -f.worst)[:most])
