"""`mulshift replay`: the proof that the same input gives the same bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mulshift.commands.options import Json, Quiet, Traceback


def replay(
    lock: Annotated[Path, typer.Argument(help="lock.json, or the artifact's folder.", metavar="LOCK")],
    model: Annotated[str | None, typer.Option("--model", "-m", help="The model, if it has moved.")] = None,
    calibration: Annotated[
        str | None, typer.Option("--calibration", "-c", help="The calibration data, if it has moved.")
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
    traceback: Traceback = False,
) -> None:
    """Compile again what lock.json describes, and compare the bytes. Exit code 1 if they differ."""
    import mulshift.replaying
    from mulshift.commands.output import print_json, print_line
    from mulshift.progress import show_progress

    with show_progress(quiet) as progress:
        found = mulshift.replaying.replay(lock, model, calibration, progress=progress)
    if json:
        print_json({"same": found.same, "differences": found.differences})
    else:
        for line in found.differences:
            print_line(line)
        print_line("the same bytes" if found.same else "not the same bytes")
    raise typer.Exit(0 if found.same else 1)
