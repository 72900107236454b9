"""Time processes in turns of some hundredths of a second: what slows the machine for longer slows all of them.

Each side is a process of its own that ends in `served.serve`; all of a group are started together, and those that are
not at turn are stopped, so that no thread of theirs spins meanwhile. The best turn of each counts. A side that takes
HOPELESS times as long as the fastest peer in its first turns will not become the fastest: it sits out the others.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import IO, Any

from processes import HERE, Failed, reason

TURN_SECONDS, HOPELESS, TRIED = 0.04, 1.6, 2
START_SECONDS = 300.0


@dataclass
class Side:
    """A script of this folder and its arguments.

    Attributes:
        seen: the best of its turns; of bytes the most.
        why: there is nothing; empty while all is well.
    """

    script: str
    arguments: Sequence[object]
    seen: dict[str, float] = field(default_factory=dict)
    why: str = ""
    _process: subprocess.Popen[str] | None = None
    _errors: IO[str] | None = None

    def start(self) -> None:
        """Until it has warmed up."""
        command = [sys.executable, str(HERE / f"{self.script}.py"), *map(str, self.arguments)]
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (open until the end)
        pipe = subprocess.PIPE
        # In a group of its own: one that is stopped when we die gets SIGHUP and SIGCONT from the system, and ends.
        streams: dict[str, Any] = {"stdin": pipe, "stdout": pipe, "stderr": self._errors, "process_group": 0}
        self._process = subprocess.Popen(command, text=True, **streams)
        self._keep(self._answer())
        self._stop()

    def turn(self, seconds: float) -> None:
        self._go_on()
        assert self._process and self._process.stdin
        try:
            self._process.stdin.write(f"{seconds}\n")
            self._process.stdin.flush()
        except OSError:  # it ended; the answer says why
            pass
        self._keep(self._answer())
        self._stop()

    def end(self) -> None:
        """Its last answer, if it gives one."""
        if not self._process:
            return
        self._go_on()
        try:
            rest, _ = self._process.communicate(timeout=START_SECONDS)
            for line in rest.splitlines():
                self._keep(json.loads(line))
        except (subprocess.TimeoutExpired, ValueError, OSError) as e:
            self.why = self.why or str(e)
            self._process.kill()
            self._process.communicate()
        if self._errors:
            self._errors.close()
        self._process = None

    def _answer(self) -> dict[str, Any]:
        assert self._process and self._process.stdout and self._errors
        line = self._process.stdout.readline()
        if line:
            found: dict[str, Any] = json.loads(line)
            return found
        self._process.wait()
        self._errors.seek(0)
        self.why = reason(self._errors.read(), self._process.returncode)
        return {}

    def _keep(self, found: Mapping[str, float]) -> None:
        for name, value in found.items():
            keep = max if name == "bytes" else min
            self.seen[name] = keep(value, self.seen.get(name, value))

    def _stop(self) -> None:
        self._signal("SIGSTOP")

    def _go_on(self) -> None:
        self._signal("SIGCONT")

    def _signal(self, name: str) -> None:
        if self._process and self._process.poll() is None and hasattr(signal, name):
            os.kill(self._process.pid, getattr(signal, name))


def take_turns(
    sides: Mapping[str, Side], seconds: float, peers: Iterable[str] = (), turn: float = TURN_SECONDS
) -> None:
    """Start all, let them run in turns for about `seconds` in all, end them.

    Args:
        peers: of which the fastest tells who is hopeless; nobody is without them.
        turn: seconds of one.
    """
    peers = list(peers)
    with ExitStack() as ends, ThreadPoolExecutor(2) as pool:
        for side in sides.values():
            ends.callback(side.end)
        list(pool.map(Side.start, sides.values()))
        number, end = 0, time.perf_counter() + seconds
        while number < TRIED or time.perf_counter() < end:
            limit = HOPELESS * min((_best(sides[name]) for name in peers if name in sides), default=float("inf"))
            for side in sides.values():
                if not side.why and (number < TRIED or _best(side) <= limit):
                    side.turn(turn)
            number += 1
            if all(side.why for side in sides.values()):
                break


def _best(side: Side) -> float:
    return side.seen.get("milliseconds", float("inf"))


def milliseconds(sides: Mapping[str, Side], seconds: float, rounds: int) -> dict[str, float]:
    """The best of each side over some rounds of turns, each in new processes.

    Raises:
        Failed: a side did.
    """
    for _ in range(rounds):
        take_turns(sides, seconds)
        for name, side in sides.items():
            if side.why:
                raise Failed(f"{name}: {side.why}")
    return {name: side.seen["milliseconds"] for name, side in sides.items()}
