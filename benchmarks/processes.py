"""Run a script of this folder in a process of its own, and see whether others disturb it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

QUIET = 0.05
HERE = Path(__file__).resolve().parent


class Failed(Exception):
    """A process failed; the last line that it wrote to standard error."""


def run(command: list[str], seconds: float | None = None) -> str:
    """Standard output.

    Args:
        seconds: to end the command after, if it is not done; None waits.

    Raises:
        Failed: non-zero exit status, or not done in time.
    """
    if seconds is not None and seconds <= 0:
        raise Failed("no time was left for it")
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds)
    except subprocess.TimeoutExpired as e:
        raise Failed(f"not done within the {seconds:.0f} s that were left for it") from e
    if done.returncode:
        raise Failed(reason(done.stderr, done.returncode))
    return done.stdout


def reason(errors: str, status: int) -> str:
    """Why a process ended: the last line that it wrote to standard error."""
    return (errors.strip().splitlines() or [f"exit status {status}"])[-1][:300]


def script(name: str, *arguments: object, seconds: float | None = None) -> str:
    """Run `name`.py of this folder with Python."""
    return run([sys.executable, str(HERE / f"{name}.py"), *map(str, arguments)], seconds)


def measured(name: str, *arguments: object, seconds: float | None = None) -> dict[str, Any]:
    """The JSON object that a script prints last."""
    found: dict[str, Any] = json.loads(script(name, *arguments, seconds=seconds).splitlines()[-1])
    return found


def loud(what: str, why: str) -> None:
    """One line that is not overlooked."""
    print(f"!! {what}: {why}", flush=True)


@contextmanager
def watched(what: str) -> Iterator[None]:
    """Say so if other processes took more than QUIET cores while `what` was timed."""
    start, foreign = time.perf_counter(), _foreign_seconds()
    yield
    cores = (_foreign_seconds() - foreign) / (time.perf_counter() - start)
    if cores > QUIET:
        loud(what, f"other work took {cores:.2f} cores of this machine meanwhile; repeat when it is quiet")


def _foreign_seconds() -> float:
    """CPU seconds since boot that processes other than ours and our children took; 0 where Linux does not tell."""
    stat = Path("/proc/stat")
    if not stat.is_file():
        return 0.0
    user, nice, system, _idle, _wait, irq, soft, steal = map(int, stat.read_text().split()[1:9])
    own = os.times()
    busy = (user + nice + system + irq + soft + steal) / os.sysconf("SC_CLK_TCK")
    return busy - own.user - own.system - own.children_user - own.children_system
