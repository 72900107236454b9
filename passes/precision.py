"""The bits of a product: of its weights and of the activations that it reads, and how the graph carries them.

`assign-precision` writes them on the nodes, `insert-fake-quant` reads them there; a recipe can name them by pattern.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import onnx_ir as ir

from mulshift.ir import UsageError

PRECISION = "mulshift.precision"
"""In `metadata_props` of a product: the text of its Precision."""
WEIGHT_BITS, ACTIVATION_BITS = (8, 4, 3, 2, 1), (8, 4)
_TEXT = re.compile(r"w(\d+)(?:g(\d+))?a(\d+)")


@dataclass(frozen=True, order=True)
class Precision:
    """`w4a8`, or `w4g32a8` for a scale for each 32 weights along the reduced axis.

    Attributes:
        weights: 8, 4, 3 (stored as 4), 2, or 1 (two values, one scale a channel).
        activations: 8 or 4, of the first operand.
        group: weights along the reduced axis that share a scale; 0 for one scale an output channel.
    """

    weights: int = 8
    activations: int = 8
    group: int = 0

    def __post_init__(self) -> None:
        fits = self.weights in WEIGHT_BITS and self.activations in ACTIVATION_BITS and self.group >= 0
        if not fits:
            remedy = f"weights take {WEIGHT_BITS} bits, activations {ACTIVATION_BITS}"
            raise UsageError("precision", f"there is no '{self}'", remedy)

    def __str__(self) -> str:
        return f"w{self.weights}{f'g{self.group}' if self.group else ''}a{self.activations}"

    @classmethod
    def parse(cls, text: str) -> Precision:
        """The inverse of `str`.

        Raises:
            UsageError: another text, or bits that there are not.
        """
        found = _TEXT.fullmatch(text.strip().lower())
        if found is None:
            raise UsageError("precision", f"'{text}' is none", "write it as 'w4a8', or 'w4g32a8' with groups of 32")
        weights, group, activations = (int(g or 0) for g in found.groups())
        return cls(weights, activations, group)


def precision_of(node: ir.Node) -> Precision | None:
    """What the graph says of a node; None if it says nothing."""
    text = node.metadata_props.get(PRECISION)
    return None if text is None else Precision.parse(text)


def set_precision(node: ir.Node, precision: Precision) -> None:
    """Say it."""
    node.metadata_props[PRECISION] = str(precision)
