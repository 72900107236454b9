"""MaxPoolNhwc: ONNX MaxPool of channels-last images; padding never wins.

x: u8 or s8 [N, H, W, C]; kernel_shape, strides, dilations of 2 numbers, pads (begin_h, begin_w, end_h, end_w) below the
kernel's size. With ceil_mode a last window that overhangs counts, unless it would start in the padding at the end.
"""

from __future__ import annotations

from functools import reduce
from itertools import product

import numpy as np

from mulshift.ir.operators.operator import Attributes, Operator, hand_on
from mulshift.ir.types import Array

_WINDOW = ("kernel_shape", "strides", "pads", "dilations", "ceil_mode")

_BODY = f"""
  x_plain = Transpose <perm = [0, 3, 1, 2]> (x)
  y_plain = MaxPool <{hand_on(_WINDOW)}> (x_plain)
  y = Transpose <perm = [0, 2, 3, 1]> (y_plain)
"""


def _reference(a: Attributes, x: Array) -> Array:
    batch, channels = x.shape[0], x.shape[3]
    sizes = [_size(a, i, x.shape[1 + i]) for i in range(2)]
    reach = [s * (n - 1) + d * (k - 1) + 1 for s, n, d, k in _each(a, sizes)]
    padded = np.full((batch, *reach, channels), np.iinfo(x.dtype).min, x.dtype)
    inside = [slice(p, p + s) for p, s in zip(a["pads"], x.shape[1:3], strict=False)]
    kept = padded[:, inside[0], inside[1]]
    kept[:] = x[:, : kept.shape[1], : kept.shape[2]]
    starts = product(*(range(k) for k in a["kernel_shape"]))
    taps = [padded[:, *(_tap(a, i, t, sizes[i]) for i, t in enumerate(tap))] for tap in starts]
    return np.asarray(reduce(np.maximum, taps))


def _each(a: Attributes, sizes: list[int]) -> zip[tuple[int, int, int, int]]:
    return zip(a["strides"], sizes, a["dilations"], a["kernel_shape"], strict=True)


def _tap(a: Attributes, i: int, tap: int, size: int) -> slice:
    """What one tap of the kernel sees along axis i."""
    begin, stride = tap * a["dilations"][i], a["strides"][i]
    return slice(begin, begin + (size - 1) * stride + 1, stride)


def _size(a: Attributes, i: int, size: int) -> int:
    """Windows along axis i."""
    begin, end, stride = a["pads"][i], a["pads"][i + 2], a["strides"][i]
    room = size + begin + end - ((a["kernel_shape"][i] - 1) * a["dilations"][i] + 1)
    if not a["ceil_mode"]:
        return int(room // stride + 1)
    steps = -(-room // stride)
    return int(steps if steps * stride >= size + begin else steps + 1)


MAX_POOL_NHWC = Operator(
    name="MaxPoolNhwc",
    signature=f"<{', '.join(_WINDOW)}> (x) => (y)",
    body=_BODY,
    reference=_reference,
)
