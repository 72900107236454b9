"""Stages that follow a product in one operator: plain elementwise operators on its result.

Each has the inputs and attributes of the plain operator; `add_` and `q_` come before the attribute's name.

    Add         t -> Add(t, r)            r: u8, s8 or s16, of t's shape; t's zero point is the product's own
    Table       t -> Table(t, table)      table: [256], of element type table_dtype
    Rescale     t -> Requantize(t, rescale_b, rescale_c), one a column or one; only behind the Table of a GemmPacked
    Requantize  t -> t, Requantize(t, q_b, q_c), a second output; q_b, q_c: one element
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from mulshift.ir.operators.elementwise import ADD
from mulshift.ir.operators.operator import Attributes, Operator, hand_on, signature
from mulshift.ir.operators.requantize import REQUANTIZE
from mulshift.ir.operators.table import TABLE
from mulshift.ir.types import Array

_OUTPUT = ("zero_point", "qmin", "qmax", "dtype")


@dataclass(frozen=True)
class Stage:
    """A step of the epilogue.

    Attributes:
        op: the plain operator.
        inputs: what it reads beside the result so far.
        own: attribute of the plain operator -> its name in the fused one.
        source: attribute of the plain operator that is the product's zero_point, "" for none.
        extra: attributes that only describe.
        output: what it makes.
    """

    op: Operator
    inputs: tuple[str, ...]
    own: dict[str, str]
    source: str = ""
    extra: tuple[str, ...] = ()
    output: str = "y"

    @property
    def attributes(self) -> tuple[str, ...]:
        """Their names in the fused operator."""
        return (*self.own.values(), *self.extra)

    def renamed(self, a: Attributes) -> Attributes:
        """Attributes of the plain operator out of those of the fused one."""
        source = {self.source: a["zero_point"]} if self.source else {}
        return source | {plain: a[fused] for plain, fused in self.own.items()}

    def text(self, made: str) -> str:
        """The statement that applies it to `made`."""
        source = {self.source: "zero_point"} if self.source else {}
        given = ", ".join(f"{plain}: int = @{fused}" for plain, fused in (source | self.own).items())
        attributes = f"<{given}> " if given else ""
        return f"  {self.output} = mulshift.{self.op.name} {attributes}({', '.join((made, *self.inputs))})\n"


def _prefixed(prefix: str, *names: str) -> dict[str, str]:
    return {name: f"{prefix}{name}" for name in names}


_ADDED = ("y_zero_point", "x_multiplier", "y_multiplier", "shift", *_OUTPUT)
STAGES = {
    "Add": Stage(ADD, ("r",), _prefixed("add_", *_ADDED), source="x_zero_point", output="sum"),
    "Table": Stage(TABLE, ("table",), {}, extra=("table_dtype",), output="entry"),
    "Rescale": Stage(
        REQUANTIZE, ("rescale_b", "rescale_c"), _prefixed("rescale_", "x_zero_point", *_OUTPUT), output="rescaled"
    ),
    "Requantize": Stage(REQUANTIZE, ("q_b", "q_c"), _prefixed("q_", "x_zero_point", *_OUTPUT), output="q"),
}
SECOND = "Requantize"
"""The stage that makes a second output; the others replace the first."""
_ANYWHERE = [name for name in STAGES if name != "Rescale"]
EPILOGUES = [names for size in range(1, len(_ANYWHERE) + 1) for names in combinations(_ANYWHERE, size)]
RESCALED = ("Table", "Rescale")
"""The one epilogue with a Rescale."""


def with_epilogue(
    product: Operator, attributes: Sequence[str], inputs: tuple[str, ...], epilogue: tuple[str, ...]
) -> Operator:
    """`product` inputs -> t, with these attributes, followed by stages in the order of STAGES."""
    stages = [STAGES[name] for name in epilogue]
    chain = [STAGES[name] for name in epilogue if name != SECOND]
    body, y = f"  t = mulshift.{product.name} <{hand_on(attributes)}> ({', '.join(inputs)})\n", "t"
    for stage in stages:
        body += stage.text(y)
        y = stage.output if stage in chain else y

    def reference(a: Attributes, *given: Array) -> Array:
        made, rest = product.reference(a, *given[: len(inputs)]), given[len(inputs) :]
        for stage in chain:
            own, rest = rest[: len(stage.inputs)], rest[len(stage.inputs) :]
            made = stage.op.reference(stage.renamed(a), made, *own)
        return made

    def second(a: Attributes, y: Array, *given: Array) -> Array:
        stage = STAGES[SECOND]
        return stage.op.reference(stage.renamed(a), y, *given[-len(stage.inputs) :])

    return Operator(
        name="".join((product.name, *epilogue)),
        signature=signature(
            (*attributes, *(a for s in stages for a in s.attributes)),
            (*inputs, *(i for s in stages for i in s.inputs)),
            (y, STAGES[SECOND].output) if SECOND in epilogue else (y,),
        ),
        body=body,
        reference=reference,
        calls=(product.name, *(s.op.name for s in stages)),
        second=second if SECOND in epilogue else None,
    )
