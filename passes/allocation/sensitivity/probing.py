"""One backward pass from random vectors on the outputs: what the gradient-based sensitivities share.

With y the outputs, r of independent +-1 and `L = r^T y / |y|`, the gradient g of L at any value z inside has

    E_r [(g^T dz)^2] = |J dz|^2 / |y|^2,    J = dy/dz

the relative squared error of the outputs to first order (Hutchinson's estimator). It needs no labels; J^T J is the
Hessian of the squared error at the float model, where the residual is zero and the Gauss-Newton matrix exact.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import onnx_ir as ir

from mulshift.ir import Interpreter, UnsupportedError
from mulshift.passes.allocation.candidates import Candidate
from mulshift.passes.allocation.groups import Group
from mulshift.passes.allocation.job import Bench
from mulshift.passes.calibrate import batch_rows

if TYPE_CHECKING:
    import torch

Gradients: TypeAlias = "dict[str, list[torch.Tensor]]"
"""Of each tensor, one a random vector."""


@dataclass
class Probed:
    """One forward pass and a backward pass for each random vector.

    Attributes:
        rows: length of the batch axis of the sample.
        reads: product -> what it reads.
        makes: product -> its output, before anything is added outside.
        grads: product -> gradients at its output, one a vector.
        read_grads: product -> gradients at what it reads.
        weight_grads: initializer -> gradients.
    """

    rows: int
    reads: dict[str, torch.Tensor]
    makes: dict[str, torch.Tensor]
    grads: Gradients
    read_grads: Gradients
    weight_grads: Gradients


def probe(bench: Bench, sample: int, with_weights: bool) -> Probed:
    """One sample, with the job's number of random vectors.

    Args:
        with_weights: find gradients of the weights and of what products read too.

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
        kept[(simulation.reads if kept is reads else outputs)[value]] = made
        return made

    with torch.enable_grad():
        made = Interpreter(simulation.twin, weights).run(feeds, observe)
        floats = {k: t for k, t in made.items() if t.is_floating_point() and t.requires_grad}
        if not floats:
            raise UnsupportedError("sensitivity", "no float output depends on a product", "use sensitivity 'sqnr'")
        wanted = [makes, reads, weights] if with_weights else [makes]
        flat = [t for tensors in wanted for t in tensors.values()]
        found = []
        for number in range(bench.job.probes):
            loss = _loss(floats, np.random.default_rng([bench.job.seed, sample, number]))
            more = number + 1 < bench.job.probes
            found.append(torch.autograd.grad(loss, flat, retain_graph=more, allow_unused=True))
    grads: list[Gradients] = []
    for tensors in wanted:
        start = sum(map(len, grads))
        grads.append({k: [_filled(g[start + i], t) for g in found] for i, (k, t) in enumerate(tensors.items())})
    of_makes, of_reads, of_weights = grads if with_weights else (grads[0], {}, {})
    plain = [{k: t.detach() for k, t in tensors.items()} for tensors in (reads, makes)]
    return Probed(batch_rows(feeds), plain[0], plain[1], of_makes, of_reads, of_weights)


def _filled(gradient: torch.Tensor | None, like: torch.Tensor) -> torch.Tensor:
    """Zeros where no output depends on a value."""
    import torch

    return torch.zeros_like(like) if gradient is None else gradient.detach()


def _loss(outputs: dict[str, Any], rng: np.random.Generator) -> Any:
    import torch

    total: Any = 0.0
    for tensor in outputs.values():
        signs = torch.from_numpy(rng.integers(0, 2, tuple(tensor.shape)).astype(np.float32) * 2 - 1)
        energy = max(float((tensor.detach().double() ** 2).sum()), 1e-30)
        total = total + (tensor * signs).sum() / (energy * len(outputs)) ** 0.5
    return total


def by_group(bench: Bench, value: Callable[[Group, Candidate], float]) -> dict[str, dict[str, float]]:
    """`value(group, candidate)` for all of the job that there can be."""
    return {g.name: {str(c): value(g, c) for c in bench.job.of(g)} for g in bench.job.groups}
