"""The products of a FLOAT graph whose bits can be chosen, in groups that must share a format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import prod

import onnx_ir as ir

from mulshift.ir import constant
from mulshift.passes.allocation.candidates import DENSE, Candidate, Candidates, varies_activations
from mulshift.passes.quant_rules import Give, channel_axis, product_of_bias, rule_of, turned_weight

PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


@dataclass(frozen=True)
class Product:
    """One node that multiplies an activation by constant weights.

    Attributes:
        name: of the node.
        weights: name of the initializer.
        shape: of the initializer.
        axis: its axis of output channels.
        source: name of the value whose integers the node reads: its first operand, before what only moves elements.
    """

    name: str
    weights: str
    shape: tuple[int, ...]
    axis: int
    source: str

    @property
    def size(self) -> int:
        """Number of weights."""
        return prod(self.shape)


@dataclass(frozen=True)
class Group:
    """Products that share a format, in the order of the graph; named after the first."""

    products: tuple[Product, ...]

    @property
    def name(self) -> str:
        """That of its first product."""
        return self.products[0].name

    def may_have(self, candidate: Candidate) -> bool:
        """Whether the weights of all its products can be so; those that several read stay dense."""
        alone = candidate.kind == DENSE or len(self.weights()) == len(self.products)
        return alone and all(candidate.fits(p.shape, p.axis) for p in self.products)

    def weights(self) -> Mapping[str, Product]:
        """One product for each initializer."""
        return {p.weights: p for p in reversed(self.products)}


def find_products(graph: ir.Graph, skip: Sequence[str] = ()) -> list[Product]:
    """Conv, ConvTranspose, Gemm and MatMul by constant float weights, in order.

    Args:
        graph: FLOAT level.
        skip: names of nodes, or patterns with *, to leave out.
    """
    found = [_product(n) for n in graph if not any(fnmatchcase(str(n.name), pattern) for pattern in skip)]
    return [p for p in found if p is not None]


def group_products(products: Sequence[Product], candidates: Candidates) -> tuple[Group, ...]:
    """Products that read the same weights share a format; those that read the same integers share their bits.

    The second ties only if the candidates differ in the bits of activations.
    """
    tied = varies_activations(candidates)
    parent = list(range(len(products)))

    def root(i: int) -> int:
        while parent[i] != i:
            i = parent[i]
        return i

    first: dict[tuple[str, str], int] = {}
    for i, p in enumerate(products):
        for key in (("weights", p.weights), *((("source", p.source),) if tied else ())):
            a, b = root(first.setdefault(key, i)), root(i)
            parent[max(a, b)] = min(a, b)
    members: dict[int, list[Product]] = {}
    for i, p in enumerate(products):
        members.setdefault(root(i), []).append(p)
    return tuple(Group(tuple(group)) for group in members.values())


def integer_names(graph: ir.Graph) -> dict[str, str]:
    """Product -> node that it becomes in integers: a MatMul whose bias an Add brings takes the Add's name.

    Args:
        graph: FLOAT level.
    """
    found = {str(n.name): str(n.name) for n in graph if n.op_type in PRODUCTS}
    for node in graph:
        product = product_of_bias(node)
        if product is not None:
            found[str(product.name)] = str(node.name)
    return found


def _product(node: ir.Node) -> Product | None:
    if node.domain not in ("", "ai.onnx") or node.op_type not in PRODUCTS or rule_of(node) is None:
        return None
    given, x = node.inputs[1], node.inputs[0]
    turn = turned_weight(given)
    value = given if turn is None else turn.inputs[0]
    array = constant(value)
    fits = value is not None and array is not None and array.dtype.kind == "f" and array.ndim >= 2
    if x is None or constant(x) is not None or not fits:
        return None
    assert value is not None and array is not None
    axis = channel_axis(node, array.ndim)
    return Product(str(node.name), str(value.name), array.shape, axis if turn is None else 1 - axis, _source(x))


def _source(value: ir.Value) -> str:
    """The value whose scale this one has: movers hand integers on."""
    while True:
        node = value.producer()
        rule = None if node is None else rule_of(node)
        if node is None or rule is None or rule.gives is not Give.SAME or node.inputs[0] is None:
            return str(value.name)
        value = node.inputs[0]
