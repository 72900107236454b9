"""Candidates of a group: a format, and by what kind of kernel it runs. A new kind is a row of KINDS."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import onnx_ir as ir

from mulshift.ir import Array, UsageError
from mulshift.passes.allocation.weights import rounded_weights
from mulshift.passes.precision import ACTIVATION_BITS, WEIGHT_BITS, Precision, precision_of, set_precision
from mulshift.passes.sparsity.found import fits
from mulshift.passes.sparsity.masks import largest
from mulshift.passes.sparsity.pattern import TILE, Sparsity, set_sparsity, sparsity_of

DENSE = "dense"


@dataclass(frozen=True)
class Kind:
    """How the weights of a candidate look beyond their bits: a pattern of zeros, or none.

    Attributes:
        sparsity: see there; None for dense.
    """

    sparsity: Sparsity | None = None

    def weights(self, weight: Array, axis: int, precision: Precision) -> Array:
        """The numbers that the product multiplies with: the largest of each group stay and are rounded, float32.

        An upper bound of the loss: `sparsify` updates what stays.
        """
        if self.sparsity is not None:
            weight = np.where(largest(np.abs(weight), axis, self.sparsity), weight, 0)
        return rounded_weights(weight, axis, precision)

    def stored(self, bits: int) -> float:
        """Bits stored for each weight of so many bits: those that stay, in 8 or 4, with their 2-bit positions.

        Of the shared pattern a kernel stores positions once for each PANEL of output channels.
        """
        if self.sparsity is None:
            return bits
        positions = POSITION_BITS / (1 if self.sparsity.across == 1 else PANEL)
        return self.sparsity.density * ((8 if bits > 4 else 4) + positions)

    @property
    def density(self) -> float:
        """Share of the weights that are multiplied with."""
        return 1.0 if self.sparsity is None else self.sparsity.density

    def fits(self, shape: tuple[int, ...], axis: int, precision: Precision) -> bool:
        """Whether weights of this shape, output channels along `axis`, can be like this: one bit has no zero."""
        return self.sparsity is None or (precision.weights > 1 and fits(shape, axis, self.sparsity))

    def write(self, node: ir.Node, precision: Precision) -> None:
        """Put the decision on a node."""
        set_precision(node, precision)
        set_sparsity(node, self.sparsity)


POSITION_BITS, PANEL = 2, 16
KINDS: dict[str, Kind] = {DENSE: Kind(), **{str(s): Kind(s) for s in (Sparsity(), Sparsity(across=TILE))}}


@dataclass(frozen=True, order=True)
class Candidate:
    """`w4a8`, or `w4a8:KIND` for a kind other than dense.

    Attributes:
        precision: bits of weights and activations.
        kind: row of KINDS.
    """

    precision: Precision
    kind: str = DENSE

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UsageError("candidate", f"there is no kind '{self.kind}'", f"use {', '.join(KINDS)}")

    def __str__(self) -> str:
        return str(self.precision) if self.kind == DENSE else f"{self.precision}:{self.kind}"

    @classmethod
    def parse(cls, text: str) -> Candidate:
        """The inverse of `str`.

        Raises:
            UsageError: no such format or kind.
        """
        precision, _, kind = text.partition(":")
        return cls(Precision.parse(precision), kind or DENSE)

    def fits(self, shape: tuple[int, ...], axis: int) -> bool:
        """Whether weights of this shape can be so."""
        return KINDS[self.kind].fits(shape, axis, self.precision)


def candidate_of(node: ir.Node) -> Candidate | None:
    """What the graph says of a node; None if it says nothing of its bits."""
    precision, kind = precision_of(node), str(sparsity_of(node))
    return None if precision is None else Candidate(precision, kind if kind in KINDS else DENSE)


REFERENCE = Candidate(Precision(8, 8))
"""w8a8, dense: what relative budgets are relative to."""
DEFAULT = ("w8a8", "w4a8", "w2a8", "w8a4", "w4a4", "w2a4")

Candidates: TypeAlias = tuple[Candidate, ...]


def parse_candidates(texts: Iterable[str]) -> Candidates:
    """Candidates in order, widest first; duplicates dropped.

    Raises:
        UsageError: none, or one that there is not.
    """
    found = dict.fromkeys(Candidate.parse(text) for text in texts)
    if not found:
        raise UsageError(
            "candidates", "there are none", f"weights take {WEIGHT_BITS} bits, activations {ACTIVATION_BITS}"
        )
    return tuple(sorted(found, key=_width))


def _width(c: Candidate) -> tuple[int, int, int, float, str]:
    """Widest first; dense before patterns of the same bits."""
    return -c.precision.activations, -c.precision.weights, c.precision.group, -KINDS[c.kind].density, c.kind


def varies_activations(candidates: Candidates) -> bool:
    """Whether the candidates differ in the bits of activations."""
    return len({c.precision.activations for c in candidates}) > 1
