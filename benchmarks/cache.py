"""Folders under build/ (ignored by git; `make clean` removes them) for what takes long, keyed by all that shapes it."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = "numpy torch transformers onnx onnxscript onnx-ir onnxruntime openvino nncf".split()
ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / "build" / "benchmarks"


def cached(name: str, key: object, make: Callable[[Path], None]) -> Path:
    """The folder that `make(folder)` filled, now or in an earlier run with the same key and the same versions.

    Args:
        name: of the folder; it goes on with a hash, and older ones of that name are removed.
        key: whose repr tells all else that the content depends on.
    """
    folder = place(name, key)
    if folder.is_dir():
        return folder
    CACHE.mkdir(parents=True, exist_ok=True)
    for old in CACHE.glob(f"{name}-{'[0-9a-f]' * 16}"):
        shutil.rmtree(old, ignore_errors=True)
    staging = Path(tempfile.mkdtemp(prefix="making-", dir=CACHE))
    try:
        make(staging)
        if not folder.is_dir():  # another process may have been faster
            staging.rename(folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return folder


def place(name: str, key: object) -> Path:
    """Where `cached` keeps it."""
    digest = hashlib.sha256(repr([versions(), key]).encode()).hexdigest()[:16]
    return CACHE / f"{name}-{digest}"


def versions() -> list[str]:
    """Of the packages that make the files."""
    return [f"{package} {_version(package)}" for package in PACKAGES]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "-"


def text_of(*names: str) -> str:
    """The scripts (of this folder, without .py) that make something, as part of its key."""
    return "".join((ROOT / "benchmarks" / f"{name}.py").read_text(encoding="utf-8") for name in names)


def ours() -> str:
    """A hash of the package's own Python and recipes, for what it makes."""
    hashed = hashlib.sha256()
    for part in ("mulshift", "ir", "passes", "backends"):
        for file in sorted((ROOT / part).rglob("*")):
            if file.suffix in (".py", ".yaml"):
                hashed.update(file.read_bytes())
    return hashed.hexdigest()
