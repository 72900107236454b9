"""A FLOAT graph with some of its products rounded: weights through overrides, what they read in the interpreter."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import onnx_ir as ir

from mulshift.ir import Array, Feeds, Interpreter, QuantSpec, get_range
from mulshift.ir.evaluate import Evaluator, constant_tensor
from mulshift.passes.allocation.candidates import KINDS, Candidate
from mulshift.passes.allocation.groups import Group, Product
from mulshift.passes.quant_rules import rule_of
from mulshift.passes.scales import activation_qparams

if TYPE_CHECKING:
    import torch

Range = tuple[float, float]
Weights = Callable[[Product, Candidate], Array]
"""The numbers that a product multiplies with under a candidate."""


def ranges_of(graph: ir.Graph, products: list[Product]) -> dict[str, Range]:
    """The calibrated range of what each product reads, by product name; without one nothing is rounded there."""
    values = {str(v.name): v for v in graph.inputs} | {str(v.name): v for n in graph for v in n.outputs}
    found: dict[str, Range] = {}
    for product in products:
        value = values[product.source]
        node = value.producer()
        rule = None if node is None else rule_of(node)
        limits = get_range(value) if rule is None or rule.limits is None else rule.limits
        if limits is not None:
            found[product.name] = limits
    return found


def rounded_activation(x: torch.Tensor, limits: Range, bits: int) -> torch.Tensor:
    """`s * (clamp(round(x / s) + z) - z)`, unsigned, one scale a tensor."""
    import torch

    q = activation_qparams(*limits, QuantSpec(bits, signed=False, symmetric=False))
    scale, zero = float(q.scale), float(q.zero_point)
    return (torch.clamp(torch.round(x / scale) + zero, q.spec.qmin, q.spec.qmax) - zero) * scale


@dataclass
class Simulation:
    """Runs a copy of one model under any assignment.

    Attributes:
        model: FLOAT level; a copy is made, with an Identity before the first operand of each product.
        groups: of its products.
        ranges: as `ranges_of`.
        weights: rounded weights; None computes them.
    """

    model: ir.Model
    groups: tuple[Group, ...]
    ranges: Mapping[str, Range]
    weights: Weights | None = None
    twin: ir.Model = field(init=False, repr=False)
    nodes: dict[str, ir.Node] = field(default_factory=dict, init=False, repr=False)
    reads: dict[ir.Value, str] = field(default_factory=dict, init=False, repr=False)
    evaluator: Evaluator = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.twin = self.model.clone()
        self.evaluator = Evaluator(self.twin)
        names = {p.name for group in self.groups for p in group.products}
        for node in list(self.twin.graph):
            if node.name in names:
                self.nodes[str(node.name)] = node
                self.reads[_own_operand(self.twin.graph, node)] = str(node.name)

    def run(self, feeds: Feeds, assignment: Mapping[str, Candidate]) -> dict[str, torch.Tensor]:
        """Outputs with the groups that `assignment` names rounded, the others in float."""
        return self.interpreter(assignment).run(feeds, self.observer(assignment))

    def interpreter(self, assignment: Mapping[str, Candidate]) -> Interpreter:
        """With the weights of the assignment."""
        import torch

        made: dict[str, torch.Tensor] = {}
        for group in self.groups:
            if group.name in assignment:
                for name, product in group.weights().items():
                    made[name] = torch.tensor(self.weight(product, assignment[group.name]))
        return Interpreter(self.twin, made)

    def observer(self, assignment: Mapping[str, Candidate]) -> Callable[[ir.Value, torch.Tensor], torch.Tensor | None]:
        """Rounds what the products of the assignment read."""
        bits = {
            p.name: assignment[g.name].precision.activations
            for g in self.groups
            if g.name in assignment
            for p in g.products
        }

        def observe(value: ir.Value, tensor: torch.Tensor) -> torch.Tensor | None:
            name = self.reads.get(value)
            return None if name not in bits else self.activation(name, tensor, bits[name])

        return observe

    def activation(self, product: str, x: torch.Tensor, bits: int) -> torch.Tensor:
        """What a product reads, with so many bits."""
        limits = self.ranges.get(product)
        return x if limits is None else rounded_activation(x, limits, bits)

    def constant(self, value: ir.Value) -> torch.Tensor:
        """A constant of the graph."""
        return constant_tensor(value)

    def weight(self, product: Product, candidate: Candidate) -> Array:
        """What a product multiplies with."""
        if self.weights is not None:
            return self.weights(product, candidate)
        return round_product(self.model, product, candidate)


def round_product(model: ir.Model, product: Product, candidate: Candidate) -> Array:
    """The weights of a product as the candidate has them, float32."""
    tensor = model.graph.initializers[product.weights].const_value
    assert tensor is not None
    return KINDS[candidate.kind].weights(tensor.numpy(), product.axis, candidate.precision)


def _own_operand(graph: ir.Graph, node: ir.Node) -> ir.Value:
    x = node.inputs[0]
    assert x is not None
    own = ir.Value(name=f"{node.name}/read", type=x.type, shape=x.shape)
    graph.insert_before(node, ir.node("Identity", [x], outputs=[own], name=f"{node.name}/reads"))
    node.replace_input_with(0, own)
    return own
