"""Run a script of this folder in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent


class Failed(Exception):
    """A process failed; the last line that it wrote to standard error."""


def run(command: list[str]) -> str:
    """Standard output.

    Raises:
        Failed: non-zero exit status.
    """
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failed((done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1][:300])
    return done.stdout


def script(name: str, *arguments: object) -> str:
    """Run `name`.py of this folder with Python."""
    return run([sys.executable, str(HERE / f"{name}.py"), *map(str, arguments)])


def measured(name: str, *arguments: object) -> dict[str, Any]:
    """The JSON object that a script prints last."""
    found: dict[str, Any] = json.loads(script(name, *arguments).splitlines()[-1])
    return found


def loud(what: str, why: str) -> None:
    """One line that is not overlooked."""
    print(f"!! {what}: {why}", flush=True)
