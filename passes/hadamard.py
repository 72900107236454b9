"""Hadamard matrices of every order that Sylvester, Paley and Kronecker products reach, and random orthogonal ones."""

from __future__ import annotations

from functools import lru_cache
from itertools import product

import numpy as np

from mulshift.ir import Array


def hadamard(n: int) -> Array | None:
    """H / sqrt(n), [n, n] float64 and orthogonal, with `H H^T = n I`; None if no construction here has order n."""
    h = signs(n)
    return None if h is None else h / np.sqrt(n)


def signs(n: int) -> Array | None:
    """H of order n, int8, of 1 and -1; `H_n = H_p (x) B_m` with (p, m) = factors(n)."""
    found = factors(n)
    if found is None:
        return None
    p, m = found
    base = np.ones((1, 1), np.int8) if m == 1 else _base(m)
    assert base is not None
    return np.asarray(np.kron(_sylvester(p), base))


def factors(n: int) -> tuple[int, int] | None:
    """(p, m) with n = p m: p the largest power of two for which an H of order m is known (m = 1 for powers of two).

    A transform by H_n is then one by B_m on each of p slices and log2(p) rounds of additions and subtractions.
    """
    if n < 1:
        return None
    p = n & -n
    if p == n:
        return n, 1
    while p >= 1:
        if _reaches(n // p):
            return p, n // p
        p //= 2
    return None


def largest_order(n: int, most: int) -> int:
    """The largest order of a known H, at most `most`, that divides n (1 if there is no other)."""
    return next(g for g in range(min(n, most), 0, -1) if n % g == 0 and factors(g) is not None)


def orthogonal(n: int, seed: int) -> Array:
    """A random orthogonal [n, n] float64, uniform over the group: QR of normals, diag(R) > 0 (Stewart 1980)."""
    q, r = np.linalg.qr(np.random.default_rng(seed).normal(size=(n, n)))
    return np.asarray(q * np.where(np.diag(r) < 0, -1.0, 1.0))


def _sylvester(p: int) -> Array:
    h = np.ones((1, 1), np.int8)
    while h.shape[0] < p:
        h = np.block([[h, h], [h, -h]])
    return h


def _reaches(m: int) -> bool:
    return m % 4 == 0 and (_paley_field(m) is not None or _split(m) is not None)


def _paley_field(m: int) -> tuple[int, int] | None:
    """(kind, q), q a prime power: m = q + 1, q = 3 mod 4 (Paley I) or m = 2 (q + 1), q = 1 mod 4 (Paley II)."""
    for kind, q, residue in ((1, m - 1, 3), (2, m // 2 - 1, 1)):
        if q > 2 and q % 4 == residue and _prime_power(q) is not None:
            return kind, q
    return None


@lru_cache
def _split(m: int) -> tuple[int, int] | None:
    """Two orders, neither a power of two, whose Kronecker product has order m."""
    rows = (a for a in range(12, int(m**0.5) + 1, 4) if m % a == 0)
    return next(((a, m // a) for a in rows if _reaches(a) and _reaches(m // a)), None)


def _base(m: int) -> Array | None:
    field = _paley_field(m)
    if field is not None:
        return _paley_one(field[1]) if field[0] == 1 else _paley_two(field[1])
    parts = _split(m)
    if parts is None:
        return None
    left, right = _base(parts[0]), _base(parts[1])
    return None if left is None or right is None else np.asarray(np.kron(left, right))


def _paley_one(q: int) -> Array:
    """`H = I + S`, `S = [[0, 1], [-1, J]]`; J^T = -J for q = 3 mod 4."""
    s = np.zeros((q + 1, q + 1), np.int8)
    s[0, 1:], s[1:, 0], s[1:, 1:] = 1, -1, _jacobsthal(q)
    return s + np.eye(q + 1, dtype=np.int8)


def _paley_two(q: int) -> Array:
    """`H = C (x) [[1, 1], [1, -1]] + I (x) [[1, -1], [-1, -1]]`, `C = [[0, 1], [1, J]]`, J^T = J for q = 1 mod 4."""
    c = np.zeros((q + 1, q + 1), np.int8)
    c[0, 1:], c[1:, 0], c[1:, 1:] = 1, 1, _jacobsthal(q)
    one, other = np.array([[1, 1], [1, -1]], np.int8), np.array([[1, -1], [-1, -1]], np.int8)
    return np.asarray(np.kron(c, one) + np.kron(np.eye(q + 1, dtype=np.int8), other))


def _jacobsthal(q: int) -> Array:
    """J [q, q]: 1 where i - j is a nonzero square of GF(q), -1 where it is none, 0 on the diagonal."""
    p, k = _prime_power(q) or (q, 1)
    elements = np.array(list(product(range(p), repeat=k)))  # [q, k], coefficients, highest first
    character = np.full(q, -1, np.int8)
    character[_squares(elements, p)] = 1
    character[0] = 0
    places = p ** np.arange(k - 1, -1, -1)
    differences = (elements[:, None] - elements[None]) % p
    return np.asarray(character[differences @ places])


def _squares(elements: Array, p: int) -> Array:
    """Indices of the squares of GF(p)[x] / f; f is the first monic polynomial that makes this a field.

    A field of q elements has (q + 1) / 2 squares, zero included; the ring of a reducible f has fewer.
    """
    q, k = elements.shape
    places = p ** np.arange(k - 1, -1, -1)
    for low in elements:  # f = x^k + low
        rest = np.zeros((q, 2 * k - 1), np.int64)
        for i, j in product(range(k), repeat=2):
            rest[:, i + j] += elements[:, i] * elements[:, j]
        for i in range(k - 1):  # x^(k+d) = -low x^d, highest power first
            rest[:, i + 1 : i + 1 + k] -= rest[:, i : i + 1] % p * low
        found = np.unique(rest[:, k - 1 :] % p @ places)
        if found.size == (q + 1) // 2:
            return found
    raise AssertionError(f"GF({q}) has no polynomial")


def _prime_power(q: int) -> tuple[int, int] | None:
    """(p, k) with q = p^k, p an odd prime; None if q is no such number."""
    p = next((d for d in range(3, int(q**0.5) + 1, 2) if q % d == 0), q)
    k, rest = 0, q
    while rest % p == 0:
        rest, k = rest // p, k + 1
    return (p, k) if rest == 1 and q % 2 else None
