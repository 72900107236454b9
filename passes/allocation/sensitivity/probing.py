"""One backward pass from random vectors on the outputs: what the gradient-based sensitivities share.

With y the outputs, r of independent +-1 and `L = r^T y / |y|`, the gradient g of L at any value z inside has

    E_r [(g^T dz)^2] = |J dz|^2 / |y|^2,    J = dy/dz

the relative squared error of the outputs to first order (Hutchinson's estimator). It needs no labels, and is the Hessian
of the squared error at the float model, where the residual is zero and the Gauss-Newton matrix exact.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from mulshift.ir import Interpreter, UnsupportedError
from mulshift.passes.allocation.job import Bench
from mulshift.passes.calibrate import batch_rows

if TYPE_CHECKING:
    import torch


@dataclass
class Probe:
    """One forward and backward pass.

    Attributes:
        rows: length of the batch axis of the sample.
        reads: product -> what it reads.
        makes: product -> its output, before anything is added outside.
        grads: product -> gradient at its output.
        read_grads: product -> gradient at what it reads.
        weight_grads: initializer -> gradient.
    """

    rows: int
    reads: dict[str, torch.Tensor]
    makes: dict[str, torch.Tensor]
    grads: dict[str, torch.Tensor]
    read_grads: dict[str, torch.Tensor]
    weight_grads: dict[str, torch.Tensor]


def probe(bench: Bench, sample: int, with_weights: bool) -> Iterator[Probe]:
    """One Probe for each of the job's random vectors.

    Raises:
        UnsupportedError: a node on the way has no gradient.
    """
    import torch

    simulation, feeds = bench.simulation, bench.sample(sample)
    names = {p.weights: p for g in bench.job.groups for p in g.products}
    weights: dict[str, torch.Tensor] = {}
    for name in names if with_weights else ():
        tensor = bench.model.graph.initializers[name].const_value
        assert tensor is not None
        weights[name] = torch.tensor(np.asarray(tensor.numpy(), np.float32)).requires_grad_()
    outputs = {node.outputs[0]: name for name, node in simulation.nodes.items()}
    reads: dict[str, torch.Tensor] = {}
    makes: dict[str, torch.Tensor] = {}

    def observe(value: ir.Value, tensor: torch.Tensor) -> torch.Tensor | None:
        kept = reads if value in simulation.reads else makes if value in outputs else None
        if kept is None:
            return None
        made = tensor if tensor.requires_grad else tensor.detach().requires_grad_()
        if made.grad_fn is not None:
            made.retain_grad()
        kept[(simulation.reads if kept is reads else outputs)[value]] = made
        return made

    with torch.enable_grad():
        made = Interpreter(simulation.twin, weights).run(feeds, observe)
        floats = {k: t for k, t in made.items() if t.is_floating_point() and t.requires_grad}
        if not floats:
            raise UnsupportedError("sensitivity", "no float output depends on a product", "use sensitivity 'sqnr'")
        for number in range(bench.job.probes):
            loss = _loss(floats, np.random.default_rng([bench.job.seed, sample, number]))
            loss.backward(retain_graph=number + 1 < bench.job.probes)  # type: ignore[no-untyped-call]
            yield Probe(
                batch_rows(feeds),
                {k: t.detach() for k, t in reads.items()},
                {k: t.detach() for k, t in makes.items()},
                _taken(makes),
                _taken(reads),
                _taken(weights),
            )


def _loss(outputs: dict[str, Any], rng: np.random.Generator) -> Any:
    import torch

    total: Any = 0.0
    for tensor in outputs.values():
        signs = torch.from_numpy(rng.integers(0, 2, tuple(tensor.shape)).astype(np.float32) * 2 - 1)
        energy = max(float((tensor.detach().double() ** 2).sum()), 1e-30)
        total = total + (tensor * signs).sum() / (energy * len(outputs)) ** 0.5
    return total


def _taken(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The gradients, which are then cleared for the next probe; zeros where nothing arrived."""
    import torch

    found = {k: torch.zeros_like(t) if t.grad is None else t.grad.detach().clone() for k, t in tensors.items()}
    for tensor in tensors.values():
        tensor.grad = None
    return found


def mean_tables(tables: list[dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    """Entry by entry, in order."""
    return {g: {c: sum(t[g][c] for t in tables) / len(tables) for c in row} for g, row in tables[0].items()}


def by_group(bench: Bench, value: Callable[[Any, Any], float]) -> dict[str, dict[str, float]]:
    """`value(group, candidate)` for all of the job."""
    return {g.name: {str(c): value(g, c) for c in bench.job.candidates} for g in bench.job.groups}
