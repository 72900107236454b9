"""Candidates of a group: a format, and by what kind of kernel it runs. A new kind is a row of KINDS."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias

import onnx_ir as ir

from mulshift.ir import Array, UsageError
from mulshift.passes.allocation.weights import rounded_weights
from mulshift.passes.precision import ACTIVATION_BITS, WEIGHT_BITS, Precision, set_precision

DENSE = "dense"


@dataclass(frozen=True)
class Kind:
    """How the weights of a candidate look beyond their bits.

    Attributes:
        weights: (weights, channel axis, precision) -> the numbers that the product multiplies with.
        stored: share of the weights that is stored.
        write: puts the decision on a node.
    """

    weights: Callable[[Array, int, Precision], Array]
    stored: float
    write: Callable[[ir.Node, Precision], None]


KINDS: dict[str, Kind] = {DENSE: Kind(rounded_weights, 1.0, set_precision)}


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
    return tuple(
        sorted(found, key=lambda c: (-c.precision.activations, -c.precision.weights, c.precision.group, c.kind))
    )


def varies_activations(candidates: Candidates) -> bool:
    """Whether the candidates differ in the bits of activations."""
    return len({c.precision.activations for c in candidates}) > 1
