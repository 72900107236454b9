"""A script of a measurement as one part of a table: run within a deadline, or the reason why there is no result."""

from __future__ import annotations

import time
from typing import Any

from processes import Failed, loud, measured


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
