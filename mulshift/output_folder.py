"""Writing an artifact's folder all at once or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mulshift.backends.artifact import MODEL_FILE, WEIGHTS_FILE
from mulshift.ir import OutputError

REPORT_FILE, LOCK_FILE, TIMING_FILE = "report.json", "lock.json", "timing.json"
FILES = frozenset((MODEL_FILE, WEIGHTS_FILE, REPORT_FILE, LOCK_FILE, TIMING_FILE))
_MARK = (MODEL_FILE, LOCK_FILE)


def check_output(folder: str | Path) -> Path:
    """The folder as an absolute path, if an artifact may be written there; leaves nothing behind.

    Raises:
        OutputError: it cannot be written, or it holds something that is not an artifact of ours.
    """
    path = Path(os.path.abspath(folder))
    _check_replaceable(path)
    parent = path.parent
    while not parent.exists():
        parent = parent.parent
    probe = parent / f".mulshift.{os.getpid()}.probe"
    try:
        probe.mkdir()
        probe.rmdir()
    except OSError as e:
        raise OutputError(f"'{path}'", f"cannot be written ({e.strerror or e})", "choose another folder") from e
    return path


def _check_replaceable(path: Path) -> None:
    if not os.path.lexists(path):
        return
    if not path.is_dir() or path.is_symlink():
        raise OutputError(f"'{path}'", "is not a folder", "choose another name")
    try:
        found = {entry.name for entry in path.iterdir()}
    except OSError as e:
        raise OutputError(f"'{path}'", f"cannot be read ({e.strerror or e})") from e
    if found and not (found <= FILES and found.issuperset(_MARK)):
        foreign = sorted(found - FILES) or sorted(found)
        raise OutputError(
            f"'{path}'", f"holds '{foreign[0]}', which is no part of an artifact", "choose an empty folder"
        )


@contextmanager
def staged(path: Path) -> Iterator[Path]:
    """An empty folder beside `path` that takes its place when the block ends well, and vanishes when it does not.

    An old artifact stays whole until the new one is complete. Whatever kills the process, `path` is never half-written.

    Raises:
        OutputError: the file system refuses.
    """
    staging = path.parent / f".{path.name}.{os.getpid()}.partial"
    old = path.parent / f".{path.name}.{os.getpid()}.old"
    try:
        staging.mkdir(parents=True)
        yield staging
        _check_replaceable(path)
        if path.exists():
            path.rename(old)
        staging.rename(path)
    except OSError as e:
        raise OutputError(f"'{path}'", f"cannot be written ({e.strerror or e})", "choose another folder") from e
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        if old.exists() and not path.exists():
            old.rename(path)
        shutil.rmtree(old, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """UTF-8 with Unix line ends."""
    path.write_bytes(text.encode())
