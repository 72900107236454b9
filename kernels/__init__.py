"""The compiled kernel library: where it is, and what it can run. Imports nothing else of ours.

One shared object with a C ABI (`kernels/include/mulshift/kernels.h`), opened with ctypes. A wheel carries it beside
this file; an editable install builds it in place. Every process that runs a session holds this module: keep it small.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import os
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from mulshift.kernels.requantizing import requantize as requantize

ABI_VERSION = 1

_SUFFIX = {"darwin": ".dylib", "win32": ".dll"}

__all__ = [
    "ABI_VERSION",
    "has_operator",
    "instruction_set",
    "instruction_sets",
    "is_built",
    "library_path",
    "register",
    "requantize",
]


def __getattr__(name: str) -> Any:
    if name != "requantize":
        raise AttributeError(f"module 'mulshift.kernels' has no attribute '{name}'")
    from mulshift.kernels.requantizing import requantize

    return requantize


def library_path() -> Path:
    """The shared library that was built with this installation.

    Raises:
        FileNotFoundError: it was not built; the message says how to.
    """
    from pathlib import Path  # half a megabyte of modules, which a session does without

    return Path(_built_path())


def is_built() -> bool:
    """Whether the shared library is there."""
    return os.path.isfile(_expected_path())


def _expected_path() -> str:
    folder = os.path.dirname(os.path.realpath(__file__))
    return os.path.join(folder, f"mulshift_kernels{_SUFFIX.get(sys.platform, '.so')}")


def _built_path() -> str:
    path = _expected_path()
    if not os.path.isfile(path):
        raise FileNotFoundError(f"{path}: the kernel library is not built; run 'pip install -e .' in the checkout")
    return path


def register(options: Any, operators: Iterable[str] | None = None) -> None:
    """Let a session run `mulshift` nodes by the library.

    Args:
        options: `onnxruntime.SessionOptions`.
        operators: types of the nodes to come; None for all. ONNX Runtime takes about 50 KB and 0.1 ms for each.

    Raises:
        FileNotFoundError: the library was not built.
    """
    library = opened()
    names = None if operators is None else "".join(f",{name}" for name in sorted(operators)).encode() + b","
    library.mulshift_register_only(names)
    try:
        options.register_custom_ops_library(_built_path())
    finally:
        library.mulshift_register_only(None)


def has_operator(name: str) -> bool:
    """Whether the library runs `mulshift` nodes of that type; others run their function bodies."""
    return bool(opened().mulshift_has_operator(name.encode()))


def instruction_set() -> str:
    """The instruction set whose kernels this process uses: the best one, or what MULSHIFT_ISA names.

    Raises:
        ValueError: MULSHIFT_ISA names one that is unknown or that this machine cannot run.
    """
    name = opened().mulshift_isa()
    if name is None:
        raise ValueError(f"MULSHIFT_ISA must be one of {', '.join(instruction_sets())} on this machine")
    return str(name.decode())


def instruction_sets() -> list[str]:
    """Those with kernels of their own that this machine runs, the best first. All give the same bits."""
    names = (opened().mulshift_runnable_isa(i) for i in itertools.count())
    return [name.decode() for name in itertools.takewhile(lambda name: name is not None, names)]


@functools.cache
def opened() -> ctypes.CDLL:
    """The library, the types of its arguments declared; those of its kernels by who calls them."""
    library = ctypes.CDLL(_built_path())
    library.mulshift_abi_version.restype = ctypes.c_int32
    library.mulshift_abi_version.argtypes = []
    found = library.mulshift_abi_version()
    if found != ABI_VERSION:
        raise ImportError(f"{_built_path()}: ABI version {found}, expected {ABI_VERSION}; reinstall mulshift")
    library.mulshift_isa.restype = library.mulshift_runnable_isa.restype = ctypes.c_char_p
    library.mulshift_isa.argtypes, library.mulshift_runnable_isa.argtypes = [], [ctypes.c_size_t]
    library.mulshift_register_only.restype, library.mulshift_register_only.argtypes = None, [ctypes.c_char_p]
    library.mulshift_has_operator.restype, library.mulshift_has_operator.argtypes = ctypes.c_int32, [ctypes.c_char_p]
    return library
