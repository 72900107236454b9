"""Weights of candidates, rounded as the recipes' later passes do it: by what that does to the layer's outputs.

A format that loses much when its weights are rounded to nearest may lose little behind a learned rounding (fewer bits
gain more from it). So sensitivities take these weights, and the choice between bits is about what will be made.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from mulshift.ir import Array, Feeds, Interpreter, attribute
from mulshift.passes.allocation.candidates import KINDS, Candidate
from mulshift.passes.allocation.groups import Product
from mulshift.passes.allocation.simulation import Simulation
from mulshift.passes.allocation.weights import groups_of
from mulshift.passes.calibrate import batch_rows
from mulshift.passes.gptq import integers
from mulshift.passes.lattice import Grid, Order, order_columns
from mulshift.passes.patches import patches
from mulshift.passes.rounding import layers
from mulshift.passes.rounding.problem import Problem
from mulshift.passes.scales import weight_qparams
from mulshift.passes.sparsity.masks import tap_order
from mulshift.passes.sparsity.pattern import Sparsity
from mulshift.passes.sparsity.scores import SCORES, Task

if TYPE_CHECKING:
    import torch

POSITIONS, DAMPING, SWEEPS, STEPS = 128, 0.01, 1, 40
ENERGY_BYTES = 1 << 30
"""Of second moments kept at a time; the samples are run again for the next layers."""


def round_by_outputs(
    simulation: Simulation, products: Sequence[Product], candidates: Sequence[Candidate], samples: Sequence[Feeds]
) -> Iterator[tuple[Product, dict[Candidate, Array]]]:
    """Round the weights of Conv, Gemm and MatMul for every candidate: `min (w - s q) H (w - s q)^T`, `H = E[x^T x]`.

    x are the inputs in the float graph; column by column with error feedback, then coordinate descent (the pass
    `gptq`). Kinds with zeros are pruned first, as the pass `sparsify` does it, and rounded where weights stay. Products
    of other operators are left to rounding to nearest.

    Args:
        simulation: of the model.
        products: one for each weight.
        candidates: see there.
        samples: feeds to take moments on.

    Yields:
        One product after the other, with what was made for each candidate that fits: float32, the weights' shape.
    """
    for part in _parts([layer for p in products if (layer := _layer(simulation, p)) is not None]):
        for layer, energy in _energies(simulation, part, samples).items():
            order = order_columns(energy, DAMPING)
            if order is not None:
                fitting = [c for c in candidates if c.fits(layer.product.shape, layer.product.axis)]
                yield layer.product, {c: _rounded(layer, c, energy, order) for c in fitting}


@dataclass(frozen=True)
class _Layer(layers.Product):
    """One product as the rounding passes see it."""

    product: Product

    @property
    def bytes(self) -> int:
        """Of H."""
        return 8 * self.groups * (self.weights.size // self.channels) ** 2


def _layer(simulation: Simulation, product: Product) -> _Layer | None:
    """None where it is none of Conv, Gemm and MatMul by a matrix."""
    node = simulation.nodes[product.name]
    if node.op_type not in layers.OPERATORS or (node.op_type != "Conv" and len(product.shape) != 2):
        return None
    groups = int(attribute(node, "group", 1)) if node.op_type == "Conv" else 1
    source = simulation.model.graph.initializers[product.weights]
    return _Layer(node, source, product.axis, groups, None, product)


def _parts(given: Sequence[_Layer]) -> Iterator[list[_Layer]]:
    """As many at a time as ENERGY_BYTES hold; at least one."""
    part: list[_Layer] = []
    for layer in given:
        if part and sum(p.bytes for p in (*part, layer)) > ENERGY_BYTES:
            yield part
            part = []
        part.append(layer)
    if part:
        yield part


def _energies(simulation: Simulation, part: Sequence[_Layer], samples: Sequence[Feeds]) -> dict[_Layer, torch.Tensor]:
    """H of each, float64 [groups, K, K]."""
    import torch

    by_name = {layer.name: layer for layer in part}
    values = {value: by_name[name] for value, name in simulation.reads.items() if name in by_name}
    found: dict[_Layer, torch.Tensor] = {}
    rows = 1

    def observe(value: ir.Value, tensor: torch.Tensor) -> None:
        layer = values.get(value)
        if layer is not None:
            x = patches(layer.node, tensor, layer.kernel, POSITIONS * rows)
            energy = (x.transpose(1, 2) @ x).double()
            found[layer] = found[layer] + energy if layer in found else energy

    with torch.no_grad():
        for feeds in samples:
            rows = batch_rows(feeds)
            Interpreter(simulation.twin).run(feeds, observe)
    return found


def _rounded(layer: _Layer, candidate: Candidate, energy: torch.Tensor, order: Order) -> Array:
    """On the grid of the candidate, with the zeros of its kind."""
    w, kept = layer.weights, None
    sparsity = KINDS[candidate.kind].sparsity
    if sparsity is not None:
        v, kept = _pruned(layer, energy, sparsity)
        w = layer.array(v).numpy().astype(np.float32)
    bits = candidate.precision.weights
    q = weight_qparams(w, layer.axis, bits, "auto", groups=groups_of(w.shape, layer.axis, candidate.precision))
    scale = layer.matrix(np.broadcast_to(q.shaped(w.shape)[0], w.shape))
    most = 2 ** (bits - 1) - 1
    grid = Grid(-1, 1, binary=True) if bits == 1 else Grid(-most, most)
    made = integers(Problem(layer.matrix(w), energy, scale, grid, kept), order, SWEEPS) * scale
    return layer.array(made).numpy().astype(np.float32)


def _pruned(layer: _Layer, energy: torch.Tensor, sparsity: Sparsity) -> tuple[torch.Tensor, torch.Tensor]:
    """As the pass `sparsify` does it: weights, and where they may be other than zero."""
    import torch

    w, taps = layer.matrix(layer.weights), tap_order(layer)
    task = Task(w, w[:, 0], w, energy, DAMPING, STEPS).ordered(taps)
    v = torch.empty_like(w)
    v[:, :, taps] = SCORES["sparsegpt"].weights(task, sparsity)
    return v, v != 0
