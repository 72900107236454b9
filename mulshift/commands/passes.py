"""`mulshift passes`: what can stand in a recipe."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from mulshift.commands.options import Json, Traceback

if TYPE_CHECKING:
    from mulshift.passes import Pass


def passes(json: Json = False, traceback: Traceback = False) -> None:
    """List the passes: name, contract, what each does, options and their defaults."""
    from mulshift.commands.output import print_json, print_table
    from mulshift.passes import PASSES

    rows = [_row(name, cls) for name, cls in PASSES.items()]
    if json:
        print_json({"passes": rows})
        return
    shown = [(r["name"], r["contract"], r["does"], _told(r["options"])) for r in rows]
    print_table(("pass", "contract", "what it does", "options"), shown)


def _row(name: str, cls: type[Pass]) -> dict[str, Any]:
    from mulshift.passes.recipe import INJECTED

    options = {f.name: _default(f) for f in dataclasses.fields(cls) if f.init and f.name not in INJECTED}
    lines = (cls.__doc__ or "").strip().splitlines()
    return {"name": name, "contract": str(cls.contract), "does": lines[0] if lines else "", "options": options}


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    return field.default_factory() if field.default_factory is not dataclasses.MISSING else None


def _told(options: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in options.items())
