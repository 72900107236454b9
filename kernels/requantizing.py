"""A plain binding of the requantization kernel, for tests."""

from __future__ import annotations

import ctypes
import functools
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mulshift.kernels import opened

MIN_SHIFT, MAX_SHIFT = 2, 62

_Integers: TypeAlias = NDArray[Any]


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
    _kernel()(
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
def _kernel() -> Any:
    pointer, size, s32 = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int32
    kernel = opened().mulshift_requantize_half_up_s32_s32
    kernel.restype = None
    kernel.argtypes = [pointer, size, size, pointer, pointer, s32, s32, s32, pointer]
    return kernel
