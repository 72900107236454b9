"""Arrays to torch and back, also for element types that one side lacks."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from mulshift.ir.types import Array

if TYPE_CHECKING:
    import torch

_CARRIERS: dict[str, Any] = {"int4": np.int8, "int2": np.int8, "uint4": np.uint8, "uint2": np.uint8}
_FLOAT_CARRIERS = ("float8", "float4")


def as_tensor(array: Array | torch.Tensor) -> torch.Tensor:
    """A tensor that shares the array's memory where it can; nobody may write into it.

    4-bit and 2-bit integers come as 8-bit ones, float8 and float4 as float32; the numbers are the same. Strings, which
    torch lacks, stay what they are.
    """
    import torch

    if isinstance(array, torch.Tensor) or array.dtype.kind in "OSU":
        return array  # type: ignore[return-value]
    name = array.dtype.name
    if name == "bfloat16":
        return torch.from_numpy(array.astype(np.float32)).to(torch.bfloat16)
    if name in _CARRIERS:
        array = array.astype(_CARRIERS[name])
    elif name.startswith(_FLOAT_CARRIERS):
        array = array.astype(np.float32)
    elif array.dtype.char in "qQ":  # C's long long, which numpy tells from int64
        array = array.view(np.int64 if array.dtype.char == "q" else np.uint64)
    shared = array if array.ndim == 0 else np.ascontiguousarray(array)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(shared)


def as_array(tensor: torch.Tensor) -> Array:
    """The numbers of a tensor; bfloat16 comes as float32."""
    import torch

    plain = tensor.detach()
    return (plain.float() if plain.dtype == torch.bfloat16 else plain).numpy()
