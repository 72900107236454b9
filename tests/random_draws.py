"""What random nodes are drawn with: a node, and numbers of every kind that the compiler promises."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from kernel_checks import S8, S16, S32, U8, integers, output

from mulshift.ir import Array

Rng = np.random.Generator
Sized = Callable[[Rng], dict[int, Array]]

FULL = {U8: (0, 255), S8: (-128, 127), S16: (-32768, 32767), S32: (-(2**31), 2**31 - 1)}
CODES = {U8: 2, S8: 3, S16: 5, S32: 6}


@dataclass
class Node:
    """An operator with all but what is fed.

    Attributes:
        constants: input -> array.
        sized: draws the inputs that are fed, each time of another size.
    """

    op: str
    attributes: dict[str, Any]
    constants: dict[int, Array]
    sized: Sized
    fed: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        count = len(self.constants) + len(self.sized(np.random.default_rng(0)))
        self.fed = tuple(i for i in range(count) if i not in self.constants)

    def inputs(self, fed: dict[int, Array]) -> list[Array]:
        """All of them, in order."""
        return [v for _, v in sorted((self.constants | fed).items())]


def pick(rng: Rng, values: Any) -> Any:
    return values[int(rng.integers(len(values)))]


def draw_zero_point(rng: Rng, dtype: Any) -> int:
    return int(integers(rng, dtype, (1,))[0]) if dtype != S32 else 0


def draw_dyadics(rng: Rng, shape: tuple[int, ...], exponent: int) -> tuple[Array, Array]:
    """Narrow and wide b near 2^exponent; b = 1 and small c, for exact halves; the ends of both ranges; all together."""
    kinds = {
        "narrow": rng.integers(1, 2**8, shape),
        "wide": rng.integers(2**20, 2**31, shape),
        "halves": np.ones(shape, np.int64),
        "ends": rng.choice([0, 1, 2**30, 2**31 - 1], shape),
    }
    shifts = {
        "narrow": np.full(shape, 8 - exponent),
        "wide": np.full(shape, 31 - exponent),
        "halves": rng.integers(2, 12, shape),
        "ends": rng.choice([2, 31, 32, 33, 61, 62], shape),
    }
    kind = pick(rng, ["narrow", "wide", "wide", "halves", "ends", "mixed"])
    if kind != "mixed":
        return kinds[kind].astype(S32), np.clip(shifts[kind], 2, 62).astype(S32)
    which = rng.integers(0, 4, shape)
    b, c = (np.choose(which, list(d.values())) for d in (kinds, shifts))
    return b.astype(S32), np.clip(c, 2, 62).astype(S32)


def draw_dyadic(rng: Rng, exponent: int) -> tuple[int, int]:
    b, c = draw_dyadics(rng, (1,), exponent)
    return int(b[0]), int(c[0])


def draw_output(rng: Rng, dtypes: tuple[Any, ...]) -> dict[str, int]:
    dtype = pick(rng, dtypes)
    low, high = FULL[dtype]
    if rng.random() < 0.3:
        low, high = sorted(int(v) for v in integers(rng, dtype, (2,)))
    return output(dtype, low, high, draw_zero_point(rng, dtype))


def dtype_of(code: int) -> Any:
    return next(dtype for dtype, own in CODES.items() if own == code)


# --- products ---
