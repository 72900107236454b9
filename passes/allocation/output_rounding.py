"""Weights of candidates, rounded as the recipes' later passes do it: by what that does to the layer's outputs.

A format that loses much when its weights are rounded to nearest may lose little behind a learned rounding (fewer bits
gain more from it). So sensitivities take these weights, and the choice between bits is about what will be made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import prod
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
from mulshift.passes.rounding.problem import Problem
from mulshift.passes.scales import weight_qparams
from mulshift.passes.sparsity.pattern import Sparsity
from mulshift.passes.sparsity.scores import Task
from mulshift.passes.sparsity.sparsegpt import sparsegpt
from mulshift.passes.sparsity.survivors import refit

if TYPE_CHECKING:
    import torch

POSITIONS, DAMPING, SWEEPS, STEPS = 128, 0.01, 1, 40
ENERGY_BYTES = 1 << 30
"""Of second moments kept at a time; the samples are run again for the next layers."""

Keep = Callable[[Product, Candidate, Array], None]


def round_by_outputs(
    simulation: Simulation,
    products: Sequence[Product],
    candidates: Iterable[Candidate],
    samples: Sequence[Feeds],
    keep: Keep,
) -> None:
    """Round the weights of Conv, Gemm and MatMul for every candidate: `min (w - s q) H (w - s q)^T`, `H = E[x^T x]`.

    x are the inputs in the float graph; column by column with error feedback, then coordinate descent (the pass
    `gptq`). Kinds with zeros are pruned first, as the pass `sparsify` does it, and rounded where weights stay. Products
    of other operators are left to rounding to nearest.

    Args:
        simulation: of the model.
        products: one for each weight.
        candidates: see there.
        samples: feeds to take moments on.
        keep: takes what was made, float32 in the shape of the weights.
    """
    wanted = list(candidates)
    for part in _parts([p for p in products if _fits(simulation, p)], simulation):
        for product, energy in _energies(simulation, part, samples).items():
            order = order_columns(energy, DAMPING)
            if order is None:
                continue
            for candidate in wanted:
                if not candidate.fits(product.shape, product.axis):
                    continue
                keep(product, candidate, _rounded(simulation, product, candidate, energy, order))


def _fits(simulation: Simulation, product: Product) -> bool:
    op = simulation.nodes[product.name].op_type
    return op == "Conv" or (op in ("Gemm", "MatMul") and len(product.shape) == 2)


def _matrix_shape(simulation: Simulation, product: Product) -> tuple[int, int, int]:
    """(groups, outputs of a group, inputs of an output)."""
    node, channels = simulation.nodes[product.name], product.shape[product.axis]
    groups = int(attribute(node, "group", 1)) if node.op_type == "Conv" else 1
    return groups, channels // groups, prod(product.shape) // max(channels, 1)


def _parts(products: Sequence[Product], simulation: Simulation) -> Iterable[list[Product]]:
    """As many at a time as ENERGY_BYTES hold; at least one."""
    part: list[Product] = []
    held = 0
    for product in products:
        groups, _, depth = _matrix_shape(simulation, product)
        size = 8 * groups * depth**2
        if part and held + size > ENERGY_BYTES:
            yield part
            part, held = [], 0
        part.append(product)
        held += size
    if part:
        yield part


def _energies(
    simulation: Simulation, products: Sequence[Product], samples: Sequence[Feeds]
) -> dict[Product, torch.Tensor]:
    """H of each, float64 [groups, K, K]."""
    import torch

    by_name = {p.name: p for p in products}
    values = {value: by_name[name] for value, name in simulation.reads.items() if name in by_name}
    found: dict[Product, torch.Tensor] = {}
    rows = 1

    def observe(value: ir.Value, tensor: torch.Tensor) -> None:
        product = values.get(value)
        if product is None:
            return
        node = simulation.nodes[product.name]
        kernel = product.shape[2:] if node.op_type == "Conv" else ()
        x = patches(node, tensor, kernel, POSITIONS * rows)
        energy = (x.transpose(1, 2) @ x).double()
        found[product] = found[product] + energy if product in found else energy

    with torch.no_grad():
        for feeds in samples:
            rows = batch_rows(feeds)
            Interpreter(simulation.twin).run(feeds, observe)
    return found


def _rounded(
    simulation: Simulation, product: Product, candidate: Candidate, energy: torch.Tensor, order: Order
) -> Array:
    """On the grid of the candidate, with the zeros of its kind."""
    import torch

    tensor = simulation.model.graph.initializers[product.weights].const_value
    assert tensor is not None
    exact = np.asarray(tensor.numpy(), np.float32)
    bits, axis, shape = candidate.precision.weights, product.axis, _matrix_shape(simulation, product)
    moved = np.moveaxis(exact, axis, 0).shape

    def matrix(array: Array) -> torch.Tensor:
        rows = np.moveaxis(array, axis, 0).astype(np.float64)
        return torch.from_numpy(np.ascontiguousarray(rows)).reshape(shape)

    def array(rows: torch.Tensor) -> Array:
        return np.ascontiguousarray(np.moveaxis(rows.reshape(moved).numpy(), 0, axis).astype(np.float32))

    target, kept = matrix(exact), None
    sparsity = KINDS[candidate.kind].sparsity
    if sparsity is not None:
        columns = exact.shape[1] if len(product.shape) > 2 else shape[2]  # input channels of a group
        target, kept = _pruned(target, energy, sparsity, columns)
    w = exact if kept is None else array(target)
    q = weight_qparams(w, axis, bits, "auto", groups=groups_of(w.shape, axis, candidate.precision))
    scale = matrix(np.broadcast_to(q.shaped(w.shape)[0], w.shape))
    most = 2 ** (bits - 1) - 1
    grid = Grid(-1, 1, binary=True) if bits == 1 else Grid(-most, most)
    return array(integers(Problem(target, energy, scale, grid, kept), order, SWEEPS) * scale)


def _pruned(
    w: torch.Tensor, energy: torch.Tensor, sparsity: Sparsity, channels: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """As the pass `sparsify` does it: weights, and where they may be other than zero."""
    import torch

    taps = np.arange(w.shape[2]).reshape(channels, -1).T.reshape(-1)  # groups are channels at a tap
    task = Task(w, w[:, 0], w, energy, DAMPING, STEPS).ordered(taps)
    found = sparsegpt(task.target, task.energy, sparsity, DAMPING)
    assert found is not None  # H has an order, so it is not singular
    v, kept = torch.empty_like(w), torch.empty(w.shape, dtype=torch.bool)
    v[:, :, taps] = refit(task.target, *found, task.energy, DAMPING, STEPS)
    kept[:, :, taps] = found[1]
    return v, kept
