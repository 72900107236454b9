"""What a pass is: a dataclass over onnx_ir's pass protocol, with a name, a contract and a log of what it did."""

from __future__ import annotations

import enum
from abc import abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

import onnx_ir as ir

from mulshift.ir import describe


class Contract(enum.StrEnum):
    """What a pass promises about the numbers of the graph it leaves."""

    EXACT = "EXACT"
    """Bit for bit the same outputs."""
    CLOSE = "CLOSE"
    """The same function, floating point reassociated."""
    LOSSY = "LOSSY"
    """Different on purpose; measured and reported."""


@dataclass(frozen=True)
class Note:
    """One thing that a pass did or declined to do.

    Attributes:
        where: the node in the user's names.
        what: what changed, or why nothing did.
    """

    where: str
    what: str


@dataclass
class Log:
    """What a pass changed and what it left alone, with reasons."""

    changed: list[Note] = field(default_factory=list)
    skipped: list[Note] = field(default_factory=list)


@dataclass
class Pass(ir.passes.InPlacePass):
    """Base of all passes. A subclass has fields for its options and implements `rewrite`.

    Attributes:
        name: what a user types.
        contract: what it promises.
        log: filled by each call, emptied at the start of the next.
    """

    name: ClassVar[str]
    contract: ClassVar[Contract]
    log: Log = field(default_factory=Log, init=False, repr=False, compare=False)

    @abstractmethod
    def rewrite(self, model: ir.Model) -> None:
        """Change the model in place; report through `changed` and `skipped`."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Run on the model (onnx_ir's protocol); `modified` tells whether anything changed."""
        self.log = Log()
        self.rewrite(model)
        return ir.passes.PassResult(model, modified=bool(self.log.changed))

    def changed(self, where: ir.Node | str, what: str) -> None:
        """Record a rewrite."""
        self.log.changed.append(Note(_name(where), what))

    def skipped(self, where: ir.Node | str, why: str) -> None:
        """Record a match that was declined, and why."""
        self.log.skipped.append(Note(_name(where), why))


def _name(where: ir.Node | str) -> str:
    return where if isinstance(where, str) else describe(where)
