"""round-weights: round each weight so that the layer's outputs, not the weights, change least."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sized
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import onnx_ir as ir

from mulshift.ir import Array, DataError, Interpreter, QParams, Samples, UsageError, constant
from mulshift.passes.base import Contract, Pass
from mulshift.passes.calibrate import batch_rows, check_feeds
from mulshift.passes.lattice import Grid, order_columns, output_error, round_to_grid
from mulshift.passes.pairs import pair_qparams, pair_source
from mulshift.passes.patches import patches
from mulshift.passes.quant_rules import channel_axis
from mulshift.passes.sparsity.pattern import sparsity_of
from mulshift.passes.twins import frozen_twin, plain_name, replace_initializer, unclipped

if TYPE_CHECKING:
    import torch

BLOCK = 1024
"""Inputs of a layer whose correlations are kept together; a layer with more is rounded block by block."""
_LAYERS = ("Conv", "Gemm", "MatMul")


@dataclass
class RoundWeights(Pass):
    """Choose q to lessen `E |(w - s q) x|^2 = (w - s q) H (w - s q)^T` with `H = E[x x^T]`, instead of `|w - s q|^2`.

    Column by column, most energetic input first, each rounded to nearest; what the columns not yet rounded can make
    good of its error is taken from them through the inverse of H (Frantar et al. 2022, GPTQ: Babai's nearest plane).
    x are the quantized inputs, with padding. The weights are left on their grid, the scales alone. For convolutions of
    any rank and grouping, Gemm and MatMul with constant weights; a layer that gains nothing keeps its rounding.

    Memory is H of each layer, 4 bytes * inputs * min(inputs, 1024), whatever the number of samples.

    Attributes:
        samples: feeds of the graph inputs; iterated once, until `max_samples` rows of the batch axis are seen.
        max_samples: see there.
        positions: output positions of each layer looked at in a row of the batch.
        damping: share of H's mean diagonal that is added to the diagonal.
        progress: called with (feeds done, their number or None) after each.

    Raises:
        DataError: no samples, or samples that do not fit the graph.
        UsageError: an option out of range.
    """

    name: ClassVar[str] = "round-weights"
    contract: ClassVar[Contract] = Contract.LOSSY
    samples: Samples = ()
    max_samples: int = 48
    positions: int = 128
    damping: float = 0.01
    progress: Callable[[int, int | None], None] | None = None

    def rewrite(self, model: ir.Model) -> None:
        if self.max_samples < 1 or self.positions < 1 or not self.damping > 0:
            raise UsageError("round-weights", "an option is not positive", "give max_samples, positions, damping > 0")
        layers = {str(n.name): n for n in model.graph if self._is_layer(n)}
        if not layers:
            return
        energies = {name: Energy() for name in layers}
        self._observe(model, layers, energies)
        for group in _sharing(layers.values()):
            self._round(model.graph, group, [energies[str(n.name)] for n in group])

    def _is_layer(self, node: ir.Node) -> bool:
        if node.domain not in ("", "ai.onnx") or node.op_type not in _LAYERS or _weights(node) is None:
            return False
        q = pair_qparams(_dequantize(node))
        array = constant(_weights(node))
        if q is None or array is None or array.dtype != np.float32 or (node.op_type != "Conv" and array.ndim != 2):
            self.skipped(node, "its weights are not float32 constants behind a pair")
            return False
        if q.spec.group is not None:
            self.skipped(node, "its weights have groups of their own scales")
            return False
        if q.spec.bits == 1:
            self.skipped(node, "its weights are signs")
            return False
        if not q.per_tensor and q.spec.axis != channel_axis(node, array.ndim):
            self.skipped(node, "its scales do not belong to output channels")
            return False
        return True

    def _observe(self, model: ir.Model, layers: dict[str, ir.Node], energies: dict[str, Energy]) -> None:
        import torch

        twin = frozen_twin(model)
        readers: dict[str, list[ir.Node]] = {}
        for node in twin.graph:
            if node.name in layers and node.inputs[0] is not None:
                readers.setdefault(str(node.inputs[0].name), []).append(node)
        rows = 0

        def observe(value: ir.Value, tensor: torch.Tensor) -> None:
            for node in readers.get(str(value.name), ()):
                kernel = _kernel(layers[str(node.name)])
                energies[str(node.name)].add(patches(node, tensor, kernel, self.positions * rows))

        interpreter = Interpreter(twin)
        total = len(self.samples) if isinstance(self.samples, Sized) else None
        done = seen = 0
        with torch.no_grad():
            for feeds in self.samples:
                check_feeds(model.graph, feeds, f"calibration sample {done}")
                rows = batch_rows(feeds)
                interpreter.run(feeds, observe)
                done, seen = done + 1, seen + rows
                if self.progress is not None:
                    self.progress(done, total)
                if seen >= self.max_samples:
                    break
        if not done:
            raise DataError("calibration data", "holds no sample", "give at least one")

    def _round(self, graph: ir.Graph, nodes: list[ir.Node], energies: list[Energy]) -> None:
        """One weight, read by `nodes` alike."""
        node = nodes[0]
        source, q = _weights(node), pair_qparams(_dequantize(node))
        array = unclipped(source)
        assert source is not None and q is not None and array is not None
        axis = channel_axis(node, array.ndim)
        kept = array != 0 if any(sparsity_of(n) for n in nodes) else None
        rounded, ratio = _rounded(array, axis, q, energies, self.damping, kept)
        if ratio >= 1.0:
            self.skipped(node, "rounding to nearest is as good")
            return
        new = replace_initializer(graph, source, f"{plain_name(source)}.rounded", rounded)
        quantize = _dequantize(node).inputs[0].producer()  # type: ignore[union-attr]
        assert quantize is not None
        quantize.replace_input_with(0, new)
        self.changed(node, f"error of its outputs from weights falls to {100 * ratio:.3g} %")


@dataclass
class Energy:
    """Sum of x x^T over rows, a matrix a block of inputs: float32 [groups, block, block] each."""

    blocks: list[torch.Tensor] = field(default_factory=list)

    def add(self, rows: torch.Tensor) -> None:
        """Rows: [groups, rows, K]."""
        parts = [rows[:, :, k : k + BLOCK] for k in range(0, rows.shape[2], BLOCK)]
        sums = [part.transpose(1, 2) @ part for part in parts]
        self.blocks = [a + b for a, b in zip(self.blocks, sums, strict=True)] if self.blocks else sums


def _rounded(
    array: Array, axis: int, q: QParams, energies: list[Energy], damping: float, kept: Array | None
) -> tuple[Array, float]:
    """The weights on their grid, zero where not kept, and their output error as a share of that of nearest."""
    import torch

    moved = np.moveaxis(array, axis, 0)
    shape = moved.shape
    first = energies[0].blocks
    if not first:
        return array, 1.0
    groups = first[0].shape[0]
    w = torch.from_numpy(moved.astype(np.float64)).reshape(groups, shape[0] // groups, -1)
    there = np.ones(moved.shape, bool) if kept is None else np.moveaxis(kept, axis, 0)
    allowed = torch.from_numpy(there.reshape(w.shape))
    scale = torch.from_numpy(np.broadcast_to(q.scale.astype(np.float64), (shape[0],)).copy()).reshape(groups, -1)
    # No further than rounding to nearest goes: the scale may leave room on purpose (reduce_range).
    limit = min(q.spec.qmax, int(torch.round(w / scale[:, :, None]).abs().max())) if w.numel() else q.spec.qmax
    pieces, before, after, start = [], 0.0, 0.0, 0
    for k, block in enumerate(first):
        energy = sum((e.blocks[k] for e in energies[1:]), block).double()
        part = w[:, :, start : start + block.shape[1]]
        nearest = torch.round(part / scale[:, :, None]).clamp_(-limit, limit)
        order = order_columns(energy, damping)
        free = allowed[:, :, start : start + block.shape[1]]
        found = nearest if order is None else round_to_grid(part, order, scale, Grid(-limit, limit), free)
        errors = [output_error(part - c * scale[:, :, None], energy) for c in (nearest, found)]
        better = errors[1] < errors[0]
        pieces.append(torch.where(better[:, :, None], found, nearest))
        before += float(errors[0].sum())
        after += float(torch.where(better, errors[1], errors[0]).sum())
        start += block.shape[1]
    grid = (torch.cat(pieces, dim=2) * scale[:, :, None]).reshape(shape)
    ratio = after / before if before > 0 else 1.0
    return np.ascontiguousarray(np.moveaxis(grid.numpy(), 0, axis).astype(np.float32)), ratio


def _dequantize(node: ir.Node) -> ir.Node:
    made = None if node.inputs[1] is None else node.inputs[1].producer()
    assert made is not None
    return made


def _weights(node: ir.Node) -> ir.Value | None:
    """The float weights behind the pair at a node's second input, or None."""
    made = None if node.inputs[1] is None else node.inputs[1].producer()
    return None if made is None else pair_source(made)


def _kernel(node: ir.Node) -> tuple[int, ...]:
    source = _weights(node)
    shape = () if source is None or source.shape is None else tuple(int(d) for d in source.shape)  # type: ignore[arg-type]
    return shape[2:] if node.op_type == "Conv" else ()


def _sharing(nodes: Iterable[ir.Node]) -> list[list[ir.Node]]:
    """Nodes by the pair that their weights come from."""
    groups: dict[ir.Node, list[ir.Node]] = {}
    for node in nodes:
        groups.setdefault(_dequantize(node), []).append(node)
    return list(groups.values())
