"""A table of criteria made of parts, each a script: run within a deadline, or the reason why there is no result."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import models
from processes import Failed, loud, measured
from rows import Row, finish, show


class Part:
    """One script that prints a JSON object.

    Attributes:
        command: path below this folder without its ending, and arguments.
        found: the object.
        why: there is none; empty if there is.
    """

    def __init__(self, name: str, *arguments: object, quick: bool) -> None:
        self.command = (name, *arguments, *(["--quick"] if quick else []))
        self.found: dict[str, Any] = {}
        self.why = "not run"

    def run(self, deadline: float) -> None:
        """Until a time of `time.perf_counter`."""
        title, started = " ".join(map(str, self.command)), time.perf_counter()
        try:
            self.found = measured(*self.command, seconds=deadline - started)
            self.why = self.found.get("left_out", "")
            print(f"{title}: {time.perf_counter() - started:.0f} s{f' ({self.why})' if self.why else ''}", flush=True)
        except Failed as e:
            self.why = str(e)
            loud(title, self.why)

    @property
    def ready(self) -> bool:
        """Whether it measured what it is for."""
        return bool(self.found) and "left_out" not in self.found


def print_table(about: str | None, measure: Callable[[bool], tuple[list[Row], list[str]]], foot: str) -> int:
    """The command line of a script of parts: a line a criterion, more below them; the exit status.

    Args:
        about: the script's docstring.
        measure: takes `--quick`, gives the rows and the lines below.
        foot: what stands at the end.
    """
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--quick", action="store_true", help="score what is kept, time once, under 5 minutes")
    parser.add_argument("--json", metavar="FILE", help="write the rows as JSON")
    options = parser.parse_args()
    if models.available():
        raise SystemExit(models.available())
    rows, lines = measure(options.quick)
    print()
    for row in rows:
        print(show(row))
    print("\n".join(["", *lines]) + foot)
    return finish(rows, options.json)
