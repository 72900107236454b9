"""equalize: cross-layer equalization (Nagel et al. 2019, arXiv:1906.04721, section 4.1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import onnx_ir as ir

from mulshift.ir import Array, DataError, Interpreter, Samples, UsageError, get_range, inherit_origin
from mulshift.ir.metadata import RANGE
from mulshift.passes.base import Contract, Pass
from mulshift.passes.calibrate import EXTREMES, get_extremes
from mulshift.passes.channel_pairs import Pair, find_pair, input_rows, output_rows
from mulshift.passes.linear_weights import LINEAR, bias_of, drop_unused, linear_of, set_bias, set_weight, weight_of
from mulshift.passes.outliers import OUTLIERS

if TYPE_CHECKING:
    import torch

_CONVERGED = 1e-3
"""Iteration ends when no scale differs from 1 by more."""
_DEAD = 1e-5
"""A channel whose range is below this part of the largest one keeps its scale."""


@dataclass
class Equalize(Pass):
    """For `y = W2 f(W1 x + b1) + b2`, f positively homogeneous in each channel, and any s > 0:

        y = (W2 S) f(S^-1 W1 x + S^-1 b1) + b2,    S = diag(s)

    `s_i = sqrt(r1_i r2_i) / r2_i` makes the ranges of channel i equal on both sides: r1_i is the largest |weight| that
    makes channel i, r2_i the largest that reads it. All pairs of a graph in turn, until nothing moves.

    Pairs: Conv, ConvTranspose, Gemm and MatMul with weights of their own, over Relu, LeakyRelu, PRelu, pools and means,
    each the only reader of the one before. Channels without range keep s = 1. Calibrated ranges of what is scaled are
    dropped: calibrate after it.

    Attributes:
        by: "weights", or "ranges" for r1_i = the largest |activation| of channel i that the second operator reads: what
            counts where weights have a scale for each output channel.
        clip: "skip" leaves pairs over a Clip with an upper bound alone; "if-inactive" makes it a Relu where a calibrate
            before this pass has seen nothing as large.
        iterations: at most so many rounds.
        tolerance: a pair whose scales are all this close to 1 is left alone.
        samples: for by = "ranges".
        count: at most so many samples.

    Raises:
        UsageError: an option that does not exist.
        DataError: by = "ranges" without samples.
    """

    name: ClassVar[str] = "equalize"
    contract: ClassVar[Contract] = Contract.CLOSE
    by: str = "weights"
    clip: str = "skip"
    iterations: int = 20
    tolerance: float = 0.01
    samples: Samples = ()
    count: int = 32

    def __post_init__(self) -> None:
        for name, value, allowed in (("by", self.by, _BY), ("clip", self.clip, _CLIP)):
            if value not in allowed:
                raise UsageError("equalize", f"{name} is '{value}'", f"use {' or '.join(allowed)}")
        if self.iterations < 1 or self.count < 1 or not 0 < self.tolerance < 1:
            raise UsageError("equalize", "iterations and count must be positive, tolerance in (0, 1)")

    def rewrite(self, model: ir.Model) -> None:
        """See the class; a linear operator that starts no pair is reported with the reason."""
        pairs = self._pairs(model.graph)
        activations = self._activations(model, pairs) if self.by == "ranges" and pairs else {}
        scales = _balance(pairs, activations, self.iterations)
        moved = {pair: s for pair, s in scales.items() if np.abs(np.log(s)).max() > np.log1p(self.tolerance)}
        for pair in pairs:
            if pair not in moved:
                self.skipped(pair.first, f"its channels are in balance with '{pair.second.name}'")
        _write(model.graph, moved)
        for pair, s in moved.items():
            text = f"{s.size} channels scaled by {1 / s.max():.4g} to {1 / s.min():.4g}, undone in '{pair.second.name}'"
            self.changed(pair.first, text)
            for node in pair.clips:
                self.changed(node, "became Relu: its upper bound is never reached")
                _to_relu(model.graph, node)

    def _pairs(self, graph: ir.Graph) -> list[Pair]:
        found: list[Pair] = []
        for node in graph:
            if linear_of(node) is None:
                continue
            pair = find_pair(graph, node, self._inactive)
            if isinstance(pair, Pair):
                found.append(pair)
            else:
                self.skipped(node, pair)
        return found

    def _inactive(self, value: ir.Value, bound: float) -> bool:
        seen = get_extremes(value) or get_range(value)
        return self.clip == "if-inactive" and seen is not None and seen[1] < bound

    def _activations(self, model: ir.Model, pairs: list[Pair]) -> dict[Pair, Array]:
        """Largest |x| a channel of what the second node of each pair reads."""
        read = {pair.between[-1]: pair for pair in pairs}
        found = {pair: np.zeros(pair.channels) for pair in pairs}

        def observe(value: ir.Value, tensor: torch.Tensor) -> None:
            pair = read.get(value)
            if pair is not None and tensor.numel():
                rows = tensor.detach().abs().movedim(pair.axis, 0).flatten(1)
                found[pair] = np.maximum(found[pair], rows.amax(1).double().numpy())

        import torch

        interpreter, done = Interpreter(model), 0
        with torch.no_grad():
            for feeds in islice(self.samples, self.count):
                interpreter.run(feeds, observe)
                done += 1
        if not done:
            raise DataError("equalize", "by 'ranges' needs samples", "give calibration data, or use by 'weights'")
        return found


_BY, _CLIP = ("weights", "ranges"), ("skip", "if-inactive")


def _balance(pairs: list[Pair], activations: Mapping[Pair, Array], iterations: int) -> dict[Pair, Array]:
    """The scales s of each pair, [channels]."""
    weights = {node: w for p in pairs for node in (p.first, p.second) if (w := weight_of(node)) is not None}
    total = {pair: np.ones(pair.channels) for pair in pairs}
    for _ in range(iterations):
        farthest = 0.0
        for pair in pairs:
            first, second = pair.first, pair.second
            made = np.abs(output_rows(first, weights[first])).max(axis=1)
            r1 = activations[pair] / total[pair] if pair in activations else made
            r2 = np.abs(input_rows(second, weights[second])).max(axis=1)
            s = _scales(r1, r2)
            weights[first] = LINEAR[first.op_type].scale_out(first, weights[first], 1 / s)
            weights[second] = LINEAR[second.op_type].scale_in(second, weights[second], s)
            total[pair] = total[pair] * s
            farthest = max(farthest, float(np.abs(np.log(s)).max()))
        if farthest < _CONVERGED:
            break
    return total


def _scales(r1: Array, r2: Array) -> Array:
    alive = (r1 > _DEAD * r1.max()) & (r2 > _DEAD * r2.max()) & np.isfinite(r1) & np.isfinite(r2)
    return np.where(alive, np.sqrt(np.where(alive, r1, 1.0) / np.where(alive, r2, 1.0)), 1.0)


def _write(graph: ir.Graph, scales: Mapping[Pair, Array]) -> None:
    after = {pair.first: s for pair, s in scales.items()}
    before = {pair.second: s for pair, s in scales.items()}
    for node in dict.fromkeys([*after, *before]):
        row, w = LINEAR[node.op_type], weight_of(node)
        assert w is not None
        if node in before:
            w = row.scale_in(node, w, before[node])
        if node in after:
            bias = bias_of(node, row, after[node].size)
            w = row.scale_out(node, w, 1 / after[node])
            if bias is not None and row.bias is not None and len(node.inputs) > row.bias:
                set_bias(graph, node, row, bias / after[node])
        set_weight(graph, node, w)
    for value in (v for pair in scales for v in pair.between):
        value.metadata_props.pop(RANGE, None)
        value.metadata_props.pop(EXTREMES, None)
        value.metadata_props.pop(OUTLIERS, None)


def _to_relu(graph: ir.Graph, node: ir.Node) -> None:
    relu, bounds = ir.node("Relu", [node.inputs[0]], name=node.name), list(node.inputs[1:])
    inherit_origin([relu], [node])
    ir.convenience.replace_nodes_and_values(graph, node, [node], [relu], node.outputs, relu.outputs)
    for bound in bounds:
        drop_unused(graph, bound)
