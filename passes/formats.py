"""Which integer formats each activation of a graph is needed in: u8, s8, s16, u4, from what its users ask for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import onnx_ir as ir

from mulshift.ir import ACTIVATION_S8, ACTIVATION_S16, ACTIVATION_U4, ACTIVATION_U8, QuantSpec
from mulshift.passes.quant_rules import FLOAT_RULE, Ask, Give, Rule

SPECS: dict[str, QuantSpec] = {
    "u8": ACTIVATION_U8,
    "s8": ACTIVATION_S8,
    "s16": ACTIVATION_S16,
    "u4": ACTIVATION_U4,
}
_FOUR = "u4"
_EIGHT = "8"
_ANY = "any"


@dataclass(frozen=True)
class Formats:
    """The formats of one value.

    Attributes:
        base: what its producer writes.
        others: what is derived from the base for some users.
    """

    base: str = "u8"
    others: tuple[str, ...] = ()

    def pick(self, demand: str) -> str:
        """The format that a use with this demand reads."""
        have = (self.base, *self.others)
        if demand in have:
            return demand
        narrow = [f for f in have if f not in ("s16", _FOUR)]
        return narrow[0] if demand == _EIGHT and narrow else self.base


@dataclass(frozen=True)
class Planner:
    """Answers for one graph.

    Attributes:
        rule: the row of a node, None where it stays float.
        wide: whether 16 bits are used where they are asked for.
        narrow: names of graph outputs that ask for no 16 bits.
        bits: of the first operand of a product, 8 or 4.
        four_alone: whether a value that is read in 4 bits alone is written in 4; else always derived from 8.
        mixed: base of a value needed both signed and unsigned ("s16", or "u8" for targets without 16 bits).
        only: the one format that a target reads; None for what each use asks for.
    """

    rule: Callable[[ir.Node], Rule | None]
    wide: bool
    mixed: str = "s16"
    narrow: frozenset[str] = frozenset()
    bits: Callable[[ir.Node], int] = lambda node: 8
    four_alone: bool = True
    only: str | None = None

    def plan(self, graph: ir.Graph) -> dict[ir.Value, Formats]:
        """Formats of all graph inputs and node outputs, users before producers."""
        found: dict[ir.Value, Formats] = {}
        for node in reversed(graph):
            found.update((v, self._formats(v, found)) for v in node.outputs)
        found.update((v, self._formats(v, found)) for v in graph.inputs)
        return found

    def demand(self, node: ir.Node, index: int, found: dict[ir.Value, Formats]) -> str:
        """What one input of a node has to be: a format, "8" (either 8-bit format) or "any"."""
        rule, ask = self.rule(node) or FLOAT_RULE, self._ask(node, index)
        if rule.gives is not Give.OWN and ask in (Ask.ANY, Ask.NARROW):
            return found[node.outputs[0]].base if node.outputs[0] in found else _ANY
        if ask is Ask.U8 and index == 0 and self.bits(node) == 4:
            return _FOUR
        wide = "s16" if self.wide else _ANY
        return {Ask.U8: "u8", Ask.WEIGHT: "s8", Ask.WIDE: wide, Ask.NARROW: _EIGHT}.get(ask, _ANY)

    def _ask(self, node: ir.Node, index: int) -> Ask:
        return (self.rule(node) or FLOAT_RULE).ask(index)

    def _formats(self, value: ir.Value, found: dict[ir.Value, Formats]) -> Formats:
        if self.only is not None:
            return Formats(self.only)
        asked = {self.demand(u.node, u.idx, found) for u in value.uses() if self._ask(u.node, u.idx) is not Ask.PLAIN}
        if value.is_graph_output() and self.wide and value.name not in self.narrow:
            asked.add("s16")
        producer = value.producer()
        rule = None if producer is None else self.rule(producer)
        if asked == {_FOUR} and not value.is_graph_output() and self.four_alone:
            return Formats(_FOUR)
        four = (_FOUR,) if _FOUR in asked else ()
        asked.discard(_FOUR)
        if rule is not None and not rule.wide:
            asked.discard("s16")
        have = [f for f in SPECS if f in asked]
        if not have or (have == ["s16"] and _EIGHT in asked):
            have.insert(0, "u8")
        if len(have) == 1:
            return Formats(have[0], four)
        can_mix = self.mixed if rule is None or rule.wide else "u8"
        base = "s16" if "s16" in have else can_mix
        return Formats(base, (*(f for f in have if f != base), *four))
