"""Which precision each product by constants has: what its node says, else the first pattern that its name fits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import onnx_ir as ir

from mulshift.ir import UsageError, attribute
from mulshift.passes.precision import Precision, precision_of


@dataclass(frozen=True)
class ProductBits:
    """The precisions of one graph's products.

    Attributes:
        of_node: by node, products by constants alone.
    """

    of_node: Mapping[ir.Node, Precision] = field(default_factory=dict)

    @classmethod
    def of(cls, nodes: Iterable[ir.Node], patterns: Mapping[str, str], default: Precision) -> ProductBits:
        """The precisions of these products: metadata before patterns, in their order, before the default.

        Raises:
            UsageError: a pattern that fits no product, or a text that is no precision.
        """
        products = list(nodes)
        parsed = {pattern: Precision.parse(text) for pattern, text in patterns.items()}
        for pattern in parsed:
            if not any(fnmatchcase(str(n.name), pattern) for n in products):
                raise UsageError(
                    "insert-fake-quant",
                    f"no product by constants is called '{pattern}'",
                    f"there is {_some(str(n.name) for n in products)}",
                )

        def find(node: ir.Node) -> Precision:
            fits = (p for pattern, p in parsed.items() if fnmatchcase(str(node.name), pattern))
            return precision_of(node) or next(fits, default)

        return cls({node: find(node) for node in products})

    def activations(self, node: ir.Node) -> int:
        """Bits of a node's first operand; 8 where it is no product by constants."""
        return self.of_node[node].activations if node in self.of_node else 8

    def weights(self, nodes: Iterable[ir.Node]) -> Precision:
        """What several readers of one weight agree on: the largest bits asked, in the smallest groups; else 8 bits."""
        asked = [self.of_node[node] for node in nodes if node in self.of_node]
        return max(asked, default=Precision(), key=lambda p: (p.weights, p.group > 0, -p.group))


def group_axis(node: ir.Node, shape: tuple[int, ...], group: int, channels: int) -> tuple[int, str]:
    """The axis of a product's weights that groups divide, and why they cannot (empty if they can).

    Along input channels: a group of a convolution's weights are neighbours at one position of the kernel.

    Args:
        node: the product.
        shape: of its weights.
        group: weights in a group.
        channels: axis of the output channels.
    """
    if node.op_type == "ConvTranspose" and attribute(node, "group", 1) != 1:
        return 0, "the channels of a grouped ConvTranspose have no groups of weights"
    if len(shape) > 2 and node.op_type not in ("Conv", "ConvTranspose"):
        return 0, "a batch of matrices has no groups of weights"
    axis = 1 - channels
    few = f"{shape[axis]} inputs are no more than a group of {group}, so its weights have one scale a channel"
    return axis, few if shape[axis] <= group else ""


def _some(names: Iterable[str]) -> str:
    known = list(names)
    return ", ".join(known[:5]) + (f" and {len(known) - 5} more" if len(known) > 5 else "") or "none"
