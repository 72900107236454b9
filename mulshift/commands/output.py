"""What commands print: tables for people, one JSON object for machines."""

from __future__ import annotations

import dataclasses
import enum
import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

PIPE_WIDTH = 200
"""Columns of a table that is not shown on a terminal."""


def print_json(data: Any) -> None:
    """One object, keys sorted, two spaces; NaN and infinity become null."""
    text = json.dumps(plain(data), indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    sys.stdout.write(text + "\n")


def print_line(text: str) -> None:
    """One line on stdout."""
    sys.stdout.write(text + "\n")


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], title: str | None = None) -> None:
    """A table on stdout; numbers to the right, None as an empty cell."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    cells = [list(row) for row in rows]
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for k, column in enumerate(columns):
        numeric = bool(cells) and all(isinstance(row[k], (int, float, type(None))) for row in cells)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in cells:
        table.add_row(*(Text(cell_text(value)) for value in row))
    width = None if sys.stdout.isatty() else PIPE_WIDTH
    Console(file=sys.stdout, width=width).print(table)


def differences_text(differences: int, elements: int, tensors: int, kernel_elements: int) -> str:
    """What a verification counted."""
    text = f"{differences} differences in {elements} numbers of {tensors} tensors"
    return text + (f", 0 in {kernel_elements} of the kernel library" if kernel_elements else "")


def cell_text(value: Any) -> str:
    """A value for a table: 4 digits of a float, nothing for None."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def plain(value: Any) -> Any:
    """Dataclasses, enums, paths, numpy numbers and arrays as what JSON holds."""
    if hasattr(value, "model_dump"):  # pydantic
        return plain(value.model_dump())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value) if f.repr}
    if isinstance(value, enum.Enum):
        return plain(value.value)
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (str, bool, int, type(None))):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, Iterable):
        return [plain(v) for v in value]
    return str(value)
