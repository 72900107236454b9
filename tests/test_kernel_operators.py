"""Each elementwise and pooling kernel equals its operator's Python reference, bit for bit, on every instruction set.

The tests here run with the instruction set of this process; the last one runs them again with each of the others.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_checks import S8, S16, S32, U8, check, integers, one_node, output, run
from operator_checks import norm_rows, norm_weights, rotary_angles
from random_nodes import boxes

from mulshift import kernels

MANY = settings(max_examples=40, deadline=None)

seeds = st.integers(0, 2**32 - 1)
small = st.sampled_from([U8, S8, S16])
ends = st.sampled_from(
    [
        (U8, 0, 255),
        (U8, 3, 200),
        (S8, -128, 127),
        (S8, -127, 5),
        (S16, -32768, 32767),
        (S32, -(2**31), 2**31 - 1),
        (S32, -(2**31), -7),
    ]
)
lengths = st.one_of(st.integers(1, 40), st.sampled_from([63, 64, 65, 1000]))
# Shapes that broadcast with [2, 3, 4, n].
others = st.sampled_from(["same", "scalar", "one", "last", "middle", "rows", "first", "mixed"])


def _other(kind: str, n: int) -> tuple[int, ...]:
    return {
        "same": (2, 3, 4, n),
        "scalar": (),
        "one": (1,),
        "last": (n,),
        "middle": (3, 1, 1),
        "rows": (4, 1),
        "first": (2, 1, 1, 1),
        "mixed": (3, 1, n),
    }[kind]


def _dyadics(rng: np.random.Generator, shape: tuple[int, ...], bits: int) -> tuple[np.ndarray, np.ndarray]:
    """b of at most `bits` bits and c near it, so that results are spread over the range; rarely any c at all."""
    b = rng.integers(0, 2**bits, shape, np.int64)
    c = np.clip(bits + rng.integers(-4, 20, shape), 2, 62)
    anything = rng.random() < 0.2
    return b.astype(S32), (rng.integers(2, 63, shape) if anything else c).astype(S32)


def _zero_point(rng: np.random.Generator, dtype: Any) -> int:
    return int(integers(rng, dtype, (1,))[0])


def _output(rng: np.random.Generator, kind: tuple[Any, int, int]) -> dict[str, int]:
    dtype, low, high = kind
    wide = dtype == S32 and rng.random() < 0.5
    return output(dtype, low, high, _zero_point(rng, S32 if wide else S8))


@MANY
@given(seeds, ends, st.sampled_from([U8, S8, S16, S32]), lengths, others, others, st.sampled_from([3, 14, 22, 31]))
def test_requantize(seed: int, kind: tuple[Any, int, int], dtype: Any, n: int, bs: str, cs: str, bits: int) -> None:
    rng = np.random.default_rng(seed)
    x = integers(rng, dtype, (2, 3, 4, n))
    b, c = _dyadics(rng, _other(bs, n), bits)[0], _dyadics(rng, _other(cs, n), bits)[1]
    zx = 0 if dtype == S32 else _zero_point(rng, dtype)
    fed = [(0,), (0, 1, 2)][seed % 2]
    check("Requantize", [x, b, c], {"x_zero_point": zx, **_output(rng, kind)}, fed)


@MANY
@given(seeds, st.sampled_from([4, 17]), ends)
def test_requantize_broadcasts_x_too(seed: int, n: int, kind: tuple[Any, int, int]) -> None:
    rng = np.random.default_rng(seed)
    b, c = _dyadics(rng, (3, n), 20)
    check("Requantize", [integers(rng, U8, (2, 1, 1)), b, c], {"x_zero_point": 3, **_output(rng, kind)})


def test_requantize_of_channels_that_agree_on_no_way_in_32_bits() -> None:
    """Alone, the first fits a 32-bit product and the second the upper half of one; together, neither."""
    x, b, c = np.tile(U8([[255], [0]]), 20), S32([8421504, 2**31 - 1] * 10), S32([2, 38] * 10)
    check("Requantize", [x, b, c], {"x_zero_point": 0, **output(S32, -(2**31), 2**31 - 1, 0)})


def test_requantize_to_a_zero_point_far_away() -> None:
    """Rounded it is 2^29; with the zero point it leaves int32 before the clamp."""
    x = np.tile(S16([-32768, 32767]), 20)
    for z in (2**31 - 1, 2**30, -(2**30), -(2**31)):
        check("Requantize", [x, S32([65535]), S32([2])], {"x_zero_point": 0, **output(S32, -(2**31), 2**31 - 1, z)})


@MANY
@given(seeds, ends, small, small, lengths, others, st.sampled_from([3, 14, 22, 31]))
def test_add(seed: int, kind: tuple[Any, int, int], left: Any, right: Any, n: int, shape: str, bits: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = integers(rng, left, (2, 3, 4, n)), integers(rng, right, _other(shape, n))
    bx, by = (int(v) for v in rng.integers(0, 2**bits, 2))
    a = {"x_zero_point": _zero_point(rng, left), "y_zero_point": _zero_point(rng, right)}
    a |= {"x_multiplier": bx, "y_multiplier": by, "shift": int(np.clip(bits + rng.integers(-4, 20), 2, 62))}
    inputs = [x, y] if seed % 2 else [y, x]
    if not seed % 2:
        a |= {"x_zero_point": a["y_zero_point"], "y_zero_point": a["x_zero_point"]}
    check("Add", inputs, a | _output(rng, kind), (0, 1))


@MANY
@given(seeds, ends, small, st.sampled_from([U8, S8]), lengths, others, st.sampled_from([3, 14, 22, 31]))
def test_mul(seed: int, kind: tuple[Any, int, int], left: Any, right: Any, n: int, shape: str, bits: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = integers(rng, left, (2, 3, 4, n)), integers(rng, right, _other(shape, n))
    a = {"x_zero_point": _zero_point(rng, left), "y_zero_point": _zero_point(rng, right)}
    a |= {"multiplier": int(rng.integers(0, 2**bits)), "shift": int(np.clip(bits + rng.integers(-4, 30), 2, 62))}
    check("Mul", [x, y], a | _output(rng, kind), (0, 1))


@MANY
@given(seeds, ends, small, lengths, st.lists(others, min_size=4, max_size=4), st.sampled_from([3, 10, 31]))
def test_affine(seed: int, kind: tuple[Any, int, int], dtype: Any, n: int, shapes: list[str], bits: int) -> None:
    rng = np.random.default_rng(seed)
    w = rng.integers(-(2**10), 2**10, _other(shapes[0], n)).astype(S32)
    bias = rng.integers(-(2**15), 2**15, _other(shapes[1], n)).astype(S32)
    b, c = _dyadics(rng, _other(shapes[2], n), bits)[0], _dyadics(rng, _other(shapes[3], n), bits)[1]
    a = {"x_zero_point": _zero_point(rng, dtype), **_output(rng, kind)}
    check("Affine", [integers(rng, dtype, (2, 3, 4, n)), w, bias, b, c], a)


@MANY
@given(seeds, small, small, st.integers(0, 200))
def test_table(seed: int, dtype: Any, entries: Any, n: int) -> None:
    rng = np.random.default_rng(seed)
    fed = [(0,), (0, 1)][seed % 2]
    size = 2 ** (8 * dtype().itemsize)
    check("Table", [integers(rng, dtype, (3, n)), integers(rng, entries, (size,))], {}, fed)


@MANY
@given(seeds, small, st.integers(0, 200))
def test_table_of_16_bits(seed: int, entries: Any, n: int) -> None:
    rng = np.random.default_rng(seed)
    fed = [(0,), (0, 1)][seed % 2]
    check("Table", [integers(rng, S16, (3, n)), integers(rng, entries, (65536,))], {}, fed)


@pytest.mark.parametrize("entries", [U8, S16])
def test_table_of_every_word(entries: Any) -> None:
    rng = np.random.default_rng(0)
    check(
        "Table", [rng.permutation(65536).astype(np.uint16).view(S16), integers(rng, entries, (65536,))], {}, threads=2
    )


def test_table_of_every_byte() -> None:
    table = np.random.default_rng(0).permutation(256).astype(U8)
    x = np.tile(np.arange(256, dtype=U8), 3)
    for start in range(70):
        check("Table", [x[start:], table], {})


@MANY
@given(
    seeds,
    ends,
    small,
    st.lists(st.sampled_from([1, 2, 3, 7, 17, 70]), min_size=1, max_size=4),
    st.sets(st.integers(0, 3), min_size=1),
    st.sampled_from([0, 1]),
)
def test_reduce_mean(
    seed: int, kind: tuple[Any, int, int], dtype: Any, shape: list[int], chosen: set[int], keep: int
) -> None:
    rng = np.random.default_rng(seed)
    axes = sorted({i % len(shape) for i in chosen})
    axes = [i - len(shape) if rng.random() < 0.5 else i for i in axes]
    bits = int(rng.choice([8, 22, 31]))
    a = {"x_zero_point": _zero_point(rng, dtype), "keepdims": keep}
    a |= {"multiplier": int(rng.integers(0, 2**bits)), "shift": int(np.clip(bits + rng.integers(-4, 20), 2, 62))}
    terms = int(np.prod([shape[i] for i in axes]))
    x = integers(rng, dtype, shape)
    if terms * 2**16 >= 2**31:  # N * |x - zx| < 2^31 is the compiler's promise
        x = (x % 16).astype(dtype)
        a["x_zero_point"] = 3
    check("ReduceMean", [x, np.array(axes, np.int64)], a | _output(rng, kind))


@pytest.mark.parametrize("shape", [(2, 7, 7, 1280), (2, 1280, 7, 7), (3, 40, 197), (1, 300, 300, 3)])
def test_reduce_mean_of_images(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    a = {"x_zero_point": 120, "keepdims": 1, "multiplier": 21399, "shift": 20, **output(U8, 0, 255, 128)}
    for axes in ([1, 2], [2, 3], [-1]):
        if max(axes) < len(shape):
            check("ReduceMean", [integers(rng, U8, shape), np.array(axes, np.int64)], a)


def test_reduce_mean_beyond_32_bits_of_plain_sums() -> None:
    """The sum of x leaves int32 although that of x - zx does not."""
    x = np.full((1, 70000), 32767, S16)
    a = {"x_zero_point": 32760, "keepdims": 0, "multiplier": 2**30, "shift": 46, **output(S16, -32768, 32767, 0)}
    check("ReduceMean", [x, np.array([1], np.int64)], a)


@MANY
@given(seeds, st.sampled_from([U8, S8, S16, S32]), st.integers(0, 2), st.integers(1, 40), st.booleans())
def test_lerp(seed: int, dtype: Any, axis: int, inner: int, scalar: bool) -> None:
    rng = np.random.default_rng(seed)
    x = (
        integers(rng, dtype, (2, 4, inner))
        if dtype != S32
        else rng.integers(-(2**20), 2**20, (2, 4, inner)).astype(S32)
    )
    length = int(rng.integers(1, 9))
    size = x.shape[axis]
    i0, i1 = rng.integers(-size, size, (2, length))
    w1 = rng.integers(0, 2**10 + 1, () if scalar else (length, *[1] * (2 - axis))).astype(S32)
    a = {"x_zero_point": 3 if dtype != S8 else -3, "axis": axis if seed % 2 else axis - 3}
    check("Lerp", [x, i0, i1, (2**10 - w1).astype(S32), w1], a)


@MANY
@given(seeds, st.sampled_from(["LayerNorm", "RmsNorm"]), small, ends, lengths, st.integers(0, 20), st.integers(2, 30))
def test_norm(seed: int, op: str, dtype: Any, kind: tuple[Any, int, int], n: int, fraction: int, shift: int) -> None:
    rng = np.random.default_rng(seed)
    w, bias = norm_weights(rng, n, fraction, shift)
    epsilon = int(rng.integers(0, 2**60 + 1)) >> int(rng.integers(0, 61))
    a = {"x_zero_point": _zero_point(rng, dtype), "epsilon": epsilon, "fraction": fraction, "shift": shift}
    dtype_of_y, low, high = kind
    check(op, [norm_rows(rng, dtype, n), w, bias], a | output(dtype_of_y, low, high, _zero_point(rng, S8)))


@pytest.mark.parametrize("op", ["LayerNorm", "RmsNorm"])
def test_norm_at_the_extremes(op: str) -> None:
    """The largest sums, u and v: pairs of squares of -2^15 leave int32."""
    x = np.full((3, 16384), -32768, S16)
    x[1, 0], x[2, ::2] = 32767, 32767
    w, bias = np.full(16384, 127, S32), np.full(16384, -5, S32)
    for zx in (-32768, 0, 32767):
        for epsilon in (0, 2**60):
            for fraction, shift in ((12, 9), (0, 2), (16, 2)):
                a = {"x_zero_point": zx, "epsilon": epsilon, "fraction": fraction, "shift": shift}
                check(op, [x, w, bias], a | output(S16, -32768, 32767, 0))


@pytest.mark.parametrize("op", ["LayerNorm", "RmsNorm"])
def test_norm_to_the_last_bit_of_r(op: str) -> None:
    """z of 25 bits and many rows: where r is off by one in 2^31, some of them round to another y."""
    rng = np.random.default_rng(0)
    x = np.zeros((4000, 256), S16)
    x[:, [3, 200]] = rng.integers(-32768, 32768, (4000, 2))
    a = {"x_zero_point": 0, "epsilon": 0, "fraction": 20, "shift": 2, **output(S32, -(2**31), 2**31 - 1, 0)}
    check(op, [x, np.full(256, 120, S32), np.zeros(256, S32)], a)


@pytest.mark.parametrize("op", ["LayerNorm", "RmsNorm"])
def test_norm_at_the_proven_bound(op: str) -> None:
    """|z| is at most 7095, and one more in bias is refused (test_kernel_errors.py)."""
    w, bias = S32([0, 302675, 0]), S32([0, 2**31 - 1 - 2**8 - 302675 * 7095, 0])
    a = {"x_zero_point": 0, "epsilon": 0, "fraction": 12, "shift": 9, **output(S32, -(2**31), 2**31 - 1, 0)}
    check(op, [np.eye(3, dtype=U8), w, bias], a)
    check(op, [255 - np.eye(3, dtype=U8), w, -bias], a)


ANGLES = {
    "rows": ((2, 3, 4), (1, 3, 1)),
    "batch": ((2, 3, 4), (2, 3, 1)),
    "all": ((2, 3, 4), (2, 3, 4)),
    "heads": ((2, 3, 4), (4,)),
    "one": ((2, 3, 4), ()),
    "row": ((), ()),
    "mixed": ((2, 3, 4, 5), (1, 3, 1, 5)),
}


@MANY
@given(seeds, ends, small, st.sampled_from([1, 5, 15, 16, 17, 32, 40, 64]), st.sampled_from(sorted(ANGLES)))
def test_rotary(seed: int, kind: tuple[Any, int, int], dtype: Any, half: int, how: str) -> None:
    rng = np.random.default_rng(seed)
    rows, angles = ANGLES[how]
    cos, sin = (rotary_angles(rng, dtype, (*angles, half)) for _ in range(2))
    b, c = _dyadics(rng, (), int(rng.choice([3, 14, 22, 31])))
    a = {"x_zero_point": _zero_point(rng, dtype), "multiplier": int(b), "shift": int(c)}
    low_high = output(*kind, 0 if kind[0] == S32 else _zero_point(rng, kind[0]))
    check("RotaryEmbedding", [integers(rng, dtype, (*rows, 2 * half)), cos, sin], a | low_high, (0, 1, 2))


def test_rotary_at_the_extremes() -> None:
    """2^31 - 2^15, by 16 bits; and any 16-bit cosine beside 8 bits."""
    out = output(S32, -(2**31), 2**31 - 1, 0)
    x = np.tile(S16([[32767], [-32768]]), (1, 36))
    for zx in (-32768, 0, 32767):
        for cos in (2**14, -(2**14)):
            angles = [np.full(18, cos, S16), np.full(18, 2**14, S16)]
            for b, c in ((2**31 - 1, 33), (1, 2)):
                a = {"x_zero_point": zx, "multiplier": b, "shift": c}
                check("RotaryEmbedding", [x, *angles], a | out)
                check("RotaryEmbedding", [x, *angles[::-1]], a | out)
    x8 = np.tile(U8([[255], [0]]), (1, 36))
    for zx in (0, 255):
        a = {"x_zero_point": zx, "multiplier": 127, "shift": 2}
        check("RotaryEmbedding", [x8, np.full(18, -32768, S16), np.full(18, 32767, S16)], a | out)


BLOCKS = [(1, 1), (4, 1), (16, 1), (32, 1), (64, 1), (128, 1), (512, 1), (3, 3), (24, 3), (12, 12), (48, 12), (160, 20)]


@MANY
@given(seeds, ends, small, st.sampled_from(BLOCKS), st.integers(0, 3))
def test_hadamard(seed: int, kind: tuple[Any, int, int], dtype: Any, sizes: tuple[int, int], groups: int) -> None:
    rng, (block, m) = np.random.default_rng(seed), sizes
    b, c = _dyadics(rng, (), int(rng.choice([3, 14, 22, 31])))
    a = {"x_zero_point": _zero_point(rng, dtype), "block": block, "multiplier": int(b), "shift": int(c)}
    low_high = output(*kind, 0 if kind[0] == S32 else _zero_point(rng, kind[0]))
    base = rng.choice([-1, 1], (m, m)).astype(S8)
    check("Hadamard", [integers(rng, dtype, (2, 3, groups * block)), base], a | low_high)


@pytest.mark.parametrize("block", [8, 64, 1024, 4096])
def test_hadamard_at_the_extremes(block: int) -> None:
    """A column of ones gives block * |x - zx|."""
    x, out = np.full((1, block), -32768, S16), output(S32, -(2**31), 2**31 - 1, 0)
    for zx in (-32768, 0, 32767):
        a = {"x_zero_point": zx, "block": block, "multiplier": 4, "shift": 2}
        assert check("Hadamard", [x, np.ones((1, 1), S8)], a | out)[0, 0] == block * (-32768 - zx)


def test_hadamard_at_the_proven_bound() -> None:
    """2^15 terms of 65535; as the reference would hold all of H, the sums are written out here."""
    a = {"x_zero_point": 32767, "block": 2**15, "multiplier": 4, "shift": 2, **output(S32, -(2**31), 2**31 - 1, 0)}
    x = np.full((1, 2**15), -32768, S16)
    (got,) = run(one_node("Hadamard", [x, np.ones((1, 1), S8)], a, [S32]), {"i0": x})
    assert got[0, 0] == -65535 * 2**15 and not got[0, 1:].any()


@MANY
@given(seeds, st.sampled_from([U8, S8]), st.sampled_from([1, 3, 8, 16, 31, 32, 33, 64, 100]), st.sampled_from([0, 1]))
def test_max_pool(seed: int, dtype: Any, channels: int, ceil: int) -> None:
    rng = np.random.default_rng(seed)
    kernel, strides, dilations = (rng.integers(1, high, 2).tolist() for high in (5, 4, 3))
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    pads = [int(rng.integers(0, kernel[i % 2])) for i in range(4)]
    size = [r + int(rng.integers(0, 9)) for r in reach]
    a = {"kernel_shape": kernel, "strides": strides, "pads": pads, "dilations": dilations, "ceil_mode": ceil}
    check("MaxPoolNhwc", [integers(rng, dtype, (2, *size, channels))], a)


@pytest.mark.parametrize("dtype", [U8, S8])
def test_max_pool_of_padding_alone_is_the_least_value(dtype: Any) -> None:
    a = {"kernel_shape": [1, 1], "strides": [1, 1], "pads": [1, 2, 2, 1], "dilations": [1, 1], "ceil_mode": 0}
    got = check("MaxPoolNhwc", [np.full((1, 2, 3, 5), 7, dtype)], a)
    assert got[0, :, :, 0].tolist()[0] == [np.iinfo(dtype).min] * 6


@MANY
@given(seeds, st.sampled_from([U8, S8]), st.integers(1, 5))
def test_slice_pad(seed: int, dtype: Any, rank: int) -> None:
    rng = np.random.default_rng(seed)
    check("SlicePad", [integers(rng, dtype, rng.integers(1, 9, rank).tolist())], boxes(rng, dtype, rank))


def test_slice_pad_of_no_element_is_its_value() -> None:
    a = {"starts": [5], "ends": [9], "steps": [3], "before": [2], "after": [1], "value": -3}
    assert check("SlicePad", [np.zeros(4, S8)], a).tolist() == [-3] * 3


def test_long_tensors_on_several_threads() -> None:
    rng = np.random.default_rng(0)
    x, y = integers(rng, U8, (3, 50, 60, 41)), integers(rng, U8, (3, 50, 60, 41))
    a = {"x_zero_point": 3, "y_zero_point": 250, "x_multiplier": 3000, "y_multiplier": 1200, "shift": 12}
    a |= output(U8, 0, 255, 128)
    check("Add", [x, y], a, (0, 1), threads=4)
    check("Add", [x, y[0, 0, 0]], a, (0, 1), threads=4)
    check("Add", [x.reshape(-1), y.reshape(-1)[:1]], a, (0, 1), threads=4)
    check("Add", [x[:, :, :1, :3], y[:, :, :, :3]], a, (0, 1), threads=4)
    b, c = np.full(41, 200, S32), np.full(41, 9, S32)
    check("Requantize", [x, b, c], {"x_zero_point": 3, **output(U8, 0, 255, 128)}, threads=4)
    check("Table", [x, integers(rng, U8, (256,))], {}, threads=4)
    pool = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1], "dilations": [1, 1], "ceil_mode": 0}
    check("MaxPoolNhwc", [x], pool, threads=4)
    check("SlicePad", [x], boxes(rng, U8, 4) | {"starts": [0] * 4, "after": [0, 3, 0, 60]}, threads=4)
    mean = {"x_zero_point": 120, "keepdims": 1, "multiplier": 21399, "shift": 20, **output(U8, 0, 255, 128)}
    for axes in ([1], [1, 2], [3], [0, 2]):
        check("ReduceMean", [x, np.array(axes, np.int64)], mean, threads=4)
    norm = {"x_zero_point": 3, "epsilon": 9, "fraction": 12, "shift": 12, **output(S16, -32768, 32767, 0)}
    check("LayerNorm", [x, *norm_weights(rng, 41, 12, 12)], norm, threads=4)
    angles = [rotary_angles(rng, U8, (1, 50, 1, 20)) for _ in range(2)]
    turn = {"x_zero_point": 3, "multiplier": 21399, "shift": 30, **output(S8, -128, 127, 5)}
    check("RotaryEmbedding", [x[..., :40], *angles], turn, threads=4)
    check("Hadamard", [x[..., :40], np.ones((20, 20), S8)], turn | {"block": 40}, threads=4)


@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 4)])
def test_empty_tensors(shape: tuple[int, ...]) -> None:
    x = np.zeros(shape, U8)
    a = {"x_zero_point": 3, **output(U8, 0, 255, 128)}
    check("Requantize", [x, S32([1]), S32([2])], a)
    check("Table", [x, np.zeros(256, U8)], {})
    turn = {"x_zero_point": 3, "multiplier": 1, "shift": 2, **output(U8, 0, 255, 128)}
    check("RotaryEmbedding", [x, *[np.zeros((*shape[:-1], shape[-1] // 2), S16)] * 2], turn)
    check("Hadamard", [x, np.ones((1, 1), S8)], turn | {"block": 4})
    if shape[-1]:
        norm = {"x_zero_point": 3, "epsilon": 9, "fraction": 12, "shift": 12, **output(U8, 0, 255, 128)}
        check("RmsNorm", [x, np.ones(shape[-1], S32), np.ones(shape[-1], S32)], norm)


def test_the_instruction_set_is_known() -> None:
    assert kernels.instruction_set() in kernels.instruction_sets()
    assert kernels.instruction_sets()[-1] == "portable"


@pytest.mark.skipif("MULSHIFT_ISA" in os.environ, reason="this process was told its instruction set")
@pytest.mark.parametrize("name", kernels.instruction_sets()[1:])
def test_every_other_instruction_set(name: str) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", __file__]
    done = subprocess.run(command, env={**os.environ, "MULSHIFT_ISA": name}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
