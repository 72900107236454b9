"""Patterns of zeros in the weights of a product, and how the graph carries them.

`assign-precision` and `sparsify` write them on the nodes; rounding passes keep the zeros of a node that has one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import onnx_ir as ir

from mulshift.ir import UsageError, users

SPARSITY = "mulshift.sparsity"
"""In `metadata_props` of a product: the text of its Sparsity."""
TILE = 64
"""Output channels that share a pattern."""
BLOCK = 4
"""Output channels of a block."""
_RATIO = re.compile(r"(\d+):(\d+)(:shared)?")
_BLOCKS = re.compile(r"1x4@(\d+):(\d+)")


@dataclass(frozen=True, order=True)
class Sparsity:
    """`2:4`, `2:4:shared`, or `1x4@2:4`: how many weights of how many stay, along the reduced axis (input channels).

    Attributes:
        kept: at most so many of `of` consecutive weights are not zero (ARITHMETIC.md section 6).
        of: see there.
        across: output channels that have their zeros at the same places: 1; TILE (`shared`); or BLOCK (`1x4`), where
            `kept` of `of` blocks stay in a row of blocks as a whole, wherever they are.
    """

    kept: int = 2
    of: int = 4
    across: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.kept < self.of or self.across not in (1, BLOCK, TILE):
            raise UsageError("sparsity", f"there is no '{self}'", "keep at least 1 and fewer than all, as in '2:4'")

    def __str__(self) -> str:
        ratio = f"{self.kept}:{self.of}"
        return f"1x4@{ratio}" if self.across == BLOCK else f"{ratio}:shared" if self.across == TILE else ratio

    @property
    def density(self) -> float:
        """Share of the weights that stay."""
        return self.kept / self.of

    def fits(self, channels: int) -> bool:
        """Whether so many input channels, of one group of a convolution, can have it."""
        return channels >= self.of and (channels % self.of == 0 or self.across == BLOCK)

    @classmethod
    def parse(cls, text: str) -> Sparsity:
        """The inverse of `str`.

        Raises:
            UsageError: another text, or a pattern that there is not.
        """
        given = text.strip().lower()
        if found := _RATIO.fullmatch(given):
            return cls(int(found[1]), int(found[2]), TILE if found[3] else 1)
        if found := _BLOCKS.fullmatch(given):
            return cls(int(found[1]), int(found[2]), BLOCK)
        raise UsageError("sparsity", f"'{text}' is none", "write it as '2:4', '2:4:shared' or '1x4@2:4'")


def sparsity_of(node: ir.Node) -> Sparsity | None:
    """What the graph says of a node; None if it is dense."""
    text = node.metadata_props.get(SPARSITY)
    return None if text is None else Sparsity.parse(text)


def set_sparsity(node: ir.Node, sparsity: Sparsity | None) -> None:
    """Say it; None: dense."""
    if sparsity is None:
        node.metadata_props.pop(SPARSITY, None)
    else:
        node.metadata_props[SPARSITY] = str(sparsity)


def pass_on(node: ir.Node, weights: ir.Value) -> None:
    """What is said of a node is said of those that read its weights in another form."""
    for reader in users(weights):
        set_sparsity(reader, sparsity_of(node))
