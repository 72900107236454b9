"""correct-bias: absorb the mean error that quantization leaves in every layer's output into its bias."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sized
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, TypeAlias

import numpy as np
import onnx_ir as ir

from mulshift.ir import Array, DataError, Feeds, Interpreter, Samples, UsageError, constant, rank, scalar, sole_user
from mulshift.passes.base import Contract, Pass
from mulshift.passes.calibrate import batch_rows, check_feeds
from mulshift.passes.twins import float_twin, frozen_twin, replace_initializer

if TYPE_CHECKING:
    import torch

CORRECTED = "mulshift.corrected"
_LAYERS = ("Conv", "ConvTranspose", "Gemm")


@dataclass
class CorrectBias(Pass):
    """`bias_c -= E[quantized output_c - float output_c]`, layer by layer, with quantized inputs.

    The empirical variant of Nagel et al. 2019 (section 4.2), also Finkelstein et al. 2019, with three refinements.
    Where a Relu or Clip follows alone, the mean is over the positions at which the float output lies between its
    bounds: elsewhere the error goes nowhere. One pass over the samples: both graphs run side by side on each, and each
    layer's quantized output is corrected by the mean error so far before the next layer sees it, so that every layer
    is measured behind corrected ones. A channel's correction shrinks by the share of it that is sampling noise (James
    and Stein 1961). Memory is that of one sample.

    Attributes:
        samples: feeds of the graph inputs; iterated once, until `max_samples` rows of the batch axis are seen.
        max_samples: see there.
        progress: called with (samples done, their number or None) after each.

    Raises:
        DataError: no samples, or samples that do not fit the graph.
        UsageError: max_samples below 1.
    """

    name: ClassVar[str] = "correct-bias"
    contract: ClassVar[Contract] = Contract.LOSSY
    samples: Samples = ()
    max_samples: int = 64
    progress: Callable[[int, int | None], None] | None = None

    def rewrite(self, model: ir.Model) -> None:
        if self.max_samples < 1:
            raise UsageError("correct-bias", f"max_samples is {self.max_samples}", "give at least 1")
        layers = {str(n.outputs[0].name): n for n in model.graph if self._correctable(n)}
        if not layers:
            return
        errors = {name: MeanError() for name in layers}
        twin = float_twin(model)
        windows = {str(n.outputs[0].name): _window(n) for n in twin.graph if n.outputs[0].name in layers}
        exact, quantized = Interpreter(twin), Interpreter(frozen_twin(model))
        total = len(self.samples) if isinstance(self.samples, Sized) else None
        done = seen = 0
        for feeds in self.samples:
            check_feeds(model.graph, feeds, f"calibration sample {done}")
            _measure(exact, quantized, feeds, windows, errors)
            done, seen = done + 1, seen + batch_rows(feeds)
            if self.progress is not None:
                self.progress(done, total)
            if seen >= self.max_samples:
                break
        if not done:
            raise DataError("calibration data", "holds no sample", "give at least one")
        for name, node in layers.items():
            self._absorb(model.graph, node, errors[name])

    def _correctable(self, node: ir.Node) -> bool:
        if node.domain not in ("", "ai.onnx") or node.op_type not in _LAYERS:
            return False
        weight = node.inputs[1].producer() if node.inputs[1] is not None else None
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        if weight is None or weight.op_type != "DequantizeLinear":
            self.skipped(node, "its weights are not quantized")
            return False
        if bias is not None and (constant(bias) is None or (node.op_type == "Gemm" and rank(bias) != 1)):
            self.skipped(node, "its bias is not a constant vector")
            return False
        if bias is not None and bias.meta.get(CORRECTED):
            self.skipped(node, "its bias is corrected already")
            return False
        return True

    def _absorb(self, graph: ir.Graph, node: ir.Node, error: MeanError) -> None:
        mean = error.shrunken()
        if not mean.any():
            return
        old = node.inputs[2] if len(node.inputs) > 2 else None
        bias = constant(old)
        base = "bias" if old is None else str(old.name)
        corrected = ((0.0 if bias is None else bias) - mean).astype(np.float32)
        new = replace_initializer(graph, old, f"{base}.corrected", corrected)
        new.meta[CORRECTED] = True
        node.resize_inputs(3)
        node.replace_input_with(2, new)
        self.changed(node, f"bias moved by at most {float(np.abs(mean).max()):.3g}")


@dataclass
class MeanError:
    """Mean error of a layer's channels over samples, and how far it can be trusted.

    Each sample brings, per channel, the sum of its errors e_i and the number n_i of positions summed.
    `mean = sum e / sum n`; its variance is that of a ratio, `sum (e_i - mean n_i)^2 / (sum n)^2`.
    """

    count: int = 0
    _sums: dict[str, Array] = field(default_factory=dict)

    def add(self, error: Array, positions: Array) -> Array:
        """Take one sample in and return the mean so far."""
        self.count += 1
        new = {"e": error, "n": positions, "ee": error**2, "en": error * positions, "nn": positions**2}
        self._sums = {k: v + self._sums.get(k, 0.0) for k, v in new.items()}
        return self.mean

    @property
    def mean(self) -> Array:
        """[channels]; 0 where no position was seen."""
        return np.asarray(self._sums["e"] / np.maximum(self._sums["n"], 1.0))

    def shrunken(self) -> Array:
        """The mean times `max(0, 1 - variance / mean^2)`; of a single sample the mean itself."""
        mean, s = self.mean, self._sums
        if self.count < 2:
            return mean
        spread = s["ee"] - 2 * mean * s["en"] + mean**2 * s["nn"]
        variance = np.maximum(spread, 0.0) / np.maximum(s["n"], 1.0) ** 2 * (self.count / (self.count - 1))
        return np.asarray(mean * np.maximum(0.0, 1.0 - variance / np.maximum(mean**2, np.finfo(np.float64).tiny)))


Window: TypeAlias = tuple[float, float]


def _window(node: ir.Node) -> Window | None:
    """The open interval that a Relu or Clip, sole reader of the output, lets through; None if there is none."""
    user = sole_user(node.outputs[0])
    if user is None or user.domain not in ("", "ai.onnx") or user.op_type not in ("Relu", "Clip"):
        return None
    if user.op_type == "Relu":
        return 0.0, math.inf
    bounds = [*user.inputs[1:], None, None][:2]
    if any(b is not None and scalar(b) is None for b in bounds):
        return None
    low, high = (scalar(b) for b in bounds)
    return -math.inf if low is None else low, math.inf if high is None else high


def _measure(
    exact: Interpreter,
    quantized: Interpreter,
    feeds: Feeds,
    windows: Mapping[str, Window | None],
    errors: Mapping[str, MeanError],
) -> None:
    """Run one sample through both graphs and update the errors."""
    import torch

    seen: dict[str, tuple[torch.Tensor | None, Array, Array]] = {}

    def note(value: ir.Value, tensor: torch.Tensor) -> None:
        name = str(value.name)
        if name not in windows:
            return
        window = windows[name]
        mask = None if window is None else (tensor > window[0]) & (tensor < window[1])
        seen[name] = (mask, *_channel_sums(tensor, mask))

    def correct(value: ir.Value, tensor: torch.Tensor) -> torch.Tensor | None:
        name = str(value.name)
        if name not in windows:
            return None
        mask, expected, positions = seen.pop(name)
        mean = errors[name].add(_channel_sums(tensor, mask)[0] - expected, positions)
        return tensor - torch.from_numpy(mean.astype(np.float32)).reshape([-1] + [1] * (tensor.ndim - 2))

    with torch.no_grad():
        exact.run(feeds, note)
        quantized.run(feeds, correct)


def _channel_sums(tensor: torch.Tensor, mask: torch.Tensor | None) -> tuple[Array, Array]:
    """Sum and number of the masked elements of each channel (axis 1), float64."""
    axes = [a for a in range(tensor.ndim) if a != 1]
    if mask is None:
        positions = np.full(tensor.shape[1], tensor.numel() / max(tensor.shape[1], 1))
        return np.asarray(tensor.sum(dim=axes).double().numpy()), positions
    sums, number = (tensor * mask).sum(dim=axes), mask.sum(dim=axes)
    return np.asarray(sums.double().numpy()), np.asarray(number.double().numpy())
