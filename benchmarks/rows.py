"""One line a criterion: what was measured, the bound, `ok` or `short`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Row:
    """A criterion.

    Attributes:
        criterion: what is measured, with its unit.
        value: what was seen.
        bound: what must hold, e.g. "<= 0.75".
        ok: whether it does.
    """

    criterion: str
    value: str
    bound: str
    ok: bool


def at_most(criterion: str, value: float, bound: float, form: str = ".2f") -> Row:
    """value <= bound."""
    return Row(criterion, f"{value:{form}}", f"<= {bound:{form}}", value <= bound)


def at_least(criterion: str, value: float, bound: float, form: str = ".2f") -> Row:
    """value >= bound."""
    return Row(criterion, f"{value:{form}}", f">= {bound:{form}}", value >= bound)


def missing(criterion: str, bound: str) -> Row:
    """Nothing could be measured, which is short."""
    return Row(criterion, "-", bound, False)


def exactly(criterion: str, value: int, bound: int = 0) -> Row:
    """value == bound, integers."""
    return Row(criterion, str(value), f"== {bound}", value == bound)


def show(row: Row) -> str:
    """The row as one line."""
    return f"{row.criterion:<78} {row.value:>12}  {row.bound:<14} {'ok' if row.ok else 'short'}"


def finish(rows: Iterable[Row], json_file: str | None) -> int:
    """Write the table for machines if asked for; 1 if any row is short, else 0."""
    table = list(rows)
    if json_file:
        Path(json_file).write_text(json.dumps([asdict(row) for row in table], indent=2) + "\n")
    return 0 if all(row.ok for row in table) else 1
