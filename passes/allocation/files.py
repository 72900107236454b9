"""Files that are there whole or not at all, and journals that survive a kill."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from mulshift.ir import OutputError


def write_whole(path: Path, content: str | Callable[[BinaryIO], None]) -> None:
    """Write a file under another name and rename it.

    Raises:
        OutputError: it cannot be written.
    """
    staging = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, staging = tempfile.mkstemp(dir=path.parent, prefix=".staging-")
        with os.fdopen(handle, "wb") as file:
            if isinstance(content, str):
                file.write(content.encode())
            else:
                content(file)
        os.replace(staging, path)
    except OSError as e:
        if staging:
            Path(staging).unlink(missing_ok=True)
        raise OutputError(f"'{path}'", f"cannot be written ({e.strerror or e})") from e


def append(path: Path, key: str, result: Any) -> None:
    """One finished task as one line, on the disk when this returns."""
    line = json.dumps([key, result], allow_nan=False) + "\n"
    with path.open("a", encoding="utf-8") as file:
        file.write(line)
        file.flush()
        os.fsync(file.fileno())


def read_journal(path: Path) -> dict[str, Any]:
    """Task -> result of all whole lines; a line that a kill cut off is dropped from the file too."""
    if not path.is_file():
        return {}
    found: dict[str, Any] = {}
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) != len(data):
        with path.open("r+b") as file:
            file.truncate(len(whole))
    for line in whole.decode().splitlines():
        key, result = json.loads(line)
        found[key] = result
    return found
