"""Where data comes from: a path, `module:function` or Python objects, told apart once and named for messages."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from mulshift.array_files import Column, MemoryColumn, npy_column, npz_columns
from mulshift.fitting import to_numpy
from mulshift.images import IMAGE_SUFFIXES
from mulshift.ir import DataError
from mulshift.sources import call, is_function_name, user_code

ARRAY_SUFFIXES = (".npy", ".npz")


@dataclass(frozen=True)
class Parts:
    """Arrays by input name, file after file; the name is empty where the file has none."""

    where: str
    parts: tuple[Mapping[str, Column], ...]


@dataclass(frozen=True)
class Images:
    """Image files in order."""

    where: str
    files: tuple[Path, ...]


@dataclass(frozen=True)
class Items:
    """Feeds in whatever form the caller has them; `open` starts a pass; count is None if unknown."""

    where: str
    open: Callable[[], Iterable[Any]]
    count: int | None

    def __iter__(self) -> Iterator[Any]:
        """One pass; an exception of the user's generator becomes one line that tells its message."""
        with user_code(self.where, DataError):
            iterator = iter(self.open())
        while True:
            with user_code(self.where, DataError):
                try:
                    item = next(iterator)
                except StopIteration:
                    return
            yield item


Source: TypeAlias = Parts | Images | Items


def resolve(data: Any) -> Source:
    """Tell apart what `mulshift.data.open_samples` takes.

    Raises:
        DataError: missing, empty, mixed or not data at all.
    """
    if isinstance(data, (str, Path)):
        return _of_text(str(data))
    if isinstance(data, np.ndarray):
        return Parts("the array", ({"": MemoryColumn("the array", data)},))
    if isinstance(data, Mapping):
        columns = {str(n): MemoryColumn(f"array '{n}'", to_numpy(a, f"array '{n}'")) for n, a in data.items()}
        return Parts("the arrays", (columns,))
    if isinstance(data, Iterator):
        raise DataError("the data", "is an iterator, which can be read only once", "give a list or a function")
    if callable(data) and not isinstance(data, Iterable):
        return _of_function(getattr(data, "__name__", "the function"), data)
    if not isinstance(data, Iterable):
        raise DataError("the data", f"is a {type(data).__name__}", "give a path, arrays, a list of feeds or a function")
    return Items("the data", lambda: data, _length(data))


def _of_text(text: str) -> Source:
    path = Path(text)
    if path.is_dir():
        return _of_folder(path)
    if path.exists():
        return _of_files(text, (path,))
    if is_function_name(text):
        return _of_function(text, lambda: call(text, DataError))
    raise DataError(text, "no such file, folder or module:function", "give .npz, .npy, a folder of them or of images")


def _of_function(where: str, function: Callable[[], Any]) -> Items:
    """A function that returns an iterator is called again for each pass."""
    with user_code(where, DataError):
        first = function()
    if isinstance(first, (Mapping, np.ndarray)) or hasattr(first, "__array__"):
        raise DataError(where, "returned a single feed", "return an iterable of feeds, for instance a list with it")
    if isinstance(first, (str, bytes)) or not isinstance(first, Iterable):
        raise DataError(where, f"returned a {type(first).__name__}", "return an iterable of feeds")
    if not isinstance(first, Iterator):
        return Items(where, lambda: first, _length(first))
    waiting = [first]
    return Items(where, lambda: waiting.pop() if waiting else function(), None)


def _length(items: Iterable[Any]) -> int | None:
    found = operator.length_hint(items, -1)
    return None if found < 0 else found


def _of_folder(folder: Path) -> Parts | Images:
    files = [p for p in sorted(folder.rglob("*")) if p.is_file() and not p.name.startswith(".")]
    known = [p for p in files if p.suffix.lower() in (*ARRAY_SUFFIXES, *IMAGE_SUFFIXES)]
    if not known:
        what = "holds no .npz, .npy or image files" if files else "is an empty folder"
        raise DataError(str(folder), what, "put the samples there")
    return _of_files(str(folder), tuple(known))


def _of_files(where: str, files: tuple[Path, ...]) -> Parts | Images:
    kinds = {_kind(p) for p in files}
    if len(kinds) > 1:
        raise DataError(where, f"mixes {' and '.join(sorted(kinds))}", "keep one kind of data in a folder")
    kind = kinds.pop()
    if kind == "images":
        return Images(where, files)
    if kind == ".npz files":
        return Parts(where, tuple(npz_columns(p) for p in files))
    return Parts(where, tuple({"": npy_column(p)} for p in files))


def _kind(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        return "images"
    if suffix in ARRAY_SUFFIXES:
        return f"{suffix} files"
    raise DataError(str(path), f"has the unknown ending '{suffix}'", "give .npz, .npy, an image or a folder of them")
