"""What a scaling does to the rounding error of a region's products, measured on rows of the samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from mulshift.ir import Array
from mulshift.passes.channel_flow import plain_weight
from mulshift.passes.channel_pairs import input_rows
from mulshift.passes.smooth_regions import Operand, Region

if TYPE_CHECKING:
    import torch

ROWS = 512
"""Rows of an activation that are kept."""
SCORE_ROWS = 192
"""Rows of queries and of keys whose scores are measured, each with each."""
COLUMNS = 1024
"""Output channels of a reader that are measured."""
MARGIN = 0.02
"""A strength has to lower the error by this part."""
ROUNDS = 8
"""Each round tries all strengths on what the last left."""
_DEAD = 1e-5
"""A group whose range is below this part of the largest one keeps its scale."""
_HASH, _WORD = 2654435769, 1 << 32
"""Multiplicative hashing by the golden ratio (Knuth, The Art of Computer Programming 6.4)."""


@dataclass
class Seen:
    """Extremes of every channel over all rows, and at most `limit` rows.

    Row i is kept while `i * 2654435769 mod 2^32 < 2^32 / 2^halvings`: evenly spread, whatever the length of a sentence,
    and the same rows on every machine. The rows that hold the least and the greatest element are kept besides.

    Attributes:
        operand: what is seen.
        limit: see there.
        low, high: [channels].
    """

    operand: Operand
    limit: int = ROWS
    low: Array = field(init=False)
    high: Array = field(init=False)
    _index: Array = field(default_factory=lambda: np.zeros(0, np.int64), init=False)
    _rows: Array = field(init=False)
    _count: int = field(default=0, init=False)
    _halvings: int = field(default=0, init=False)
    _extreme: dict[str, tuple[float, Array]] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        channels = self.operand.group.size
        self.low, self.high = np.full(channels, np.inf), np.full(channels, -np.inf)
        self._rows = np.zeros((0, channels), np.float32)

    def update(self, tensor: torch.Tensor) -> None:
        """Take one tensor in."""
        last = range(-len(self.operand.axes), 0)
        found = tensor.detach().movedim(self.operand.axes, tuple(last)).reshape(-1, self.low.size).float().numpy()
        if not len(found):
            return
        self.low = np.minimum(self.low, found.min(axis=0))
        self.high = np.maximum(self.high, found.max(axis=0))
        for sign, key in ((1.0, "high"), (-1.0, "low")):
            top = int((sign * found).max(axis=1).argmax())
            value = float((sign * found[top]).max())
            if key not in self._extreme or value > self._extreme[key][0]:
                self._extreme[key] = (value, found[top].copy())
        index = np.arange(self._count, self._count + len(found))
        self._count += len(found)
        kept = self._kept(index)
        while kept.sum() + len(self._index) > self.limit:
            self._halvings += 1
            old, kept = self._kept(self._index), self._kept(index)
            self._index, self._rows = self._index[old], self._rows[old]
        self._index = np.concatenate([self._index, index[kept]])
        self._rows = np.concatenate([self._rows, found[kept]])

    def _kept(self, index: Array) -> Array:
        return np.asarray((index * _HASH) % _WORD < (_WORD >> self._halvings))

    @property
    def rows(self) -> Array:
        """float32 [at most limit + 2, channels]."""
        return np.concatenate([self._rows, *(row[None] for _, row in self._extreme.values())])

    def largest(self) -> Array:
        """Largest |x| of each channel."""
        return np.maximum(np.abs(self.low), np.abs(self.high))


Error = Callable[[Array], float]
"""Relative mean squared error of a region's products under scales s: [groups]."""


@dataclass(frozen=True)
class Measure:
    """Attributes:
    error: of any s.
    x, w: largest magnitude of each group on both sides.
    """

    error: Error
    x: Array
    w: Array


def measure(region: Region, seen: Mapping[Operand, Seen], bits: int, weight_bits: int) -> Measure:
    """How a region is measured; `seen` has its operands."""
    if region.keys is not None:
        return _scores(region, seen[region.keys[0]], seen[region.keys[1]], bits)
    return _readers(region, seen, bits, weight_bits)


def _readers(region: Region, seen: Mapping[Operand, Seen], bits: int, weight_bits: int) -> Measure:
    """`W S` rounded a column, `S^-1 x` a tensor: the mean of the readers' relative errors.

    Where x is a product, the factor v that is scaled is rounded as well. Its error d reaches x times what v is
    multiplied by, taken as `rms(x_j) / rms(v_j)`, and adds `W (d rms(x) / rms(v))`.
    """
    x, w = np.zeros(region.size), np.zeros(region.size)
    rows = {operand: seen[operand].rows for operand in region.readers.values()}
    parts: list[Part] = []
    for node, operand in region.readers.items():
        stored = plain_weight(node)
        assert stored is not None
        matrix = input_rows(node, stored)
        np.maximum.at(x, operand.group, seen[operand].largest())
        np.maximum.at(w, operand.group, np.abs(matrix).max(axis=1).astype(np.float64))
        step = -(-matrix.shape[1] // COLUMNS)
        part = np.ascontiguousarray(matrix[:, ::step], np.float32)
        parts.append((operand, part, rows[operand] @ part))

    def error(s: Array) -> float:
        q = {operand: _rounded_operand(seen[operand], r, s[operand.group], bits) for operand, r in rows.items()}
        total = 0.0
        for operand, matrix, exact in parts:
            scaled = matrix * s[operand.group][:, None].astype(matrix.dtype)
            total += _relative(exact, q[operand] @ _round_columns(scaled, weight_bits)) / len(parts)
        return total + (0.0 if entering is None else entering(s))

    entering = _entering(region, seen, rows, parts, bits)
    return Measure(error, x, w)


Part: TypeAlias = tuple[Operand, Array, Array]


def _entering(
    region: Region, seen: Mapping[Operand, Seen], rows: Mapping[Operand, Array], parts: Sequence[Part], bits: int
) -> Error | None:
    """The error that rounding the scaled factor of a product leaves in the readers; keys and values are symmetric."""
    if region.entry is None:
        return None
    operand, places = region.entry
    view, v = seen[operand], seen[operand].rows

    def error(s: Array) -> float:
        group, total = s[operand.group], 0.0
        if region.kind == "values":
            rounded = _round_symmetric(v / group, float((view.largest() / group).max()), bits)
        else:
            rounded = _rounded_operand(view, v, group, bits)
        d = rounded * group.astype(v.dtype) - v
        for (read, matrix, exact), place in zip(parts, places.values(), strict=True):
            gain = _rms(rows[read]) / np.maximum(_rms(v)[place], np.finfo(np.float32).tiny)
            left = (d[:, place] * gain) @ matrix
            power = float(np.vdot(exact, exact)) / len(exact)
            total += float(np.vdot(left, left)) / len(left) / power if power else 0.0
        return total / len(parts)

    return error


def _rms(rows: Array) -> Array:
    return np.asarray(np.sqrt(np.square(rows).mean(axis=0)))


def _rounded_operand(seen: Seen, rows: Array, s: Array, bits: int) -> Array:
    return _round(rows / s.astype(rows.dtype), seen.low / s, seen.high / s, bits)


def _scores(region: Region, q: Seen, k: Seen, bits: int) -> Measure:
    """All kept queries with all kept keys, head by head; keys are symmetric, as second operands of products are."""
    x, w = np.zeros(region.size), np.zeros(region.size)
    np.maximum.at(x, q.operand.group, q.largest())
    np.maximum.at(w, k.operand.group, k.largest())
    queries, keys = (seen.rows[-SCORE_ROWS:] for seen in (q, k))
    exact = _by_head(queries, keys, q.operand.heads, k.operand.heads)

    def error(s: Array) -> float:
        a, b = s[q.operand.group], s[k.operand.group]
        bound = float(np.abs(k.largest() * b).max())
        rounded = _rounded_operand(q, queries, a, bits), _round_symmetric(keys * b, bound, bits)
        return _relative(exact, _by_head(*rounded, q.operand.heads, k.operand.heads))

    return Measure(error, x, w)


def _by_head(q: Array, k: Array, heads: int, key_heads: int) -> Array:
    """q: [n, heads * dim], k: [m, key_heads * dim] -> [heads, n, m]."""
    a = q.reshape(len(q), heads, -1).swapaxes(0, 1)
    b = k.reshape(len(k), key_heads, -1).repeat(heads // key_heads, axis=1)
    return np.asarray(a @ b.transpose(1, 2, 0))


def _relative(exact: Array, got: Array) -> float:
    power, difference = float(np.vdot(exact, exact)), got - exact
    return float(np.vdot(difference, difference)) / power if power else 0.0


def _round(x: Array, low: Array, high: Array, bits: int) -> Array:
    """x to unsigned integers of one scale over [min(low, 0), max(high, 0)], and back."""
    a, b = min(float(low.min()), 0.0), max(float(high.max()), 0.0)
    scale = (b - a) / (2**bits - 1) or 1.0
    zero = round(-a / scale)
    return (np.clip(np.rint(x / scale), -zero, 2**bits - 1 - zero) * scale).astype(np.float32)


def _round_symmetric(x: Array, bound: float, bits: int) -> Array:
    scale = bound / (2 ** (bits - 1) - 1) or 1.0
    return (np.rint(x / scale) * scale).astype(np.float32)


def _round_columns(w: Array, bits: int) -> Array:
    scale = np.abs(w).max(axis=0) / (2 ** (bits - 1) - 1)
    scale[scale == 0] = 1.0
    return np.asarray(np.rint(w / scale) * scale, np.float32)


@dataclass(frozen=True)
class Choice:
    """Attributes:
    s: scales, [groups]; all 1 where none is clearly better.
    strengths: alpha of each round.
    before, after: relative mean squared error without and with s.
    """

    s: Array
    strengths: tuple[float, ...]
    before: float
    after: float


def choose(measured: Measure, alphas: Sequence[float]) -> Choice:
    """The strengths with the least error, round by round, until none lowers it by MARGIN."""
    s = np.ones(measured.x.size)
    before = best = measured.error(s)
    strengths: list[float] = []
    for _ in range(ROUNDS):
        steps = {a: scales(measured.x / s, measured.w * s, a) for a in alphas}
        errors = {a: measured.error(s * step) for a, step in steps.items()}
        alpha = min(errors, key=lambda a: errors[a])
        if not errors[alpha] < best * (1 - MARGIN):
            break
        s, best = s * steps[alpha], errors[alpha]
        strengths.append(alpha)
    return Choice(s, tuple(strengths), before, best)


def scales(x: Array, w: Array, alpha: float) -> Array:
    """`s_j = x_j^alpha / w_j^(1 - alpha)`, geometric mean 1 over the groups that have a range on both sides."""
    alive = (x > _DEAD * x.max()) & (w > _DEAD * w.max())
    if not alive.any():
        return np.ones(x.size)
    log = np.where(alive, alpha * np.log(np.where(alive, x, 1.0)) - (1 - alpha) * np.log(np.where(alive, w, 1.0)), 0.0)
    return np.asarray(np.where(alive, np.exp(log - log[alive].mean()), 1.0))
