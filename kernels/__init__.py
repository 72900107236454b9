"""The compiled kernel library: where it is, and a plain binding for tests. Imports nothing else of ours.

One shared object with a C ABI (`kernels/include/mulshift/kernels.h`), opened with ctypes. A wheel carries it beside
this file; an editable install builds it in place.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

ABI_VERSION = 1
MIN_SHIFT, MAX_SHIFT = 2, 62

_SUFFIX = {"darwin": ".dylib", "win32": ".dll"}
_Integers: TypeAlias = NDArray[Any]

__all__ = ["ABI_VERSION", "instruction_set", "instruction_sets", "is_built", "library_path", "register", "requantize"]


def library_path() -> Path:
    """The shared library that was built with this installation.

    Raises:
        FileNotFoundError: it was not built; the message says how to.
    """
    path = _expected_path()
    if not path.is_file():
        raise FileNotFoundError(f"{path}: the kernel library is not built; run 'pip install -e .' in the checkout")
    return path


def is_built() -> bool:
    """Whether the shared library is there."""
    return _expected_path().is_file()


def _expected_path() -> Path:
    return Path(__file__).resolve().parent / f"mulshift_kernels{_SUFFIX.get(sys.platform, '.so')}"


def register(options: Any, operators: Iterable[str] | None = None) -> None:
    """Let a session run `mulshift` nodes by the library.

    Args:
        options: `onnxruntime.SessionOptions`.
        operators: types of the nodes to come; None for all. ONNX Runtime takes about 50 KB and 0.1 ms for each.

    Raises:
        FileNotFoundError: the library was not built.
    """
    library = _library()
    names = None if operators is None else "".join(f",{name}" for name in sorted(operators)).encode() + b","
    library.mulshift_register_only(names)
    try:
        options.register_custom_ops_library(str(library_path()))
    finally:
        library.mulshift_register_only(None)


def instruction_set() -> str:
    """The instruction set whose kernels this process uses: the best one, or what MULSHIFT_ISA names.

    Raises:
        ValueError: MULSHIFT_ISA names one that is unknown or that this machine cannot run.
    """
    name = _library().mulshift_isa()
    if name is None:
        raise ValueError(f"MULSHIFT_ISA must be one of {', '.join(instruction_sets())} on this machine")
    return str(name.decode())


def instruction_sets() -> list[str]:
    """Those with kernels of their own that this machine runs, the best first. All give the same bits."""
    names = (_library().mulshift_runnable_isa(i) for i in itertools.count())
    return [name.decode() for name in itertools.takewhile(lambda name: name is not None, names)]


def requantize(
    acc: _Integers, b: _Integers | int, c: _Integers | int, zero_point: int, qmin: int, qmax: int
) -> NDArray[np.int32]:
    """`clamp(((acc * b + 2^(c-1)) >> c) + zero_point, qmin, qmax)` by the portable kernel, rounding half up.

    Args:
        acc: int32 values in any integer dtype, [..., channels].
        b: 0 <= b < 2^31; one number or [channels].
        c: 2 to 62; one number or [channels].
        zero_point, qmin, qmax: int32, qmin <= qmax.

    Returns:
        int32, the shape of acc.

    Raises:
        ValueError: a number outside its range, or b and c do not fit the last axis of acc.
    """
    rows = np.atleast_1d(_int32("acc", acc))
    channels = rows.shape[-1]
    multipliers, shifts = (_per_channel(n, v, channels) for n, v in (("b", b), ("c", c)))
    if (multipliers < 0).any() or (shifts < MIN_SHIFT).any() or (shifts > MAX_SHIFT).any():
        raise ValueError(f"b must be >= 0 and c from {MIN_SHIFT} to {MAX_SHIFT}")
    border = _int32("zero_point, qmin, qmax", np.array([zero_point, qmin, qmax]))
    if qmin > qmax:
        raise ValueError(f"qmin {qmin} is above qmax {qmax}")
    y = np.empty_like(rows)
    count = rows.size // channels if channels else 0
    _library().mulshift_requantize_half_up_s32_s32(
        rows.ctypes.data, count, channels, multipliers.ctypes.data, shifts.ctypes.data, *border.tolist(), y.ctypes.data
    )
    return y.reshape(np.shape(acc))


def _int32(name: str, values: _Integers | int) -> NDArray[np.int32]:
    """Contiguous int32, after a range check."""
    array = np.asarray(values)
    if array.dtype.kind not in "iu":
        raise ValueError(f"{name} must be integers, not {array.dtype}")
    limits = np.iinfo(np.int32)
    if array.size and (int(array.min()) < limits.min or int(array.max()) > limits.max):
        raise ValueError(f"{name} does not fit int32")
    return np.ascontiguousarray(array, np.int32)


def _per_channel(name: str, values: _Integers | int, channels: int) -> NDArray[np.int32]:
    array = _int32(name, values)
    if array.size != 1 and array.shape != (channels,):
        raise ValueError(f"{name} has shape {array.shape}, acc has {channels} channels")
    return np.ascontiguousarray(np.broadcast_to(array.reshape(-1), (channels,)))


@functools.cache
def _library() -> ctypes.CDLL:
    """The opened library with its argument types declared."""
    library = ctypes.CDLL(str(library_path()))
    library.mulshift_abi_version.restype = ctypes.c_int32
    library.mulshift_abi_version.argtypes = []
    found = library.mulshift_abi_version()
    if found != ABI_VERSION:
        raise ImportError(f"{library_path()}: ABI version {found}, expected {ABI_VERSION}; reinstall mulshift")
    library.mulshift_isa.restype = library.mulshift_runnable_isa.restype = ctypes.c_char_p
    library.mulshift_isa.argtypes, library.mulshift_runnable_isa.argtypes = [], [ctypes.c_size_t]
    library.mulshift_register_only.restype, library.mulshift_register_only.argtypes = None, [ctypes.c_char_p]
    pointer, size, s32 = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int32
    kernel = library.mulshift_requantize_half_up_s32_s32
    kernel.restype = None
    kernel.argtypes = [pointer, size, size, pointer, pointer, s32, s32, s32, pointer]
    return library
