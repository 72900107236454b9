"""Random nodes of the operators that have kernels: attributes and constants, and inputs of many sizes for each.

Only what the compiler promises: accumulators and sums fit int32, zero points are elements of their types.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from kernel_checks import S8, S16, S32, U8, integers, one_node, open_session, run_session
from operator_checks import norm_weights, rotary_angles
from random_draws import (
    Node,
    Rng,
    draw_dyadic,
    draw_dyadics,
    draw_output,
    draw_zero_point,
    dtype_of,
    pick,
)
from random_products import random_product, reach
from sparse_weights import form_of

from mulshift.ir import OPERATORS, Array
from mulshift.ir.operators.epilogue import EPILOGUES, RESCALED
from mulshift.ir.operators.norm import NORM_ROWS
from mulshift.ir.operators.packed import PRODUCTS, RESCALING, ROW_PRODUCTS

EPILOGUE_NAMES = ["Accumulate", "", *("".join(e) for e in EPILOGUES)]
PRODUCT_NAMES = [base + epilogue for base in PRODUCTS for epilogue in EPILOGUE_NAMES]
PRODUCT_NAMES += [base + epilogue for base in ROW_PRODUCTS.values() for epilogue in EPILOGUE_NAMES[1:]]
PRODUCT_NAMES.append("".join((RESCALING, *RESCALED)))
MAIN_PRODUCT_NAMES = [
    base + epilogue
    for base in (*PRODUCTS, *ROW_PRODUCTS.values())
    for epilogue in EPILOGUE_NAMES
    if ("Int" not in base and not form_of(base.removesuffix("Rows")))
    or epilogue in ("Accumulate", "", "AddTableRequantize")
    if base + epilogue in OPERATORS
] + PRODUCT_NAMES[-1:]
"""Without most epilogues of weights of few bits or with zeros: their stages are those of the others."""
TIMES = 3
"""Sizes that one session is fed, one after the other."""


def random_node(op: str, rng: Rng) -> Node:
    """A node of that operator; what it is fed comes from `sized`."""
    if op in ELEMENTWISE | ROWS:
        return (ELEMENTWISE | ROWS)[op](rng)
    base = max((b for b in PRODUCTS if op.startswith(b)), key=len)
    return random_product(op, base, op.removeprefix(base), rng)


def check_node(node: Node, rng: Rng, threads: int, library: str = "") -> None:
    """One session, fed several sizes in turn; every output is the reference's.

    Raises:
        AssertionError: it is not.
    """
    feeds = [node.sized(rng) for _ in range(TIMES)]
    expected = [OPERATORS[node.op].run(node.attributes, *node.inputs(fed)) for fed in feeds]
    dtypes = [y.dtype for y in expected[0]]
    model = one_node(node.op, node.inputs(feeds[0]), node.attributes, dtypes, node.fed, dynamic=True)
    session = open_session(model, threads, library)
    for fed, wanted in zip(feeds, expected, strict=True):
        for got, y in zip(run_session(session, {f"i{k}": v for k, v in fed.items()}), wanted, strict=True):
            assert (got.dtype, got.shape) == (y.dtype, y.shape)
            assert np.array_equal(got, y), f"{node.op} {node.attributes}: {np.argwhere(got != y)[:3].tolist()}"


# --- numbers ---


_LONG = [1, 3, 15, 16, 17, 40, 64, 300]


def _shapes(rng: Rng) -> Callable[[Rng], tuple[int, ...]]:
    """[2, 3, h, n] for one n; only h changes."""
    n = int(pick(rng, _LONG))
    return lambda again: (2, 3, int(again.integers(1, 6)), n)


def _part(rng: Rng, shape: tuple[int, ...]) -> tuple[int, ...]:
    """What broadcasts with it and does not depend on h."""
    return pick(rng, [(), (1,), (shape[-1],), (3, 1, 1), (2, 1, 1, 1), (3, 1, shape[-1])])


def _requantize(rng: Rng) -> Node:
    dtype, shape = pick(rng, [U8, S8, S16, S32]), _shapes(rng)
    some = shape(rng)
    b = draw_dyadics(rng, _part(rng, some), int(rng.integers(-12, 2)))[0]
    c = draw_dyadics(rng, _part(rng, some), int(rng.integers(-12, 2)))[1]
    a = {"x_zero_point": draw_zero_point(rng, dtype), **draw_output(rng, (U8, S8, S16, S32))}
    return Node("Requantize", a, {1: b, 2: c}, lambda r: {0: integers(r, dtype, shape(r))})


def _add(rng: Rng) -> Node:
    left, right, shape = pick(rng, [U8, S8, S16]), pick(rng, [U8, S8, S16]), _shapes(rng)
    whole, part = bool(rng.integers(2)), _part(rng, shape(rng))
    b, c = draw_dyadic(rng, int(rng.integers(-10, 2)))
    a = {
        "x_zero_point": draw_zero_point(rng, left),
        "y_zero_point": draw_zero_point(rng, right),
        "x_multiplier": b,
        "shift": c,
    }
    a |= {"y_multiplier": draw_dyadic(rng, 0)[0], **draw_output(rng, (U8, S8, S16, S32))}
    a |= {k: a[k] * int(pick(rng, [1, 1, -1])) for k in ("x_multiplier", "y_multiplier")}

    def sized(again: Rng) -> dict[int, Array]:
        own = shape(again)
        return {0: integers(again, left, own), 1: integers(again, right, own if whole else part)}

    return Node("Add", a, {}, sized)


def _mul(rng: Rng) -> Node:
    left, right, shape = pick(rng, [U8, S8, S16]), pick(rng, [U8, S8]), _shapes(rng)
    part = _part(rng, shape(rng))
    b, c = draw_dyadic(rng, int(rng.integers(-16, 2)))
    a = {
        "x_zero_point": draw_zero_point(rng, left),
        "y_zero_point": draw_zero_point(rng, right),
        "multiplier": b,
        "shift": c,
    }
    a |= draw_output(rng, (U8, S8, S16, S32))
    return Node("Mul", a, {}, lambda r: {0: integers(r, left, shape(r)), 1: integers(r, right, part)})


def _affine(rng: Rng) -> Node:
    dtype, shape = pick(rng, [U8, S8, S16]), _shapes(rng)
    some = shape(rng)
    most = int(pick(rng, [3, 2**10, 2**13]))
    w = rng.integers(-most, most, _part(rng, some)).astype(S32)
    bias = rng.integers(-(2**30), 2**30, _part(rng, some)).astype(S32) >> int(rng.integers(0, 25))
    b = draw_dyadics(rng, _part(rng, some), int(rng.integers(-20, 0)))[0]
    c = draw_dyadics(rng, _part(rng, some), int(rng.integers(-20, 0)))[1]
    a = {"x_zero_point": draw_zero_point(rng, dtype), **draw_output(rng, (U8, S8, S16, S32))}
    if rng.random() < 0.4:  # nothing but a scaling
        dtype, a["x_zero_point"], bias = S16, 0, np.zeros(_part(rng, some), S32)
        w = np.full(w.shape, 2 ** rng.integers(0, 15), S32)
        b, c = draw_dyadics(rng, w.shape, int(rng.integers(-30, -8)))
    return Node("Affine", a, {1: w, 2: bias, 3: b, 4: c}, lambda r: {0: integers(r, dtype, shape(r))})


def _table(rng: Rng) -> Node:
    dtype, entries, shape = pick(rng, [U8, S8, S16]), pick(rng, [U8, S8, S16]), _shapes(rng)
    table = integers(rng, entries, (65536 if dtype == S16 else 256,))
    return Node("Table", {}, {1: table}, lambda r: {0: integers(r, dtype, shape(r))})


def _rotary(rng: Rng) -> Node:
    dtype, half, heads = pick(rng, [U8, S8, S16]), int(pick(rng, [1, 7, 16, 17, 32, 64])), int(rng.integers(1, 4))
    b, c = draw_dyadic(rng, int(rng.integers(-30 if dtype == S16 else -22, -10)))
    a = {"x_zero_point": draw_zero_point(rng, dtype), "multiplier": b, "shift": c, **draw_output(rng, (U8, S8, S16))}
    shared = bool(rng.integers(2))

    def sized(again: Rng) -> dict[int, Array]:
        batch, rows = (int(v) for v in again.integers(1, 6, 2))
        angles = [rotary_angles(again, dtype, (1 if shared else batch, rows, 1, half)) for _ in range(2)]
        return {0: integers(again, dtype, (batch, rows, heads, 2 * half)), 1: angles[0], 2: angles[1]}

    return Node("RotaryEmbedding", a, {}, sized)


def _hadamard(rng: Rng) -> Node:
    dtype, m = pick(rng, [U8, S8, S16]), int(pick(rng, [1, 1, 3, 12, 20, 28]))
    block = m * 2 ** int(rng.integers(0, 7))
    groups = int(rng.integers(1, 4))
    b, c = draw_dyadic(rng, int(rng.integers(-12, 0)))
    a = {"x_zero_point": draw_zero_point(rng, dtype), "block": block, "multiplier": b, "shift": c}
    a |= draw_output(rng, (U8, S8, S16))
    base = rng.choice([-1, 1], (m, m)).astype(S8)
    return Node("Hadamard", a, {1: base}, lambda r: {0: integers(r, dtype, (int(r.integers(1, 9)), 3, groups * block))})


def _reduce_mean(rng: Rng) -> Node:
    dtype, shape = pick(rng, [U8, S8, S16]), _shapes(rng)
    axes = sorted(int(i) for i in rng.choice(4, int(rng.integers(1, 5)), replace=False))
    b, c = draw_dyadic(rng, int(rng.integers(-16, -2)))
    a = {"x_zero_point": draw_zero_point(rng, dtype), "keepdims": int(rng.integers(2)), "multiplier": b, "shift": c}
    a |= draw_output(rng, (U8, S8, S16, S32))
    return Node("ReduceMean", a, {1: np.array(axes, np.int64)}, lambda r: {0: integers(r, dtype, shape(r))})


def _lerp(rng: Rng) -> Node:
    dtype, shape, axis = pick(rng, [U8, S8, S16]), _shapes(rng), int(pick(rng, [0, 1, 3]))
    size, length = shape(rng)[axis], int(rng.integers(1, 9))
    i0, i1 = rng.integers(-size, size, (2, length))
    w1 = rng.integers(0, 2**10 + 1, pick(rng, [(), (length, *[1] * (3 - axis))])).astype(S32)
    a = {"x_zero_point": draw_zero_point(rng, dtype), "axis": axis if rng.random() < 0.5 else axis - 4}
    constants = {1: i0, 2: i1, 3: np.asarray(2**10 - w1, S32), 4: w1}
    return Node("Lerp", a, constants, lambda r: {0: integers(r, dtype, shape(r))})


def _norm(op: str) -> Callable[[Rng], Node]:
    def draw(rng: Rng) -> Node:
        dtype, shape = pick(rng, [U8, S8, S16]), _shapes(rng)
        n, fraction, shift = shape(rng)[-1], int(rng.integers(0, 21)), int(rng.integers(2, 31))
        w, bias = norm_weights(rng, n, fraction, shift)
        epsilon = int(pick(rng, [0, 2**60, int(rng.integers(0, 2**60)) >> int(rng.integers(0, 60))]))
        a = {"x_zero_point": draw_zero_point(rng, dtype), "epsilon": epsilon, "fraction": fraction, "shift": shift}
        a |= draw_output(rng, (U8, S8, S16))
        if op in NORM_ROWS.values():
            a["q_x_zero_point"] = int(pick(rng, [a["zero_point"], draw_zero_point(rng, dtype_of(a["dtype"]))]))
        return Node(op, a, {1: w, 2: bias}, lambda r: {0: integers(r, dtype, shape(r))})

    return draw


def _max_pool(rng: Rng) -> Node:
    dtype, channels = pick(rng, [U8, S8]), int(pick(rng, [*_LONG, 8, 32, 33]))
    kernel, strides, dilations = (rng.integers(1, high, 2).tolist() for high in (5, 4, 3))
    pads = [int(rng.integers(0, kernel[i % 2])) for i in range(4)]
    a = {"kernel_shape": kernel, "strides": strides, "pads": pads, "dilations": dilations}
    a["ceil_mode"] = int(rng.integers(2))

    def sized(again: Rng) -> dict[int, Array]:
        size = [n + int(again.integers(0, 9)) for n in reach(a, kernel)]
        return {0: integers(again, dtype, (int(again.integers(1, 3)), *size, channels))}

    return Node("MaxPoolNhwc", a, {}, sized)


def boxes(rng: Rng, dtype: Any, rank: int) -> dict[str, Any]:
    """Attributes of SlicePad; now and then nothing is left of an axis."""
    a: dict[str, Any] = {"starts": rng.integers(0, 4, rank).tolist(), "steps": rng.integers(1, 4, rank).tolist()}
    a["ends"] = [int(pick(rng, [2**31 - 1, rng.integers(0, 10)])) for _ in range(rank)]
    a |= {name: (rng.integers(0, 4, rank) * rng.integers(0, 2, rank)).tolist() for name in ("before", "after")}
    return a | {"value": draw_zero_point(rng, dtype)}


def _slice_pad(rng: Rng) -> Node:
    dtype, rank = pick(rng, [U8, S8]), int(rng.integers(1, 5))
    return Node(
        "SlicePad", boxes(rng, dtype, rank), {}, lambda r: {0: integers(r, dtype, r.integers(1, 9, rank).tolist())}
    )


ELEMENTWISE: dict[str, Callable[[Rng], Node]] = {
    "Add": _add,
    "Affine": _affine,
    "Hadamard": _hadamard,
    "LayerNorm": _norm("LayerNorm"),
    "Lerp": _lerp,
    "MaxPoolNhwc": _max_pool,
    "Mul": _mul,
    "ReduceMean": _reduce_mean,
    "Requantize": _requantize,
    "RmsNorm": _norm("RmsNorm"),
    "RotaryEmbedding": _rotary,
    "SlicePad": _slice_pad,
    "Table": _table,
}

# --- softmax, attention, products of two activations ---


def _score_dyadic(rng: Rng, spread: float, units: int) -> dict[str, int]:
    """Scores of that spread are about some octaves apart, by a b of any width; or any b / 2^c."""
    exponent = float(np.log2(units / spread)) + float(rng.uniform(-3, 4))
    bits = int(rng.integers(2, 32))
    shift = int(np.clip(bits - exponent, 2, 62))
    b, c = int(rng.integers(2 ** (bits - 1), 2**bits)), shift
    if rng.random() < 0.15:
        b, c = draw_dyadic(rng, int(rng.integers(-20, 2)))
    return {"score_multiplier": b, "score_shift": c}


def _attention(rng: Rng, masked: bool = False, flat: bool = False) -> Node:
    groups, shared = int(rng.integers(1, 4)), int(pick(rng, [1, 1, 2, 3]))
    depth, width = (int(pick(rng, [1, 3, 8, 16, 32, rng.integers(1, 50)])) for _ in range(2))
    most = int(pick(rng, [4, 20, 70]))
    a: dict[str, Any] = {f"{n}_zero_point": draw_zero_point(rng, t) for n, t in zip("qkv", (U8, S8, S8), strict=True)}
    a |= _score_dyadic(rng, 80 * 80 * depth**0.5, 3 * 4096)
    b, c = draw_dyadic(rng, int(rng.integers(-8, 4)))
    a |= {"multiplier": b, "shift": min(c, 38), **draw_output(rng, (U8, S8, S16))}
    kind = pick(rng, ["whole", "keys", "batch", "causal", "rows", "none", "one"])

    def sized(again: Rng) -> dict[int, Array]:
        batch, rows, keys = int(again.integers(1, 3)), int(again.integers(1, most)), int(again.integers(1, 2 * most))
        if again.random() < 0.2:
            keys = int(pick(again, [15, 16, 17, 32, 1030]))
        q = integers(again, U8, (batch, rows, groups * shared, depth))
        k, v = integers(again, S8, (batch, keys, groups, depth)), integers(again, S8, (batch, keys, groups, width))
        if again.random() < 0.3:
            k[:] = k[:, :1]
        fed = [x.reshape(*x.shape[:2], -1) if flat else x for x in (q, k, v)]
        if masked:
            fed.append(_mask(again, kind, (batch, groups * shared, rows, keys)))
        return dict(enumerate(fed))

    if flat:
        a |= {"heads": groups * shared, "groups": groups}
    return Node(("Flat" if flat else "") + ("MaskedAttention" if masked else "Attention"), a, {}, sized)


def _mask(rng: Rng, kind: str, shape: tuple[int, int, int, int]) -> Array:
    batch, heads, rows, keys = shape
    if kind == "causal":
        return np.tri(rows, keys, keys - rows, dtype=bool)[None, None]
    part = {
        "whole": shape,
        "keys": (1, 1, 1, keys),
        "batch": (batch, 1, 1, keys),
        "rows": (1, heads, rows, 1),
        "none": shape,
        "one": (1, 1, 1, 1),
    }[kind]
    return np.asarray(rng.random(part) < (0 if kind == "none" else rng.choice([0.1, 0.5, 0.95])))


def _softmax(rng: Rng) -> Node:
    dtype, shape = pick(rng, [U8, S8, S16, S32]), _shapes(rng)
    bits = {U8: 8, S8: 8, S16: 16, S32: int(pick(rng, [20, 24, 31]))}[dtype]
    a = _score_dyadic(rng, 2.0**bits, int(pick(rng, [4, 12, 40])) * 4096)
    b, c = draw_dyadic(rng, int(pick(rng, [7, 8, 15, -3])))
    a |= {"multiplier": b, "shift": min(c, 22), **draw_output(rng, (U8, S8, S16))}

    def sized(again: Rng) -> dict[int, Array]:
        x = integers(again, dtype, shape(again))
        if dtype == S32 and bits < 31:
            x = np.asarray(x >> (31 - bits), S32)
        if again.random() < 0.2:
            x[:] = x[..., :1]
        return {0: x}

    return Node("Softmax", a, {}, sized)


def _matmul(rng: Rng) -> Node:
    rank, n = int(rng.integers(0, 3)), int(pick(rng, [1, 16, 64, rng.integers(1, 90)]))
    b, c = draw_dyadics(rng, pick(rng, [(n,), (1,), ()]), int(rng.integers(-18, -5)))
    a = {"x_zero_point": draw_zero_point(rng, U8), "w_zero_point": int(pick(rng, [0, 0, draw_zero_point(rng, S8)]))}
    a |= draw_output(rng, (U8, U8, S8, S16, S32))
    narrow = rng.random() < 0.3

    def sized(again: Rng) -> dict[int, Array]:
        batch = again.integers(1, 4, rank)
        parts = [np.where(again.random(rank) < 0.3, 1, batch) for _ in range(2)]
        m, k = int(again.integers(1, 60)), int(pick(again, [1, 4, 64, again.integers(1, 200), 1300]))
        x, w = integers(again, U8, (*parts[0], m, k)), integers(again, S8, (*parts[1], k, n))
        return {0: x, 1: w if not narrow else w[0]} if narrow and rank else {0: x, 1: w}

    return Node("MatMul", a, {2: b, 3: c}, sized)


def _row_quantize(rng: Rng) -> Node:
    """Rows of every length in binary."""
    dtype, shape = pick(rng, [U8, S8, S16]), _shapes(rng)

    def sized(again: Rng) -> dict[int, Array]:
        x = integers(again, dtype, shape(again))
        return {0: np.asarray(x >> again.integers(0, 16 if dtype == S16 else 8, (*x.shape[:-1], 1)), dtype)}

    return Node("RowQuantize", {"x_zero_point": draw_zero_point(rng, dtype)}, {}, sized)


ROWS: dict[str, Callable[[Rng], Node]] = {
    "RowQuantize": _row_quantize,
    **{op: _norm(op) for op in NORM_ROWS.values()},
    "Attention": _attention,
    "MaskedAttention": lambda rng: _attention(rng, masked=True),
    "FlatAttention": lambda rng: _attention(rng, flat=True),
    "FlatMaskedAttention": lambda rng: _attention(rng, masked=True, flat=True),
    "MatMul": _matmul,
    "Softmax": _softmax,
}
KERNEL_NAMES = [*ELEMENTWISE, *ROWS, *PRODUCT_NAMES]
"""Every operator that the kernel library registers."""
