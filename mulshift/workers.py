"""A process of our own that measures: it prints one JSON value, or its last line says why not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from mulshift.ir import ModelError


def measured(module: str, what: str, *arguments: str | Path | float) -> Any:
    """What `python -m mulshift.MODULE ARGUMENTS` prints.

    Args:
        module: name within the package.
        what: is measured, for the error.
        arguments: as text.

    Raises:
        ModelError: it ended with an error.
    """
    command = [sys.executable, "-m", f"mulshift.{module}", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ModelError(what, f"cannot be timed ({last})")
    return json.loads(done.stdout)
