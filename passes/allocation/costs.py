"""What an assignment costs: size, bit-operations, latency. One row a cost; each adds up over groups."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING

import onnx_ir as ir

from mulshift.ir import Feeds, Interpreter, UsageError
from mulshift.passes.allocation.candidates import KINDS, REFERENCE, Candidate
from mulshift.passes.allocation.groups import Group, Product
from mulshift.passes.allocation.weights import multipliers

if TYPE_CHECKING:
    import torch

MULTIPLIER_BYTES = 1
LATENCY = "latency"


@dataclass(frozen=True)
class Latencies:
    """Times of the very kernels, as `mulshift profile` measures them.

    Attributes:
        seconds: product -> candidate -> seconds of one run.
        model: seconds of the whole model with all products at 8 bits.
    """

    seconds: Mapping[str, Mapping[str, float]]
    model: float


@dataclass(frozen=True)
class Facts:
    """What costs are made from.

    Attributes:
        macs: product -> multiply-accumulates of one sample.
        latencies: None if nothing was timed.
    """

    macs: Mapping[str, int]
    latencies: Latencies | None = None


@dataclass(frozen=True)
class Cost:
    """A row.

    Attributes:
        unit: of the numbers.
        of: (group, candidate, facts) -> its share.
        offset: what is there whatever is chosen.
    """

    unit: str
    of: Callable[[Group, Candidate, Facts], float]
    offset: Callable[[tuple[Group, ...], Facts], float] = field(default=lambda groups, facts: 0.0)


def weight_bytes(group: Group, candidate: Candidate, facts: Facts) -> float:
    """Bytes of the packed weights, positions too, and of scales beside the one that each output channel has anyway."""
    total = 0.0
    for product in group.weights().values():
        bits = 4 if candidate.precision.weights == 3 else candidate.precision.weights
        total += -(-int(product.size * KINDS[candidate.kind].stored(bits)) // 8)
        total += MULTIPLIER_BYTES * multipliers(product.shape, product.axis, candidate.precision)
    return total


def bit_operations(group: Group, candidate: Candidate, facts: Facts) -> float:
    """Multiply-accumulates x weight bits x activation bits; none for weights that a pattern leaves out."""
    p = candidate.precision
    share = KINDS[candidate.kind].density
    return float(sum(facts.macs.get(product.name, 0) for product in group.products) * p.weights * p.activations * share)


def latency(group: Group, candidate: Candidate, facts: Facts) -> float:
    """Seconds of the group's kernels."""
    times = _latencies(facts).seconds
    return sum(
        times[p.name].get(str(candidate), times[p.name][str(REFERENCE)]) for p in group.products if p.name in times
    )


def _other_latency(groups: tuple[Group, ...], facts: Facts) -> float:
    """Seconds of the model outside these kernels: measured model less measured kernels."""
    return _latencies(facts).model - sum(latency(group, REFERENCE, facts) for group in groups)


def _latencies(facts: Facts) -> Latencies:
    if facts.latencies is None:
        raise UsageError("latency", "nothing was timed", "run `mulshift profile`, or leave the budget out")
    return facts.latencies


COSTS: dict[str, Cost] = {
    "size": Cost("B", weight_bytes),
    "bops": Cost("", bit_operations),
    LATENCY: Cost("s", latency, _other_latency),
}


def count_macs(model: ir.Model, products: list[Product], feeds: Feeds) -> dict[str, int]:
    """Multiply-accumulates of each product on one sample."""
    import torch

    wanted = {p.name: p for p in products}
    shapes: dict[ir.Value, tuple[int, ...]] = {}
    found: dict[str, int] = {}

    def observe(value: ir.Value, tensor: torch.Tensor) -> None:
        shapes[value] = tuple(tensor.shape)
        node = value.producer()
        if node is None or node.name not in wanted or node.inputs[0] is None:
            return
        product, x = wanted[str(node.name)], shapes[node.inputs[0]]
        per_output = prod(product.shape[1:]) if node.op_type == "Conv" else x[-1]
        made = prod(x) * prod(product.shape[1:]) if node.op_type == "ConvTranspose" else prod(tensor.shape) * per_output
        found[product.name] = made

    with torch.no_grad():
        Interpreter(model).run(feeds, observe)
    return found
