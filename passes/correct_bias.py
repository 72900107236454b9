"""correct-bias: absorb the mean error that quantization leaves in every layer's output into its bias."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sized
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import onnx_ir as ir

from mulshift.ir import Array, DataError, Feeds, Interpreter, Samples, constant, rank
from mulshift.passes.base import Contract, Pass
from mulshift.passes.calibrate import check_feeds
from mulshift.passes.twins import float_twin, frozen_twin, replace_initializer

if TYPE_CHECKING:
    import torch

CORRECTED = "mulshift.corrected"
_LAYERS = ("Conv", "ConvTranspose", "Gemm")


@dataclass
class CorrectBias(Pass):
    """`bias_c -= E[quantized output_c] - E[float output_c]`, layer by layer, with quantized inputs.

    The empirical variant of Nagel et al. 2019 (section 4.2), also Finkelstein et al. 2019. One pass over the samples:
    the float and the quantized graph run side by side on each, and each layer's quantized output is corrected by the
    mean error so far before the next layer sees it, so that every layer is measured behind corrected ones. A channel's
    correction shrinks by the share of it that is sampling noise (James and Stein 1961). Memory is that of one sample.

    Attributes:
        samples: feeds of the graph inputs; iterated once.
        progress: called with (samples done, their number or None) after each.

    Raises:
        DataError: no samples, or samples that do not fit the graph.
    """

    name: ClassVar[str] = "correct-bias"
    contract: ClassVar[Contract] = Contract.LOSSY
    samples: Samples = ()
    progress: Callable[[int, int | None], None] | None = None

    def rewrite(self, model: ir.Model) -> None:
        layers = {str(n.outputs[0].name): n for n in model.graph if self._correctable(n)}
        if not layers:
            return
        errors = {name: RunningMean() for name in layers}
        exact, quantized = Interpreter(float_twin(model)), Interpreter(frozen_twin(model))
        total = len(self.samples) if isinstance(self.samples, Sized) else None
        done = 0
        for feeds in self.samples:
            check_feeds(model.graph, feeds, f"calibration sample {done}")
            _measure(exact, quantized, feeds, layers, errors)
            done += 1
            if self.progress is not None:
                self.progress(done, total)
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

    def _absorb(self, graph: ir.Graph, node: ir.Node, error: RunningMean) -> None:
        mean = error.shrunken()
        if mean is None or not mean.any():
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
class RunningMean:
    """Mean over samples of the errors of a layer's channels, and how far it can be trusted.

    Attributes:
        count: samples so far.
        mean: [channels], None before the first.
        spread: sum of squared deviations from the mean (Welford).
    """

    count: int = 0
    mean: Array | None = None
    spread: Array | None = None

    def add(self, value: Array) -> Array:
        """Take one sample in and return the mean so far."""
        self.count += 1
        if self.mean is None or self.spread is None:
            self.mean, self.spread = value, np.zeros_like(value)
            return value
        before = value - self.mean
        self.mean = self.mean + before / self.count
        self.spread = self.spread + before * (value - self.mean)
        return self.mean

    def shrunken(self) -> Array | None:
        """The mean times `max(0, 1 - e^2 / mean^2)`, e its standard error: what is noise is not corrected (Stein)."""
        if self.mean is None or self.spread is None or self.count < 2:
            return self.mean
        noise = self.spread / (self.count - 1) / self.count
        square = np.maximum(self.mean**2, np.finfo(np.float64).tiny)
        return np.asarray(self.mean * np.maximum(0.0, 1.0 - noise / square))


def _measure(
    exact: Interpreter,
    quantized: Interpreter,
    feeds: Feeds,
    layers: Mapping[str, ir.Node],
    errors: Mapping[str, RunningMean],
) -> None:
    """Run one sample through both graphs and update the errors."""
    import torch

    means: dict[str, Array] = {}

    def note(value: ir.Value, tensor: torch.Tensor) -> None:
        if value.name in layers:
            means[str(value.name)] = _channel_mean(tensor)

    def correct(value: ir.Value, tensor: torch.Tensor) -> torch.Tensor | None:
        if value.name not in layers:
            return None
        name = str(value.name)
        error = _channel_mean(tensor) - means.pop(name)
        mean = errors[name].add(error)
        shape = [-1] + [1] * (tensor.ndim - 2)
        return tensor - torch.from_numpy(mean.astype(np.float32)).reshape(shape)

    with torch.no_grad():
        exact.run(feeds, note)
        quantized.run(feeds, correct)


def _channel_mean(tensor: torch.Tensor) -> Array:
    """Mean over all axes but 1, the channels, in float64."""
    axes = [a for a in range(tensor.ndim) if a != 1]
    return np.asarray(tensor.mean(dim=axes).double().numpy())
