"""QDQ graph -> INTEGER graph: dyadic arithmetic between the borders, every accumulator proven (ARITHMETIC.md).

Each QuantizeLinear asks for an integer tensor; the operator in front of it, its fused clamp included, becomes a
`mulshift::` operator that ends in that quantization. Operators that move integers are moved as they come. What has no
integer form stays float between DequantizeLinear and QuantizeLinear and says why.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import onnx_ir as ir

from mulshift.ir import Level, UnsupportedError, UsageError, attach, describe, get_level, set_level
from mulshift.ir.levels import FLOAT_REASON
from mulshift.passes.base import Contract, Pass
from mulshift.passes.integer import MOVERS, RULES
from mulshift.passes.integer.borders import integer_inputs, integer_outputs
from mulshift.passes.integer.finish import drop_unused_initializers, finish
from mulshift.passes.integer.forms import FREE
from mulshift.passes.integer.lowering import ASSUMES, Lowering
from mulshift.passes.integer.walk import walk


@dataclass
class ToInteger(Pass):
    """Lower to integers.

    Attributes:
        float_islands: "report" leaves what has no integer form in float, logged and marked; "forbid" raises.
        integer_inputs, integer_outputs: names, or patterns with *, of graph inputs and outputs that hold integers in
            the compiled model, at the scale that `get_qparams` reads off them; a cache that a step hands to the next.
        widths: "auto" shortens a mantissa where 32 bits then hold the product at no cost; "wide" keeps 31 bits.

    Raises:
        AccumulatorOverflowError: an int32 accumulator cannot be proven safe.
        UsageError: no input or output has a name that was given.
        UnsupportedError: there is a float island and `float_islands` is "forbid".
    """

    name: ClassVar[str] = "to-integer"
    contract: ClassVar[Contract] = Contract.LOSSY
    float_islands: Literal["report", "forbid"] = "report"
    widths: Literal["auto", "wide"] = "auto"
    integer_inputs: Sequence[str] = ()
    integer_outputs: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.float_islands not in ("report", "forbid"):
            raise UsageError("to-integer", f"float_islands '{self.float_islands}'", "it is 'report' or 'forbid'")
        if self.widths not in ("auto", "wide"):
            raise UsageError("to-integer", f"widths '{self.widths}'", "it is 'auto' or 'wide'")

    def rewrite(self, model: ir.Model) -> None:
        """See the module."""
        if get_level(model) == Level.INTEGER:
            return
        low = Lowering(model, RULES, MOVERS, FREE if self.widths == "auto" else -1.0)
        walk(low)
        islands = finish(low)
        for node, reason in islands:
            node.metadata_props[FLOAT_REASON] = reason
            self.skipped(node, reason)
        if islands and self.float_islands == "forbid":
            node, reason = islands[0]
            more = f" and {len(islands) - 1} more" if len(islands) > 1 else ""
            raise UnsupportedError(describe(node) + more, reason, "allow it with --float-islands report")
        integer_inputs(self, model, self.integer_inputs)
        integer_outputs(self, model, self.integer_outputs)
        drop_unused_initializers(model.graph)
        for node in model.graph:
            if node.domain == "mulshift":
                assumed = node.metadata_props.get(ASSUMES)
                self.changed(node, f"integer {node.op_type}" + (f", given {assumed}" if assumed else ""))
        attach(model)
        set_level(model, Level.INTEGER)
