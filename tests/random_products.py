"""Random products on packed weights: shapes, layouts, bits and zeros, and the stages behind them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from kernel_checks import S8, S16, S32, U8, integers
from random_draws import CODES, Node, Rng, draw_dyadic, draw_dyadics, draw_output, draw_zero_point, dtype_of, pick
from sparse_weights import form_of, thinned

from mulshift.ir import Array
from mulshift.ir.operators import low_bits, packing
from mulshift.ir.operators.sparse import pack_zeros


def random_product(op: str, base: str, epilogue: str, rng: Rng) -> Node:
    a: dict[str, Any] = {"x_zero_point": int(pick(rng, [0, 255, 128, rng.integers(0, 256)])), "layout": packing.K4N16}
    plain = _form(base)[0]
    make = {"GemmPacked": _gemm, "DepthwiseNhwc": _depthwise}.get(plain, _conv)
    w, packed, x_of, shape_of = make(base, a, rng)
    packed = _packed(packed, base, a, rng)
    a["w_shape"] = list(w.shape)
    constants = {1: packed, 2: _bias(rng, w, base, a["x_zero_point"])}
    if epilogue == "Accumulate":
        return Node(op, a, constants, lambda r: {0: x_of(r)})
    channels = constants[2].size
    b, c = draw_dyadics(rng, (channels if rng.random() < 0.7 else 1,), int(rng.integers(-18, -5)))
    constants |= {3: b, 4: c}
    by_rows = epilogue.startswith("Rows")
    most_k = min(int(c.min()) - 2, 12)
    small = (U8, S8) if "Table" in epilogue else (U8, S8, S16)
    dtypes = (U8, S8, S16) if "Add" in epilogue else small if "Table" in epilogue else (U8, U8, S8, S16, S32)
    a |= draw_output(rng, dtypes)
    last, r = dtype_of(a["dtype"]), None
    if "Add" in epilogue:
        r = pick(rng, [U8, S8, S16])
        a |= _add_stage(rng, r, small)
        last = dtype_of(a["add_dtype"])
    if "Table" in epilogue:
        last = S16 if "Rescale" in epilogue else pick(rng, [U8, S8, S16])
        constants[len(constants) + 1 + by_rows + (r is not None)] = integers(rng, last, (256,))
        a["table_dtype"] = CODES[last]
    if "Rescale" in epilogue:
        some = (channels if rng.random() < 0.7 else 1,)
        first = len(constants) + 1
        constants |= dict(zip((first, first + 1), draw_dyadics(rng, some, int(rng.integers(-10, 2))), strict=True))
        a |= {f"rescale_{k}": v for k, v in draw_output(rng, (U8, U8, S8, S16)).items()}
        a["rescale_x_zero_point"] = 0 if rng.random() < 0.7 else draw_zero_point(rng, last)
    if "Requantize" in epilogue:
        q_b, q_c = draw_dyadics(rng, (1,), int(rng.integers(-10, 2)))
        first = len(constants) + 1 + by_rows + (r is not None)
        constants |= {first: q_b.reshape(()) if rng.random() < 0.5 else q_b, first + 1: q_c}
        a |= {f"q_{k}": v for k, v in draw_output(rng, (U8, S8, S16, S32)).items()}
        a["q_x_zero_point"] = draw_zero_point(rng, last)

    def sized(again: Rng) -> dict[int, Array]:
        fed = [x_of(again)]
        rows = shape_of(fed[0])
        if by_rows:
            fed.append(np.asarray(again.integers(0, most_k + 1, (*rows, 1)), S32))
        if r is not None:
            fed.append(integers(again, r, (*rows, channels)))
        return dict(zip((0, 5, 6), fed, strict=False))

    return Node(op, a, constants, sized)


def _add_stage(rng: Rng, r: Any, dtypes: tuple[Any, ...]) -> dict[str, int]:
    exponent = int(rng.integers(-10, 2))
    x_multiplier, shift = draw_dyadic(rng, exponent)
    own = {"y_zero_point": draw_zero_point(rng, r), "x_multiplier": x_multiplier, "shift": shift}
    own |= {"y_multiplier": draw_dyadic(rng, exponent)[0]}
    own |= {k: own[k] * int(pick(rng, [1, 1, -1])) for k in ("x_multiplier", "y_multiplier")}
    return {f"add_{k}": v for k, v in (own | draw_output(rng, dtypes)).items()}


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
        made = low_bits.pack_blocks(packed, int(pick(rng, [8, 16, 32])))
        assert made is not None
        return made
    if bits < 8 and base.startswith("DepthwiseNhwc"):
        a["layout"] = low_bits.LOW_TAPS[bits]
        return low_bits.pack_low_taps(packed, bits)
    if bits < 8:
        a["layout"] = low_bits.LOW_BITS[bits]
        return low_bits.pack_bits(packed, bits)
    return packed


def _weights(rng: Rng, shape: tuple[int, ...], base: str) -> Array:
    _, bits, in_blocks = _form(base)
    if in_blocks:
        columns = shape[-1:] if base.startswith("GemmPacked") else (shape[0], 1, 1, 1)
        return np.asarray(rng.integers(-8, 8, shape) * rng.integers(1, 16, columns), S8)
    if bits == 1:
        return np.asarray(rng.choice([-1, 1], shape), S8)
    ranges = {4: [(-8, 8), (-8, -7), (7, 8)], 2: [(-2, 2), (-2, -1)]}
    some = [(-128, 128), (-64, 65), (-8, 9), (-2, 3), (-1, 2), (-128, -126), (127, 128)]
    low, high = pick(rng, ranges.get(bits, some))
    return np.asarray(rng.integers(low, high, shape), S8)


def _gemm(base: str, a: dict[str, Any], rng: Rng) -> Any:
    k, n = int(rng.integers(1, 300)), int(pick(rng, [rng.integers(1, 80), 16, 64, 250]))
    k = 4 * k if base.endswith("Int1") else k  # no zero to pad with
    w = _weights(rng, (k, n), base)

    rank = int(rng.integers(0, 4))

    def x_of(again: Rng) -> Array:
        return integers(again, U8, (*(int(v) for v in again.integers(1, 7, rank)), k))

    return w, packing.pack_gemm(w), x_of, lambda x: x.shape[:-1]


def _conv(base: str, a: dict[str, Any], rng: Rng) -> Any:
    winograd = rng.random() < 0.2
    group = 1 if winograd else int(pick(rng, [1, 1, 1, 2, 3]))
    inner = int(16 * rng.integers(1, 3)) if winograd else int(pick(rng, [3, 4, 16, rng.integers(1, 30)]))
    out = int(pick(rng, [16, 32, rng.integers(1, 50)]))
    kernel = [3, 3] if winograd else [int(v) for v in rng.integers(1, 5, 2)]
    _window(a, rng, group, kernel, plain=winograd)
    inner = 4 * inner if base.endswith("Int1") else inner
    w = _weights(rng, (group * out, inner, *kernel), base)
    nchw = base.startswith("ConvFromNchw")
    return w, packing.pack_conv(w, group), _images(a, kernel, group * inner, nchw), _positions(a, kernel, nchw)


def _depthwise(base: str, a: dict[str, Any], rng: Rng) -> Any:
    channels = int(pick(rng, [16, 32, 96, rng.integers(1, 70)]))
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


def reach(a: dict[str, Any], kernel: list[int]) -> list[int]:
    return [(k - 1) * d + 1 for k, d in zip(kernel, a["dilations"], strict=True)]


def _images(a: dict[str, Any], kernel: list[int], channels: int, nchw: bool) -> Callable[[Rng], Array]:
    def draw(rng: Rng) -> Array:
        least = [max(1, n - a["pads"][i] - a["pads"][i + 2]) for i, n in enumerate(reach(a, kernel))]
        size = [n + int(rng.integers(0, 9)) for n in least]
        batch = int(pick(rng, [1, 1, 2, 3]))
        return integers(rng, U8, (batch, channels, *size) if nchw else (batch, *size, channels))

    return draw


def _positions(a: dict[str, Any], kernel: list[int], nchw: bool) -> Callable[[Array], tuple[int, ...]]:
    def shape(x: Array) -> tuple[int, ...]:
        sizes = x.shape[2:] if nchw else x.shape[1:3]
        extent = reach(a, kernel)
        found = [(sizes[i] + a["pads"][i] + a["pads"][i + 2] - extent[i]) // a["strides"][i] + 1 for i in range(2)]
        return (x.shape[0], *found)

    return shape


# --- elementwise, pooling ---
