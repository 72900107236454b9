"""`mulshift recipes`: the named recipes, and the text of one."""

from __future__ import annotations

from typing import Annotated

import typer

from mulshift.commands.options import Json, Traceback


def recipes(
    name: Annotated[
        str | None, typer.Argument(help="Print this recipe as YAML, to start your own from.", metavar="NAME")
    ] = None,
    json: Json = False,
    traceback: Traceback = False,
) -> None:
    """List the recipes that ship with mulshift, or print one."""
    from mulshift.commands.output import print_json, print_line, print_table
    from mulshift.passes.recipe import load_recipe, recipe_names

    found = [load_recipe(n) for n in ([name] if name else recipe_names())]
    if json:
        print_json({"recipes": [r.model_dump(by_alias=True) for r in found]})
    elif name:
        print_line(found[0].text().rstrip("\n"))
    else:
        rows = [(r.name, r.description, " ".join(step.name for step in r.passes)) for r in found]
        print_table(("recipe", "description", "passes"), rows)
