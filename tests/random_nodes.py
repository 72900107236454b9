"""Random nodes of the operators that have kernels: attributes and constants, and inputs of many sizes for each.

Only what the compiler promises: accumulators and sums fit int32, zero points are elements of their types.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from kernel_checks import S8, S16, S32, U8, integers, one_node, open_session, output, run_session
from operator_checks import norm_weights, rotary_angles
from sparse_weights import form_of, thinned

from mulshift.ir import OPERATORS, Array
from mulshift.ir.operators import low_bits, packing
from mulshift.ir.operators.epilogue import EPILOGUES
from mulshift.ir.operators.packed import PRODUCTS
from mulshift.ir.operators.sparse import pack_zeros

Rng = np.random.Generator
Sized = Callable[[Rng], dict[int, Array]]

EPILOGUE_NAMES = ["Accumulate", "", *("".join(e) for e in EPILOGUES)]
PRODUCT_NAMES = [base + epilogue for base in PRODUCTS for epilogue in EPILOGUE_NAMES]
MAIN_PRODUCT_NAMES = [
    base + epilogue
    for base in PRODUCTS
    for epilogue in EPILOGUE_NAMES
    if ("Int" not in base and not form_of(base)) or epilogue in ("Accumulate", "", "AddTableRequantize")
]
"""Without most epilogues of weights of few bits or with zeros: their stages are those of the others."""
FULL = {U8: (0, 255), S8: (-128, 127), S16: (-32768, 32767), S32: (-(2**31), 2**31 - 1)}
TIMES = 3
"""Sizes that one session is fed, one after the other."""
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


def random_node(op: str, rng: Rng) -> Node:
    """A node of that operator; what it is fed comes from `sized`."""
    if op in ELEMENTWISE | ROWS:
        return (ELEMENTWISE | ROWS)[op](rng)
    base = max((b for b in PRODUCTS if op.startswith(b)), key=len)
    return _product(op, base, op.removeprefix(base), rng)


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


def _pick(rng: Rng, values: Any) -> Any:
    return values[int(rng.integers(len(values)))]


def _zero_point(rng: Rng, dtype: Any) -> int:
    return int(integers(rng, dtype, (1,))[0]) if dtype != S32 else 0


def _dyadics(rng: Rng, shape: tuple[int, ...], exponent: int) -> tuple[Array, Array]:
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
    kind = _pick(rng, ["narrow", "wide", "wide", "halves", "ends", "mixed"])
    if kind != "mixed":
        return kinds[kind].astype(S32), np.clip(shifts[kind], 2, 62).astype(S32)
    which = rng.integers(0, 4, shape)
    b, c = (np.choose(which, list(d.values())) for d in (kinds, shifts))
    return b.astype(S32), np.clip(c, 2, 62).astype(S32)


def _one_dyadic(rng: Rng, exponent: int) -> tuple[int, int]:
    b, c = _dyadics(rng, (1,), exponent)
    return int(b[0]), int(c[0])


def _output(rng: Rng, dtypes: tuple[Any, ...]) -> dict[str, int]:
    dtype = _pick(rng, dtypes)
    low, high = FULL[dtype]
    if rng.random() < 0.3:
        low, high = sorted(int(v) for v in integers(rng, dtype, (2,)))
    return output(dtype, low, high, _zero_point(rng, dtype))


def _dtype(code: int) -> Any:
    return next(dtype for dtype, own in CODES.items() if own == code)


# --- products ---


def _product(op: str, base: str, epilogue: str, rng: Rng) -> Node:
    a: dict[str, Any] = {"x_zero_point": int(_pick(rng, [0, 255, 128, rng.integers(0, 256)])), "layout": packing.K4N16}
    plain = _form(base)[0]
    make = {"GemmPacked": _gemm, "DepthwiseNhwc": _depthwise}.get(plain, _conv)
    w, packed, x_of, shape_of = make(base, a, rng)
    packed = _packed(packed, base, a, rng)
    a["w_shape"] = list(w.shape)
    constants = {1: packed, 2: _bias(rng, w, base, a["x_zero_point"])}
    if epilogue == "Accumulate":
        return Node(op, a, constants, lambda r: {0: x_of(r)})
    channels = constants[2].size
    b, c = _dyadics(rng, (channels if rng.random() < 0.7 else 1,), int(rng.integers(-18, -5)))
    constants |= {3: b, 4: c}
    small = (U8, S8) if "Table" in epilogue else (U8, S8, S16)
    dtypes = (U8, S8, S16) if "Add" in epilogue else small if "Table" in epilogue else (U8, U8, S8, S16, S32)
    a |= _output(rng, dtypes)
    last, r = _dtype(a["dtype"]), None
    if "Add" in epilogue:
        r = _pick(rng, [U8, S8, S16])
        a |= _add_stage(rng, r, small)
        last = _dtype(a["add_dtype"])
    if "Table" in epilogue:
        last = _pick(rng, [U8, S8, S16])
        constants[len(constants) + 1 + (r is not None)] = integers(rng, last, (256,))
        a["table_dtype"] = CODES[last]
    if "Requantize" in epilogue:
        q_b, q_c = _dyadics(rng, (1,), int(rng.integers(-10, 2)))
        first = len(constants) + 1 + (r is not None)
        constants |= {first: q_b.reshape(()) if rng.random() < 0.5 else q_b, first + 1: q_c}
        a |= {f"q_{k}": v for k, v in _output(rng, (U8, S8, S16, S32)).items()}
        a["q_x_zero_point"] = _zero_point(rng, last)

    def sized(again: Rng) -> dict[int, Array]:
        x = x_of(again)
        return {0: x} if r is None else {0: x, 5: integers(again, r, (*shape_of(x), channels))}

    return Node(op, a, constants, sized)


def _add_stage(rng: Rng, r: Any, dtypes: tuple[Any, ...]) -> dict[str, int]:
    exponent = int(rng.integers(-10, 2))
    x_multiplier, shift = _one_dyadic(rng, exponent)
    own = {"y_zero_point": _zero_point(rng, r), "x_multiplier": x_multiplier, "shift": shift}
    own |= {"y_multiplier": _one_dyadic(rng, exponent)[0]}
    own |= {k: own[k] * int(_pick(rng, [1, 1, -1])) for k in ("x_multiplier", "y_multiplier")}
    return {f"add_{k}": v for k, v in (own | _output(rng, dtypes)).items()}


def _bias(rng: Rng, w: Array, base: str, x_zero_point: int) -> Array:
    """As in networks, or as large as int32 sums allow."""
    reduced = (0,) if base.startswith("GemmPacked") else (1, 2, 3)
    most = 2**31 - 1 - np.abs(w.astype(np.int64)).sum(reduced) * max(x_zero_point, 255 - x_zero_point)
    small = rng.integers(-(2**16), 2**16, most.shape)
    chosen = np.where(rng.random(most.shape) < (0.5 if rng.random() < 0.2 else 0), most, small)
    return np.asarray(chosen * rng.choice([-1, 1], most.shape), S32)


def _form(base: str) -> tuple[str, int, bool]:
    """`ConvNhwcInt4Blocks` -> (`ConvNhwc`, 4, True); `ConvNhwcSharedInt4` -> (`ConvNhwc`, 4, False)."""
    if sparse := form_of(base):
        return base.removesuffix(sparse.suffix), sparse.bits, False
    plain, _, form = base.partition("Int")
    return plain, int(form[:1] or 8), form.endswith("Blocks")


def _packed(packed: Array, base: str, a: dict[str, Any], rng: Rng) -> Array:
    """k4n16 on the layout of the base."""
    _, bits, in_blocks = _form(base)
    if sparse := form_of(base):
        a["layout"] = sparse.layout
        return pack_zeros(thinned(packed, sparse.shared, rng), sparse)
    if in_blocks:
        a["layout"] = low_bits.BLOCKS
        made = low_bits.pack_blocks(packed, int(_pick(rng, [8, 16, 32])))
        assert made is not None
        return made
    if bits < 8:
        a["layout"] = low_bits.LOW_BITS[bits]
        return low_bits.pack_bits(packed, bits)
    return packed


def _weights(rng: Rng, shape: tuple[int, ...], base: str) -> Array:
    _, bits, in_blocks = _form(base)
    if in_blocks:
        columns = (shape[0], 1, 1, 1) if base.startswith("ConvNhwc") else shape[-1:]
        return np.asarray(rng.integers(-8, 8, shape) * rng.integers(1, 16, columns), S8)
    if bits == 1:
        return np.asarray(rng.choice([-1, 1], shape), S8)
    ranges = {4: [(-8, 8), (-8, -7), (7, 8)], 2: [(-2, 2), (-2, -1)]}
    some = [(-128, 128), (-64, 65), (-8, 9), (-2, 3), (-1, 2), (-128, -126), (127, 128)]
    low, high = _pick(rng, ranges.get(bits, some))
    return np.asarray(rng.integers(low, high, shape), S8)


def _gemm(base: str, a: dict[str, Any], rng: Rng) -> Any:
    k, n = int(rng.integers(1, 300)), int(_pick(rng, [rng.integers(1, 80), 16, 64, 250]))
    k = 4 * k if base.endswith("Int1") else k  # no zero to pad with
    w = _weights(rng, (k, n), base)

    rank = int(rng.integers(0, 4))

    def x_of(again: Rng) -> Array:
        return integers(again, U8, (*(int(v) for v in again.integers(1, 7, rank)), k))

    return w, packing.pack_gemm(w), x_of, lambda x: x.shape[:-1]


def _conv(base: str, a: dict[str, Any], rng: Rng) -> Any:
    winograd = rng.random() < 0.2
    group = 1 if winograd else int(_pick(rng, [1, 1, 1, 2, 3]))
    inner = int(16 * rng.integers(1, 3)) if winograd else int(_pick(rng, [3, 4, 16, rng.integers(1, 30)]))
    out = int(_pick(rng, [16, 32, rng.integers(1, 50)]))
    kernel = [3, 3] if winograd else [int(v) for v in rng.integers(1, 5, 2)]
    _window(a, rng, group, kernel, plain=winograd)
    inner = 4 * inner if base.endswith("Int1") else inner
    w = _weights(rng, (group * out, inner, *kernel), base)
    nchw = base == "ConvFromNchw"
    return w, packing.pack_conv(w, group), _images(a, kernel, group * inner, nchw), _positions(a, kernel, nchw)


def _depthwise(base: str, a: dict[str, Any], rng: Rng) -> Any:
    channels = int(_pick(rng, [16, 32, 96, rng.integers(1, 70)]))
    kernel = [int(v) for v in rng.integers(1, 6, 2)]
    _window(a, rng, channels, kernel, plain=rng.random() < 0.3)
    a["layout"] = packing.TAPS
    w = _weights(rng, (channels, 1, *kernel), base)
    return w, packing.pack_taps(w), _images(a, kernel, channels, False), _positions(a, kernel, False)


def _window(a: dict[str, Any], rng: Rng, group: int, kernel: list[int], plain: bool) -> None:
    """Uneven pads, now and then beyond the kernel, so that windows see nothing but padding."""
    beyond = 2 if rng.random() < 0.2 else 0
    pads = [int(rng.integers(0, kernel[i % 2] + beyond)) for i in range(4)]
    strides, dilations = ([1, 1], [1, 1]) if plain else [rng.integers(1, n, 2).tolist() for n in (4, 3)]
    a |= {"strides": strides, "pads": pads, "dilations": dilations, "group": group}


def _reach(a: dict[str, Any], kernel: list[int]) -> list[int]:
    return [(k - 1) * d + 1 for k, d in zip(kernel, a["dilations"], strict=True)]


def _images(a: dict[str, Any], kernel: list[int], channels: int, nchw: bool) -> Callable[[Rng], Array]:
    def draw(rng: Rng) -> Array:
        least = [max(1, n - a["pads"][i] - a["pads"][i + 2]) for i, n in enumerate(_reach(a, kernel))]
        size = [n + int(rng.integers(0, 9)) for n in least]
        batch = int(_pick(rng, [1, 1, 2, 3]))
        return integers(rng, U8, (batch, channels, *size) if nchw else (batch, *size, channels))

    return draw


def _positions(a: dict[str, Any], kernel: list[int], nchw: bool) -> Callable[[Array], tuple[int, ...]]:
    def shape(x: Array) -> tuple[int, ...]:
        sizes = x.shape[2:] if nchw else x.shape[1:3]
        reach = _reach(a, kernel)
        found = [(sizes[i] + a["pads"][i] + a["pads"][i + 2] - reach[i]) // a["strides"][i] + 1 for i in range(2)]
        return (x.shape[0], *found)

    return shape


# --- elementwise, pooling ---

_LONG = [1, 3, 15, 16, 17, 40, 64, 300]


def _shapes(rng: Rng) -> Callable[[Rng], tuple[int, ...]]:
    """[2, 3, h, n] for one n; only h changes."""
    n = int(_pick(rng, _LONG))
    return lambda again: (2, 3, int(again.integers(1, 6)), n)


def _part(rng: Rng, shape: tuple[int, ...]) -> tuple[int, ...]:
    """What broadcasts with it and does not depend on h."""
    return _pick(rng, [(), (1,), (shape[-1],), (3, 1, 1), (2, 1, 1, 1), (3, 1, shape[-1])])


def _requantize(rng: Rng) -> Node:
    dtype, shape = _pick(rng, [U8, S8, S16, S32]), _shapes(rng)
    some = shape(rng)
    b = _dyadics(rng, _part(rng, some), int(rng.integers(-12, 2)))[0]
    c = _dyadics(rng, _part(rng, some), int(rng.integers(-12, 2)))[1]
    a = {"x_zero_point": _zero_point(rng, dtype), **_output(rng, (U8, S8, S16, S32))}
    return Node("Requantize", a, {1: b, 2: c}, lambda r: {0: integers(r, dtype, shape(r))})


def _add(rng: Rng) -> Node:
    left, right, shape = _pick(rng, [U8, S8, S16]), _pick(rng, [U8, S8, S16]), _shapes(rng)
    whole, part = bool(rng.integers(2)), _part(rng, shape(rng))
    b, c = _one_dyadic(rng, int(rng.integers(-10, 2)))
    a = {"x_zero_point": _zero_point(rng, left), "y_zero_point": _zero_point(rng, right), "x_multiplier": b, "shift": c}
    a |= {"y_multiplier": _one_dyadic(rng, 0)[0], **_output(rng, (U8, S8, S16, S32))}
    a |= {k: a[k] * int(_pick(rng, [1, 1, -1])) for k in ("x_multiplier", "y_multiplier")}

    def sized(again: Rng) -> dict[int, Array]:
        own = shape(again)
        return {0: integers(again, left, own), 1: integers(again, right, own if whole else part)}

    return Node("Add", a, {}, sized)


def _mul(rng: Rng) -> Node:
    left, right, shape = _pick(rng, [U8, S8, S16]), _pick(rng, [U8, S8]), _shapes(rng)
    part = _part(rng, shape(rng))
    b, c = _one_dyadic(rng, int(rng.integers(-16, 2)))
    a = {"x_zero_point": _zero_point(rng, left), "y_zero_point": _zero_point(rng, right), "multiplier": b, "shift": c}
    a |= _output(rng, (U8, S8, S16, S32))
    return Node("Mul", a, {}, lambda r: {0: integers(r, left, shape(r)), 1: integers(r, right, part)})


def _affine(rng: Rng) -> Node:
    dtype, shape = _pick(rng, [U8, S8, S16]), _shapes(rng)
    some = shape(rng)
    most = int(_pick(rng, [3, 2**10, 2**13]))
    w = rng.integers(-most, most, _part(rng, some)).astype(S32)
    bias = rng.integers(-(2**30), 2**30, _part(rng, some)).astype(S32) >> int(rng.integers(0, 25))
    b = _dyadics(rng, _part(rng, some), int(rng.integers(-20, 0)))[0]
    c = _dyadics(rng, _part(rng, some), int(rng.integers(-20, 0)))[1]
    a = {"x_zero_point": _zero_point(rng, dtype), **_output(rng, (U8, S8, S16, S32))}
    return Node("Affine", a, {1: w, 2: bias, 3: b, 4: c}, lambda r: {0: integers(r, dtype, shape(r))})


def _table(rng: Rng) -> Node:
    dtype, entries, shape = _pick(rng, [U8, S8, S16]), _pick(rng, [U8, S8, S16]), _shapes(rng)
    table = integers(rng, entries, (65536 if dtype == S16 else 256,))
    return Node("Table", {}, {1: table}, lambda r: {0: integers(r, dtype, shape(r))})


def _rotary(rng: Rng) -> Node:
    dtype, half, heads = _pick(rng, [U8, S8, S16]), int(_pick(rng, [1, 7, 16, 17, 32, 64])), int(rng.integers(1, 4))
    b, c = _one_dyadic(rng, int(rng.integers(-30 if dtype == S16 else -22, -10)))
    a = {"x_zero_point": _zero_point(rng, dtype), "multiplier": b, "shift": c, **_output(rng, (U8, S8, S16))}
    shared = bool(rng.integers(2))

    def sized(again: Rng) -> dict[int, Array]:
        batch, rows = (int(v) for v in again.integers(1, 6, 2))
        angles = [rotary_angles(again, dtype, (1 if shared else batch, rows, 1, half)) for _ in range(2)]
        return {0: integers(again, dtype, (batch, rows, heads, 2 * half)), 1: angles[0], 2: angles[1]}

    return Node("RotaryEmbedding", a, {}, sized)


def _hadamard(rng: Rng) -> Node:
    dtype, m = _pick(rng, [U8, S8, S16]), int(_pick(rng, [1, 1, 3, 12, 20, 28]))
    block = m * 2 ** int(rng.integers(0, 7))
    groups = int(rng.integers(1, 4))
    b, c = _one_dyadic(rng, int(rng.integers(-12, 0)))
    a = {"x_zero_point": _zero_point(rng, dtype), "block": block, "multiplier": b, "shift": c}
    a |= _output(rng, (U8, S8, S16))
    base = rng.choice([-1, 1], (m, m)).astype(S8)
    return Node("Hadamard", a, {1: base}, lambda r: {0: integers(r, dtype, (int(r.integers(1, 9)), 3, groups * block))})


def _reduce_mean(rng: Rng) -> Node:
    dtype, shape = _pick(rng, [U8, S8, S16]), _shapes(rng)
    axes = sorted(int(i) for i in rng.choice(4, int(rng.integers(1, 5)), replace=False))
    b, c = _one_dyadic(rng, int(rng.integers(-16, -2)))
    a = {"x_zero_point": _zero_point(rng, dtype), "keepdims": int(rng.integers(2)), "multiplier": b, "shift": c}
    a |= _output(rng, (U8, S8, S16, S32))
    return Node("ReduceMean", a, {1: np.array(axes, np.int64)}, lambda r: {0: integers(r, dtype, shape(r))})


def _lerp(rng: Rng) -> Node:
    dtype, shape, axis = _pick(rng, [U8, S8, S16]), _shapes(rng), int(_pick(rng, [0, 1, 3]))
    size, length = shape(rng)[axis], int(rng.integers(1, 9))
    i0, i1 = rng.integers(-size, size, (2, length))
    w1 = rng.integers(0, 2**10 + 1, _pick(rng, [(), (length, *[1] * (3 - axis))])).astype(S32)
    a = {"x_zero_point": _zero_point(rng, dtype), "axis": axis if rng.random() < 0.5 else axis - 4}
    constants = {1: i0, 2: i1, 3: np.asarray(2**10 - w1, S32), 4: w1}
    return Node("Lerp", a, constants, lambda r: {0: integers(r, dtype, shape(r))})


def _norm(op: str) -> Callable[[Rng], Node]:
    def draw(rng: Rng) -> Node:
        dtype, shape = _pick(rng, [U8, S8, S16]), _shapes(rng)
        n, fraction, shift = shape(rng)[-1], int(rng.integers(0, 21)), int(rng.integers(2, 31))
        w, bias = norm_weights(rng, n, fraction, shift)
        epsilon = int(_pick(rng, [0, 2**60, int(rng.integers(0, 2**60)) >> int(rng.integers(0, 60))]))
        a = {"x_zero_point": _zero_point(rng, dtype), "epsilon": epsilon, "fraction": fraction, "shift": shift}
        a |= _output(rng, (U8, S8, S16))
        return Node(op, a, {1: w, 2: bias}, lambda r: {0: integers(r, dtype, shape(r))})

    return draw


def _max_pool(rng: Rng) -> Node:
    dtype, channels = _pick(rng, [U8, S8]), int(_pick(rng, [*_LONG, 8, 32, 33]))
    kernel, strides, dilations = (rng.integers(1, high, 2).tolist() for high in (5, 4, 3))
    pads = [int(rng.integers(0, kernel[i % 2])) for i in range(4)]
    a = {"kernel_shape": kernel, "strides": strides, "pads": pads, "dilations": dilations}
    a["ceil_mode"] = int(rng.integers(2))

    def sized(again: Rng) -> dict[int, Array]:
        size = [n + int(again.integers(0, 9)) for n in _reach(a, kernel)]
        return {0: integers(again, dtype, (int(again.integers(1, 3)), *size, channels))}

    return Node("MaxPoolNhwc", a, {}, sized)


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
        b, c = _one_dyadic(rng, int(rng.integers(-20, 2)))
    return {"score_multiplier": b, "score_shift": c}


def _attention(rng: Rng, masked: bool = False) -> Node:
    groups, shared = int(rng.integers(1, 4)), int(_pick(rng, [1, 1, 2, 3]))
    depth, width = (int(_pick(rng, [1, 3, 8, 16, 32, rng.integers(1, 50)])) for _ in range(2))
    most = int(_pick(rng, [4, 20, 70]))
    a: dict[str, Any] = {f"{n}_zero_point": _zero_point(rng, t) for n, t in zip("qkv", (U8, S8, S8), strict=True)}
    a |= _score_dyadic(rng, 80 * 80 * depth**0.5, 3 * 4096)
    b, c = _one_dyadic(rng, int(rng.integers(-8, 4)))
    a |= {"multiplier": b, "shift": min(c, 38), **_output(rng, (U8, S8, S16))}
    kind = _pick(rng, ["whole", "keys", "batch", "causal", "rows", "none", "one"])

    def sized(again: Rng) -> dict[int, Array]:
        batch, rows, keys = int(again.integers(1, 3)), int(again.integers(1, most)), int(again.integers(1, 2 * most))
        if again.random() < 0.2:
            keys = int(_pick(again, [15, 16, 17, 32, 1030]))
        q = integers(again, U8, (batch, rows, groups * shared, depth))
        k, v = integers(again, S8, (batch, keys, groups, depth)), integers(again, S8, (batch, keys, groups, width))
        if again.random() < 0.3:
            k[:] = k[:, :1]
        if not masked:
            return {0: q, 1: k, 2: v}
        return {0: q, 1: k, 2: v, 3: _mask(again, kind, (batch, groups * shared, rows, keys))}

    return Node("MaskedAttention" if masked else "Attention", a, {}, sized)


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
    dtype, shape = _pick(rng, [U8, S8, S16, S32]), _shapes(rng)
    bits = {U8: 8, S8: 8, S16: 16, S32: int(_pick(rng, [20, 24, 31]))}[dtype]
    a = _score_dyadic(rng, 2.0**bits, int(_pick(rng, [4, 12, 40])) * 4096)
    b, c = _one_dyadic(rng, int(_pick(rng, [7, 8, 15, -3])))
    a |= {"multiplier": b, "shift": min(c, 22), **_output(rng, (U8, S8, S16))}

    def sized(again: Rng) -> dict[int, Array]:
        x = integers(again, dtype, shape(again))
        if dtype == S32 and bits < 31:
            x = np.asarray(x >> (31 - bits), S32)
        if again.random() < 0.2:
            x[:] = x[..., :1]
        return {0: x}

    return Node("Softmax", a, {}, sized)


def _matmul(rng: Rng) -> Node:
    rank, n = int(rng.integers(0, 3)), int(_pick(rng, [1, 16, 64, rng.integers(1, 90)]))
    b, c = _dyadics(rng, _pick(rng, [(n,), (1,), ()]), int(rng.integers(-18, -5)))
    a = {"x_zero_point": _zero_point(rng, U8), "w_zero_point": int(_pick(rng, [0, 0, _zero_point(rng, S8)]))}
    a |= _output(rng, (U8, U8, S8, S16, S32))
    narrow = rng.random() < 0.3

    def sized(again: Rng) -> dict[int, Array]:
        batch = again.integers(1, 4, rank)
        parts = [np.where(again.random(rank) < 0.3, 1, batch) for _ in range(2)]
        m, k = int(again.integers(1, 60)), int(_pick(again, [1, 4, 64, again.integers(1, 200), 1300]))
        x, w = integers(again, U8, (*parts[0], m, k)), integers(again, S8, (*parts[1], k, n))
        return {0: x, 1: w if not narrow else w[0]} if narrow and rank else {0: x, 1: w}

    return Node("MatMul", a, {2: b, 3: c}, sized)


def _row_quantize(rng: Rng) -> Node:
    """Rows of every length in binary."""
    dtype, shape = _pick(rng, [U8, S8, S16]), _shapes(rng)

    def sized(again: Rng) -> dict[int, Array]:
        x = integers(again, dtype, shape(again))
        return {0: np.asarray(x >> again.integers(0, 16 if dtype == S16 else 8, (*x.shape[:-1], 1)), dtype)}

    return Node("RowQuantize", {"x_zero_point": _zero_point(rng, dtype)}, {}, sized)


ROWS: dict[str, Callable[[Rng], Node]] = {
    "RowQuantize": _row_quantize,
    "Attention": _attention,
    "MaskedAttention": lambda rng: _attention(rng, masked=True),
    "MatMul": _matmul,
    "Softmax": _softmax,
}
KERNEL_NAMES = [*ELEMENTWISE, *ROWS, *PRODUCT_NAMES]
"""Every operator that the kernel library registers."""
