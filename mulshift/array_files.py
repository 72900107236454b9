"""Arrays in memory, in .npy and in .npz files, read block by block along axis 0: constant memory, never pickle.

Files are read as streams (no memory map), so that resident memory stays at one block however long the file is. The one
exception is an array saved in Fortran order, which has no contiguous rows and is loaded whole.
"""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np

from mulshift.ir import Array, DataError

_CORRUPT = (OSError, EOFError, ValueError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error)


class Column(Protocol):
    """One input's data: an array that is read along axis 0, as often as wanted."""

    @property
    def where(self) -> str:
        """Name for messages: the file, and the member of an archive."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the whole array."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type."""

    def blocks(self, rows: int) -> Iterator[Array]:
        """Consecutive slices `[i : i + rows]` of axis 0; the last may be shorter. A scalar is one block."""


@dataclass(frozen=True, eq=False)
class MemoryColumn:
    """An array that the caller holds already."""

    where: str
    array: Array

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the whole array."""
        return tuple(self.array.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type."""
        return self.array.dtype

    def blocks(self, rows: int) -> Iterator[Array]:
        """Views of the array."""
        if not self.shape:
            yield self.array
            return
        for start in range(0, self.shape[0], rows):
            yield self.array[start : start + rows]


@dataclass(frozen=True)
class FileColumn:
    """An array in a .npy file, or a member of an .npz archive.

    Attributes:
        path: the file.
        member: name inside the archive (with its `.npy`), None for a plain .npy file.
        shape, dtype, fortran: from the array's header.
    """

    path: Path
    member: str | None
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool

    @property
    def where(self) -> str:
        """Name for messages."""
        return str(self.path) if self.member is None else f"{self.path}, array '{_plain(self.member)}'"

    def blocks(self, rows: int) -> Iterator[Array]:
        """Slices read from the stream.

        Raises:
            DataError: the file ends early, is damaged or went away.
        """
        try:
            if self.fortran:
                yield from MemoryColumn(self.where, self._whole()).blocks(rows)
            elif self.member is None:
                with self.path.open("rb") as stream:
                    yield from self._read(stream, rows)
            else:
                with zipfile.ZipFile(self.path) as archive, archive.open(self.member) as stream:
                    yield from self._read(stream, rows)
        except _CORRUPT as e:
            raise DataError(self.where, f"cannot be read ({_reason(e)})", "write the file again") from e

    def _whole(self) -> Array:
        loaded = np.load(self.path, allow_pickle=False)
        return np.asarray(loaded if self.member is None else loaded[_plain(self.member)])

    def _read(self, stream: IO[bytes], rows: int) -> Iterator[Array]:
        _header(stream)
        if not self.shape:
            yield self._block(stream, ())
            return
        for start in range(0, self.shape[0], rows):
            yield self._block(stream, (min(rows, self.shape[0] - start), *self.shape[1:]))

    def _block(self, stream: IO[bytes], shape: tuple[int, ...]) -> Array:
        size = math.prod(shape) * self.dtype.itemsize
        data = stream.read(size)
        if len(data) != size:
            raise EOFError("the file is truncated")
        return np.frombuffer(data, self.dtype).reshape(shape)


def npy_column(path: Path) -> FileColumn:
    """The array of a .npy file; only its header is read.

    Raises:
        DataError: not an array file, truncated, or holding Python objects.
    """
    try:
        with path.open("rb") as stream:
            return _column(path, None, stream, path.stat().st_size)
    except _CORRUPT as e:
        raise DataError(str(path), f"is not a readable .npy file ({_reason(e)})", "write it with numpy.save") from e


def npz_columns(path: Path) -> Mapping[str, FileColumn]:
    """The arrays of an .npz archive by name, in the archive's order; only their headers are read.

    Raises:
        DataError: not an archive, truncated, empty, or holding Python objects.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            found = {}
            for info in archive.infolist():
                with archive.open(info) as stream:
                    found[_plain(info.filename)] = _column(path, info.filename, stream, info.file_size)
    except _CORRUPT as e:
        raise DataError(str(path), f"is not a readable .npz archive ({_reason(e)})", "write it with numpy.savez") from e
    if not found:
        raise DataError(str(path), "holds no arrays", "store one array for each model input")
    return found


def _column(path: Path, member: str | None, stream: IO[bytes], size: int) -> FileColumn:
    shape, fortran, dtype = _header(stream)
    column = FileColumn(path, member, shape, dtype, fortran)
    if dtype.hasobject:
        raise DataError(column.where, "holds Python objects (pickle), which mulshift never loads", "save plain numbers")
    if dtype.kind not in "biuf":
        raise DataError(column.where, f"holds {dtype}, not numbers", "save floats, integers or booleans")
    if any(d < 0 for d in shape) or math.prod(shape) * dtype.itemsize > size - stream.tell():
        raise EOFError("the file is truncated")
    return column


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(stream)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"array format {version[0]}.{version[1]} is for structured arrays")
    shape, fortran, dtype = readers[version](stream)
    return shape, fortran and len(shape) > 1, dtype


def _plain(member: str) -> str:
    return member.removesuffix(".npy")


def _reason(error: BaseException) -> str:
    return str(error).split("\n")[0][:160] or type(error).__name__
