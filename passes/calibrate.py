"""calibrate: run samples through the float graph and write a range on every float activation."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence, Sized
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import onnx_ir as ir

from mulshift.ir import DataError, Feeds, Interpreter, Samples, UsageError, describe, is_float, set_range
from mulshift.ir.levels import FLOAT_REASON
from mulshift.passes.base import Contract, Pass
from mulshift.passes.masks import is_masked
from mulshift.passes.observers import BINS, METHODS, Histogram, mse, percentile
from mulshift.passes.outliers import Outliers, set_outliers

if TYPE_CHECKING:
    import torch

EXTREMES = "mulshift.extremes"
RANGES = "mulshift.ranges"
"""Bits below 8 -> the range of least squared error for so many."""


@dataclass
class Calibrate(Pass):
    """Write `mulshift.range` (the range to quantize) and the exact extremes on every float activation.

    A value that a mask drives towards minus infinity gets no range and stays float.
    Where values of at least two rows have their extremes (position 0, few channels) is noted as `mulshift.outliers`.
    One pass over the samples; a value is kept as a histogram of fixed size, so memory does not grow with their number.

    Attributes:
        samples: feeds of the graph inputs; iterated once.
        method: "min-max", "percentile", "mse" or "entropy" (`mulshift.passes.observers`).
        percent: share of the elements that "percentile" keeps.
        low_bits: fewer bits than 8, such as [4]: the range of least squared error for so many is kept as well.
        overrides: operator type, node name or value name -> method for those outputs ("inputs" for graph inputs).
        bins: histogram bins, a power of two.
        first_token: "apart" leaves position 0 (along the second to last axis) out of a "min-max" range where it is
            `sink_ratio` times the rest and the squared error of rounding all others falls by more than clipping adds.
            Other methods weigh clipping by themselves.
        sink_ratio: see there; from it on position 0 is mentioned.
        progress: called with (samples done, their number or None) after each.

    Raises:
        DataError: no samples; names, types or shapes that do not fit; NaN or infinity in them or in what they become.
        UsageError: an unknown method.
    """

    name: ClassVar[str] = "calibrate"
    contract: ClassVar[Contract] = Contract.EXACT
    samples: Samples = ()
    method: str = "min-max"
    percent: float = 99.99
    low_bits: Sequence[int] = ()
    overrides: Mapping[str, str] = field(default_factory=dict)
    bins: int = BINS
    first_token: str = "together"
    sink_ratio: float = 8.0
    progress: Callable[[int, int | None], None] | None = None

    def rewrite(self, model: ir.Model) -> None:
        self._check_options()
        seen: dict[ir.Value, Histogram] = {}
        methods: dict[ir.Value, str] = {}
        masked: dict[ir.Value, None] = {}
        outliers: dict[ir.Value, Outliers] = {}

        def observe(value: ir.Value, tensor: torch.Tensor) -> None:
            if not tensor.is_floating_point():
                return
            if is_masked(value, tensor, masked):
                masked[value] = None
                return
            if value not in seen:
                seen[value] = Histogram(self.bins)
                value.dtype = value.dtype or ir.DataType.from_numpy(tensor.numpy().dtype)
                methods[value] = self._method(value)
            if not seen[value].update(tensor, counted=bool(self.low_bits) or methods[value] != "min-max"):
                raise _not_finite(value)
            if tensor.ndim >= 2 and tensor.shape[-2] > 1:
                outliers.setdefault(value, Outliers(self.first_token == "apart")).update(tensor)

        self._run(model, observe)
        for value, histogram in seen.items():
            if histogram.low <= histogram.high and value not in masked:
                self._annotate(value, histogram, methods[value], outliers.get(value))
        for value in masked:
            self._keep_float(value)

    def _run(self, model: ir.Model, observe: Callable[[ir.Value, torch.Tensor], None]) -> None:
        import torch

        interpreter = Interpreter(model)
        total = len(self.samples) if isinstance(self.samples, Sized) else None
        done = 0
        with torch.no_grad():
            for feeds in self.samples:
                check_feeds(model.graph, feeds, f"calibration sample {done}")
                interpreter.run(feeds, observe)
                done += 1
                if self.progress is not None:
                    self.progress(done, total)
        if not done:
            raise DataError("calibration data", "holds no sample", "give at least one")

    def _annotate(self, value: ir.Value, histogram: Histogram, method: str, outliers: Outliers | None) -> None:
        low, high = percentile(histogram, self.percent) if method == "percentile" else METHODS[method](histogram)
        before, note = dict(value.metadata_props), ""
        if outliers is not None:
            set_outliers(value, outliers)
            if (outliers.position or 0.0) >= self.sink_ratio:
                note = f", position 0 is {outliers.position:.3g}x the rest"
                apart = None if self.first_token == "together" else outliers.without_first(low, high)
                if apart is not None and method == "min-max":
                    (low, high), note = apart, f"{note} and left out"
        set_range(value, low, high)
        value.metadata_props[EXTREMES] = json.dumps([histogram.low, histogram.high])
        if self.low_bits:
            found = {str(bits): mse(histogram, 2**bits) for bits in self.low_bits}
            value.metadata_props[RANGES] = json.dumps(found)
        if dict(value.metadata_props) != before:
            self.changed(str(value.name), f"range [{low:.6g}, {high:.6g}] ({method}){note}")

    def _keep_float(self, value: ir.Value) -> None:
        node = value.producer()
        assert node is not None
        node.metadata_props[FLOAT_REASON] = "a mask drives it towards minus infinity"
        self.skipped(node, f"'{value.name}' gets no range: a mask drives it towards minus infinity")

    def _method(self, value: ir.Value) -> str:
        node = value.producer()
        keys = (value.name, node.name, node.op_type) if node is not None else (value.name, "inputs")
        return next((self.overrides[k] for k in map(str, keys) if k in self.overrides), self.method)

    def _check_options(self) -> None:
        for method in (self.method, *self.overrides.values()):
            if method not in METHODS:
                raise UsageError("calibrate", f"unknown method '{method}'", f"use one of {', '.join(METHODS)}")
        if not 50.0 < self.percent <= 100.0:
            raise UsageError("calibrate", f"percent is {self.percent}", "give one in (50, 100]")
        if self.first_token not in ("together", "apart"):
            raise UsageError("calibrate", f"first_token is '{self.first_token}'", "use together or apart")
        if not all(2 <= bits < 8 for bits in self.low_bits):
            raise UsageError("calibrate", f"low_bits is {list(self.low_bits)}", "give numbers from 2 to 7, such as [4]")
        if not self.sink_ratio > 1:
            raise UsageError("calibrate", f"sink_ratio is {self.sink_ratio}", "give one above 1")
        if self.bins < 4 or self.bins & (self.bins - 1):
            raise UsageError("calibrate", f"bins is {self.bins}", "give a power of two, at least 4")


def get_extremes(value: ir.Value) -> tuple[float, float] | None:
    """Exact (lowest, highest) that calibration saw, or None."""
    text = value.metadata_props.get(EXTREMES)
    if text is None:
        return None
    low, high = json.loads(text)
    return float(low), float(high)


def get_range_of_bits(value: ir.Value, bits: int) -> tuple[float, float] | None:
    """The (low, high) of least squared error for an activation of so many bits, if calibration was asked for it."""
    text = value.metadata_props.get(RANGES)
    found = None if text is None else json.loads(text).get(str(bits))
    return None if found is None else (float(found[0]), float(found[1]))


def check_feeds(graph: ir.Graph, feeds: Feeds, where: str) -> None:
    """One sample against the graph inputs.

    Raises:
        DataError: names, types or shapes differ, or a float array holds NaN or infinity.
    """
    expected = {str(v.name): v for v in graph.inputs if v.name not in graph.initializers}
    remedy = f"the model expects {', '.join(_signature(v) for v in expected.values())}"
    if not isinstance(feeds, Mapping):
        raise DataError(where, f"is a {type(feeds).__name__}, not a mapping of input names to arrays", remedy)
    known = expected.keys() | {str(v.name) for v in graph.inputs}
    if not expected.keys() <= feeds.keys() <= known:
        raise DataError(where, f"has the names {sorted(map(str, feeds))}", remedy)
    for name, value in expected.items():
        array = np.asarray(feeds[name])
        if value.dtype is not None and array.dtype != value.dtype.numpy():
            raise DataError(where, f"'{name}' has type {array.dtype}", remedy)
        if not _fits(array.shape, value.shape):
            raise DataError(where, f"'{name}' has shape {list(array.shape)}", remedy)
        if is_float(value) and not np.isfinite(array).all():
            raise DataError(where, f"'{name}' holds NaN or infinity", "clean the data")


def batch_rows(feeds: Feeds) -> int:
    """Length of the longest first axis of a sample: how many images, sentences, ... it holds."""
    return max((len(a) for a in feeds.values() if np.ndim(a)), default=1)


def _fits(shape: tuple[int, ...], expected: ir.Shape | None) -> bool:
    if expected is None:
        return True
    return len(shape) == len(expected) and all(
        not isinstance(e, int) or e == s for s, e in zip(shape, expected, strict=True)
    )


def _signature(value: ir.Value) -> str:
    dims = (str(d) if isinstance(d, int) else d.value or "?" for d in value.shape or ())
    return f"'{value.name}' {value.dtype.numpy() if value.dtype else '?'} [{', '.join(dims)}]"


def _not_finite(value: ir.Value) -> DataError:
    node = value.producer()
    where = f"input '{value.name}'" if node is None else describe(node)
    return DataError(where, f"value '{value.name}' becomes NaN or infinite", "check the weights and the data's scale")
