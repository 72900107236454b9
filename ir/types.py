"""The four small types that mulshift adds to onnx_ir, and the three levels of a graph."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import onnx_ir as ir

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]
Feeds: TypeAlias = Mapping[str, Array]
"""One sample: graph input name -> array with its batch axis."""
Samples: TypeAlias = Iterable[Feeds]
"""Samples that can be iterated more than once (a list, or an object that reads its files anew)."""


def dtype_of(code: int) -> np.dtype[Any]:
    """The numpy type of an ONNX element type code (TensorProto.DataType), e.g. 2 -> uint8."""
    return ir.DataType(code).numpy()


class Level(enum.StrEnum):
    """What a graph may hold; see `mulshift.ir.levels.check`."""

    FLOAT = "FLOAT"
    QDQ = "QDQ"
    INTEGER = "INTEGER"


_STORAGE = {
    (8, False): ir.DataType.UINT8,
    (8, True): ir.DataType.INT8,
    (16, True): ir.DataType.INT16,
    (16, False): ir.DataType.UINT16,
    (32, True): ir.DataType.INT32,
    **{(bits, True): ir.DataType.INT4 for bits in (1, 2, 3, 4)},
    **{(bits, False): ir.DataType.UINT4 for bits in (1, 2, 3, 4)},
}
"""Fewer than 4 bits are small numbers in 4: INT4 is in every opset from 21 on, INT2 (25) in few runtimes."""


@dataclass(frozen=True)
class QuantSpec:
    """How a tensor is to be quantized, before any numbers are known.

    Attributes:
        bits: 1, 2, 3, 4, 8, 16 (or 32 for biases and accumulators). A signed bit is -1 or 1, never 0.
        signed: whether q may be negative.
        symmetric: zero point 0; a signed symmetric weight never takes its lowest value.
        axis: channel axis of a per-channel scale, or the axis that `group` divides; None for one scale a tensor.
        group: elements along `axis` that share a scale (the last group may be shorter), None for no grouping.
    """

    bits: int
    signed: bool
    symmetric: bool
    axis: int | None = None
    group: int | None = None

    def __post_init__(self) -> None:
        if self.bits not in (1, 2, 3, 4, 8, 16, 32):
            raise ValueError(f"{self.bits} bits: mulshift stores 1, 2, 3, 4, 8, 16 or 32")
        if self.symmetric and not self.signed and self.bits > 8:
            raise ValueError("an unsigned symmetric tensor has at most 8 bits")

    @property
    def qmin(self) -> int:
        """Smallest integer used."""
        if not self.signed:
            return 0
        if self.bits == 1:
            return -1
        return (1 if self.symmetric else 0) - (1 << (self.bits - 1))

    @property
    def qmax(self) -> int:
        """Largest integer used."""
        if self.signed and self.bits == 1:
            return 1
        return int(2 ** (self.bits - (1 if self.signed else 0)) - 1)

    @property
    def dtype(self) -> ir.DataType:
        """The ONNX type that stores it."""
        return _STORAGE[(self.bits, self.signed)]


ACTIVATION_U8 = QuantSpec(8, signed=False, symmetric=False)
ACTIVATION_U4 = QuantSpec(4, signed=False, symmetric=False)
ACTIVATION_S8 = QuantSpec(8, signed=True, symmetric=True)
ACTIVATION_S16 = QuantSpec(16, signed=True, symmetric=True)


def weight_spec(bits: int = 8, axis: int | None = 0, group: int | None = None) -> QuantSpec:
    """Signed symmetric weights, per channel along `axis`."""
    return QuantSpec(bits, signed=True, symmetric=True, axis=axis, group=group)


@dataclass(frozen=True, eq=False)
class QParams:
    """`real = scale * (q - zero_point)`.

    Attributes:
        scale: float32, shape [] or [channels]; positive. With groups, the shape of the tensor, but
            `ceil(size / spec.group)` along `spec.axis`, as ONNX has it for blocks.
        zero_point: int32, same shape as `scale`, inside [spec.qmin, spec.qmax].
        spec: bits, sign, axis and group.
    """

    scale: Array
    zero_point: Array
    spec: QuantSpec

    def __post_init__(self) -> None:
        object.__setattr__(self, "scale", np.asarray(self.scale, np.float32))
        zero_point = np.broadcast_to(np.asarray(self.zero_point, np.int32), self.scale.shape)
        object.__setattr__(self, "zero_point", zero_point)
        if not (np.isfinite(self.scale).all() and (self.scale > 0).all()):
            raise ValueError(f"scale must be positive and finite, not {self.scale.min()}")
        if (zero_point < self.spec.qmin).any() or (zero_point > self.spec.qmax).any():
            raise ValueError(f"zero point outside [{self.spec.qmin}, {self.spec.qmax}]")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, QParams):
            return NotImplemented
        return (
            self.spec == other.spec
            and np.array_equal(self.scale, other.scale)
            and np.array_equal(self.zero_point, other.zero_point)
        )

    __hash__ = None  # type: ignore[assignment]

    @property
    def per_tensor(self) -> bool:
        """One scale for the whole tensor."""
        return self.scale.ndim == 0

    @property
    def magnitude(self) -> int:
        """max |q - zero_point|, what an accumulator proof needs."""
        low = int((self.zero_point - self.spec.qmin).max())
        high = int((self.spec.qmax - self.zero_point).max())
        return max(low, high)

    def shaped(self, shape: Sequence[int]) -> tuple[Array, Array]:
        """Scale and zero point that broadcast against a tensor of this shape; a group's is repeated for each of it."""
        axis, group = self.spec.axis, self.spec.group
        if self.per_tensor or axis is None:
            return self.scale, self.zero_point
        if group is not None:
            each = np.arange(shape[axis]) // group
            return self.scale.take(each, axis=axis), self.zero_point.take(each, axis=axis)
        spread = [1] * len(shape)
        spread[axis] = -1
        return self.scale.reshape(spread), self.zero_point.reshape(spread)

    def quantize(self, x: Array) -> Array:
        """`clamp(round_half_even(x / scale) + zero_point)` as ONNX QuantizeLinear does, in float32.

        Of one bit the sign: the same for weights on their grid.
        """
        scale, zero_point = self.shaped(x.shape)
        if self.spec.bits == 1 and self.spec.signed:
            return np.where(x < 0, -1, 1).astype(np.int32)
        q = np.rint(x.astype(np.float32) / scale).astype(np.float64) + zero_point
        return np.clip(q, self.spec.qmin, self.spec.qmax).astype(np.int32)

    def dequantize(self, q: Array) -> Array:
        """`scale * (q - zero_point)` in float32."""
        scale, zero_point = self.shaped(q.shape)
        return ((q.astype(np.int64) - zero_point) * scale).astype(np.float32)


@dataclass(frozen=True)
class Dyadic:
    """The number `b / 2^c`, `0 <= b < 2^31`, `2 <= c <= 62` (ARITHMETIC.md section 2; HAWQ-V3)."""

    b: int
    c: int

    def __post_init__(self) -> None:
        if not 0 <= self.b < 2**31:
            raise ValueError(f"b = {self.b} is outside [0, 2^31)")
        if not 2 <= self.c <= 62:
            raise ValueError(f"c = {self.c} is outside [2, 62]")

    @property
    def value(self) -> float:
        """The real number it stands for; exact in float64 since b has 31 bits."""
        return float(np.ldexp(float(self.b), -self.c))


@dataclass(frozen=True)
class Target:
    """What a backend runs: a row of data in `mulshift.backends.TARGETS`.

    Attributes:
        name: what a user types.
        backend: module of `mulshift.backends` that lowers to it.
        level: the level that the backend wants.
        forms: (operator, activation bits, weight bits) that it runs; empty means every operator.
        signed_activations: whether its fast kernels take s8 activations.
        note: one line for `mulshift targets`.
    """

    name: str
    backend: str
    level: Level
    forms: tuple[tuple[str, int, int], ...] = ()
    signed_activations: bool = False
    note: str = ""
