"""`mulshift targets`: what an artifact can be made for."""

from __future__ import annotations

from mulshift.commands.options import Json, Traceback


def targets(json: Json = False, traceback: Traceback = False) -> None:
    """List the targets: name, backend, form of the graph, and a note."""
    from mulshift.backends import TARGETS
    from mulshift.commands.output import print_json, print_table

    found = list(TARGETS.values())
    if json:
        print_json({"targets": found})
        return
    print_table(("target", "backend", "level", "note"), [(t.name, t.backend, str(t.level), t.note) for t in found])
