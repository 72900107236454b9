"""Each integer operator: its ONNX body on stock ONNX Runtime equals its Python reference, bit for bit.

Every comparison runs the body as a function with all graph optimizations, with none, and inlined into standard nodes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from operator_checks import (
    FEW,
    OPSETS,
    S8,
    S16,
    S32,
    U8,
    check,
    dyadics,
    integers,
    norm_rows,
    norm_weights,
    one_node,
    output,
    outputs,
    rotary_angles,
    seeds,
    zero_points,
)

from mulshift.ir import DOMAIN, OPERATORS, attach
from mulshift.ir.operators import VERSION
from mulshift.passes.hadamard import signs


@FEW
@given(seeds, outputs, st.sampled_from([U8, S8, S16, S32]), zero_points)
def test_requantize(seed: int, kind: tuple[Any, int, int], dtype: Any, z: int) -> None:
    rng = np.random.default_rng(seed)
    x = integers(rng, dtype, 2, 5, 7)
    x[x == -(2**31)] += 1  # |x - zx| < 2^31
    b, c = dyadics(rng, (5, 1) if seed % 2 else (1,))
    zx = 0 if dtype == S32 else int(integers(rng, dtype, 1)[0])
    check("Requantize", [x, b, c], {"x_zero_point": zx, **output(kind, z)})


@pytest.mark.parametrize("opset", OPSETS)
def test_requantize_at_the_extremes(opset: int) -> None:
    x = np.array([2**31 - 1, -(2**31) + 1, 0, 1, -1], S32)
    for b in (1, 2**30, 2**31 - 1):
        for c in (2, 31, 32, 33, 61, 62):
            check("Requantize", [x, S32([b]), S32([c])], {"x_zero_point": 0, **output((S8, -128, 127), 5)}, opset)


@pytest.mark.parametrize("dtype", [S8, S16, S32])
def test_requantize_of_exact_halves_rounds_up(dtype: Any) -> None:
    x = np.arange(-7, 8).astype(dtype)
    got = check("Requantize", [x, S32([1]), S32([2])], {"x_zero_point": 0, **output((S8, -128, 127), 0)})
    assert got.tolist() == [-2, -1, -1, -1, -1, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2]


def test_requantize_to_32_bits() -> None:
    x = np.array([2**31 - 1, -(2**31) + 1, 12345], S32)
    code = onnx.TensorProto.INT32
    output = {"zero_point": 0, "qmin": -(2**31), "qmax": 2**31 - 1, "dtype": code}
    got = check("Requantize", [x, S32([2**30]), S32([30])], {"x_zero_point": 0, **output})
    assert got.tolist() == x.tolist()


def _window(rank: int, **over: Any) -> dict[str, Any]:
    return {"strides": [1] * rank, "pads": [0] * (2 * rank), "dilations": [1] * rank, "group": 1} | over


@FEW
@given(
    seeds,
    st.integers(1, 3),
    st.sampled_from([(1, 3, 4), (2, 2, 3), (4, 1, 1)]),
    st.integers(1, 3),
    st.integers(1, 2),
    zero_points,
    outputs,
)
def test_conv(
    seed: int, rank: int, channels: tuple[int, int, int], stride: int, dilation: int, z: int, kind: tuple[Any, int, int]
) -> None:
    rng = np.random.default_rng(seed)
    group, inside, outside = channels
    kernel = rng.integers(1, 4, rank).tolist()
    size = [dilation * (k - 1) + 1 + int(rng.integers(0, 5)) for k in kernel]
    x = integers(rng, U8, int(rng.integers(1, 3)), group * inside, *size)
    w = integers(rng, S8, group * outside, inside, *kernel)
    bias = rng.integers(-(2**20), 2**20, (group * outside, *[1] * rank)).astype(S32)
    b, c = dyadics(rng, (group * outside, *[1] * rank))
    pads = rng.integers(0, 3, 2 * rank).tolist()
    a = _window(rank, strides=[stride] * rank, dilations=[dilation] * rank, pads=pads, group=group)
    a |= {"x_zero_point": z, "w_zero_point": 0}
    check("ConvAccumulate", [x, w, bias], a)
    check("Conv", [x, w, bias, b, c], a | output(kind, z))


@pytest.mark.parametrize(("value", "weight"), [(255, 127), (255, -128), (0, -128), (255, -127)])
@pytest.mark.parametrize("channels", [1, 64, 600])
def test_conv_does_not_saturate(value: int, weight: int, channels: int) -> None:
    """u8 x s8 kernels of x86 without VNNI add pairs in 16 bits: 2 * 255 * 127 does not fit."""
    x, w = np.full((1, channels, 4, 4), value, U8), np.full((8, channels, 3, 3), weight, S8)
    z, bias = 255 - value, np.full((8, 1, 1), 2**20 - 1, S32)
    a = _window(2, pads=[1, 1, 1, 1]) | {"x_zero_point": z, "w_zero_point": 0}
    acc = check("ConvAccumulate", [x, w, bias], a)
    assert acc[0, 0, 1, 1] == (value - z) * weight * 9 * channels + 2**20 - 1
    check("Conv", [x, w, bias, np.full((8, 1, 1), 2**31 - 1, S32), np.full((8, 1, 1), 52, S32)], a | OUTPUT_U8)


OUTPUT_U8 = output((U8, 0, 255), 128)


def test_conv_with_a_weight_zero_point() -> None:
    rng = np.random.default_rng(0)
    x, w = integers(rng, U8, 1, 3, 5, 5), integers(rng, S8, 2, 3, 3, 3)
    bias = np.zeros((2, 1, 1), S32)
    for zw in (-128, -3, 127):
        check("ConvAccumulate", [x, w, bias], _window(2) | {"x_zero_point": 9, "w_zero_point": zw})


@FEW
@given(seeds, zero_points, outputs, st.sampled_from([(), (1,), (3,), (2, 3)]), st.integers(1, 70))
def test_gemm_and_matmul(seed: int, z: int, kind: tuple[Any, int, int], lead: tuple[int, ...], k: int) -> None:
    rng = np.random.default_rng(seed)
    a = {"x_zero_point": z, "w_zero_point": 0}
    x, w = integers(rng, U8, *(lead or (2,)), k), integers(rng, S8, k, 5)
    bias = rng.integers(-(2**20), 2**20, 5).astype(S32)
    b, c = dyadics(rng, (5,))
    check("GemmAccumulate", [x, w, bias], a)
    check("Gemm", [x, w, bias, b, c], a | output(kind, z))
    left, right = integers(rng, U8, *lead, 4, k), integers(rng, S8, *lead, k, 3)
    b1, c1 = dyadics(rng, (1,))
    check("MatMul", [left, right, b1, c1], a | {"w_zero_point": int(seed % 5) - 2} | output(kind, z))


@pytest.mark.parametrize("depth", [1, 17, 4096, 66000])
def test_gemm_does_not_saturate_up_to_the_largest_depth(depth: int) -> None:
    x, w = np.full((2, depth), 255, U8), np.full((depth, 16), 127, S8)
    w[:, ::2] = -127
    acc = check("GemmAccumulate", [x, w, np.zeros(16, S32)], {"x_zero_point": 0, "w_zero_point": 0})
    assert acc[0].tolist() == [-255 * 127 * depth, 255 * 127 * depth] * 8


@FEW
@given(seeds, outputs, st.sampled_from([U8, S8, S16]), st.sampled_from([U8, S8, S16]), st.integers(2, 40), zero_points)
def test_add(seed: int, kind: tuple[Any, int, int], left: Any, right: Any, shift: int, z: int) -> None:
    rng = np.random.default_rng(seed)
    x = integers(rng, left, 2, 3, 4)
    y = integers(rng, right, *[(2, 3, 4), (3, 1), (4,)][seed % 3])
    bx, by = (int(v) for v in rng.integers(0, 2**31, 2))
    zx, zy = int(integers(rng, left, 1)[0]), int(integers(rng, right, 1)[0])
    a = {"x_zero_point": zx, "y_zero_point": zy, "x_multiplier": bx, "y_multiplier": by, "shift": shift}
    expected = check("Add", [x, y], a | output(kind, z))
    assert expected.shape == (2, 3, 4)


def test_add_at_the_proven_bound() -> None:
    """|x - zx| * bx + |y - zy| * by just below 2^62, both signs."""
    x = np.array([32767, -32768], S16)
    b = (2**62 - 1) // (2 * 65535)
    for zx in (-32768, 32767):
        a = {"x_zero_point": zx, "y_zero_point": zx, "x_multiplier": b, "y_multiplier": b, "shift": 47}
        check("Add", [x, x], a | output((S16, -32768, 32767), 0))


@FEW
@given(seeds, outputs, st.sampled_from([U8, S8]), st.sampled_from([U8, S8, S16]), st.integers(2, 62), zero_points)
def test_mul(seed: int, kind: tuple[Any, int, int], left: Any, right: Any, shift: int, z: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = integers(rng, left, 2, 3, 4), integers(rng, right, *[(2, 3, 4), (3, 1)][seed % 2])
    zx, zy = int(integers(rng, left, 1)[0]), int(integers(rng, right, 1)[0])
    a = {"x_zero_point": zx, "y_zero_point": zy, "multiplier": int(rng.integers(0, 2**31)), "shift": shift}
    check("Mul", [x, y], a | output(kind, z))


@FEW
@given(seeds, outputs, st.sampled_from([U8, S8, S16]), zero_points)
def test_affine(seed: int, kind: tuple[Any, int, int], dtype: Any, z: int) -> None:
    rng = np.random.default_rng(seed)
    x = integers(rng, dtype, 2, 3, 4, 4)
    w = rng.integers(-(2**12), 2**12, (3, 1, 1)).astype(S32)
    bias = rng.integers(-(2**28), 2**28, (3, 1, 1)).astype(S32)
    b, c = dyadics(rng, (3, 1, 1))
    check("Affine", [x, w, bias, b, c], {"x_zero_point": int(integers(rng, dtype, 1)[0]), **output(kind, z)})


@pytest.mark.parametrize("dtype", [U8, S8, S16])
@pytest.mark.parametrize("entries", [U8, S8, S16])
def test_table_is_ordered_by_bits(dtype: Any, entries: Any) -> None:
    size = 2 ** (8 * dtype().itemsize)
    table = integers(np.random.default_rng(1), entries, size)
    x = np.arange(size).astype(f"u{dtype().itemsize}").view(dtype).reshape(2, -1)
    got = check("Table", [x, table], {})
    assert np.array_equal(got.reshape(-1), table)


@FEW
@given(seeds, outputs, st.sampled_from([U8, S8, S16]), st.sampled_from([0, 1]), zero_points)
def test_reduce_mean(seed: int, kind: tuple[Any, int, int], dtype: Any, keep: int, z: int) -> None:
    rng = np.random.default_rng(seed)
    axes = np.array([[2, 3], [-1], [0, 2], [1]][seed % 4], np.int64)
    b, c = (int(v[0]) for v in dyadics(rng, (1,)))
    a = {"x_zero_point": int(integers(rng, dtype, 1)[0]), "keepdims": keep, "multiplier": b, "shift": c}
    check("ReduceMean", [integers(rng, dtype, 2, 3, 5, 4), axes], a | output(kind, z))


@FEW
@given(seeds, st.sampled_from([U8, S8, S16, S32]), st.sampled_from([1, 2]))
def test_lerp(seed: int, dtype: Any, axis: int) -> None:
    rng = np.random.default_rng(seed)
    x = integers(rng, dtype, 2, 4, 5) if dtype != S32 else rng.integers(-(2**20), 2**20, (2, 4, 5)).astype(S32)
    i0 = rng.integers(0, x.shape[axis] - 1, 7)
    w1 = rng.integers(0, 2**10 + 1, (7, *[1] * (2 - axis))).astype(S32)
    zx = 3 if dtype != S8 else -3
    w0 = (2**10 - w1).astype(S32)
    check("Lerp", [x, i0, i0 + 1, w0, w1], {"x_zero_point": zx, "axis": axis})


NORMS = ("LayerNorm", "RmsNorm")


@FEW
@given(seeds, st.sampled_from(NORMS), st.sampled_from([U8, S8, S16]), outputs, st.integers(1, 70), st.integers(0, 20))
def test_norm(seed: int, op: str, dtype: Any, kind: tuple[Any, int, int], n: int, fraction: int) -> None:
    rng = np.random.default_rng(seed)
    shift = int(rng.integers(2, 31))
    w, bias = norm_weights(rng, n, fraction, shift)
    epsilon = int(rng.integers(0, 2**60)) >> int(rng.integers(0, 61))
    a = {"x_zero_point": int(integers(rng, dtype, 1)[0]), "epsilon": epsilon, "fraction": fraction, "shift": shift}
    check(op, [norm_rows(rng, dtype, n), w, bias], a | output(kind, int(seed % 256)))


@FEW
@given(seeds, st.sampled_from(NORMS), outputs, st.integers(1, 70), st.integers(-100, 100))
def test_norm_to_rows(seed: int, op: str, kind: tuple[Any, int, int], n: int, zero_point: int) -> None:
    rng = np.random.default_rng(seed)
    w, bias = norm_weights(rng, n, 12, 9)
    kind = (S16, -32768, 32767) if kind[0] == S32 else kind
    a = {"x_zero_point": 3, "epsilon": 2**30, "fraction": 12, "shift": 9, **output(kind, int(seed % 256))}
    inputs = [norm_rows(rng, S16, n), w, bias]
    check(f"{op}RowQuantize", inputs, a | {"q_x_zero_point": zero_point})
    y = OPERATORS[op].reference(a, *inputs)
    apart = OPERATORS["RowQuantize"].run({"x_zero_point": zero_point}, y)
    at_once = OPERATORS[f"{op}RowQuantize"].run(a | {"q_x_zero_point": zero_point}, *inputs)
    assert all(np.array_equal(p, q) for p, q in zip(apart, at_once, strict=True))


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("op", NORMS)
def test_norm_at_the_extremes(op: str, opset: int) -> None:
    """The largest sums, u and v; rows of one element; no variance at all."""
    x = np.full((3, 16384), -32768, S16)
    x[1, 0], x[2, ::2] = 32767, 32767
    w, bias = np.full(16384, 127, S32), np.full(16384, -5, S32)
    for zx in (-32768, 0, 32767):
        for epsilon in (0, 2**60):
            a = {"x_zero_point": zx, "epsilon": epsilon, "fraction": 12, "shift": 9}
            check(op, [x, w, bias], a | output((S16, -32768, 32767), 0), opset)
            check(op, [x[:, :1], w[:1], bias[:1]], a | output((S16, -32768, 32767), 0), opset)


@FEW
@given(seeds, outputs, st.sampled_from([U8, S8, S16, S32]), zero_points, st.integers(1, 40))
def test_softmax(seed: int, kind: tuple[Any, int, int], dtype: Any, z: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    x = integers(rng, dtype, 2, 3, n)
    (b, multiplier), (c, shift) = dyadics(rng, (2,))
    if seed % 4:
        b, c = rng.integers(2**13, 2**16), 15 + {U8: 0, S8: 0, S16: 8, S32: 22}[dtype]
    a = {"score_multiplier": int(b), "score_shift": int(c), "multiplier": int(multiplier), "shift": min(int(shift), 22)}
    check("Softmax", [x], a | output(kind, z))


def test_softmax_of_the_extremes_of_32_bits() -> None:
    x = np.array([[2**31 - 1, -(2**31), 0, -1], [-(2**31)] * 4, [2**31 - 1] * 4], S32)
    for b, c in ((2**31 - 1, 2), (2**31 - 1, 62), (0, 2), (1, 17), (3, 18)):
        a = {"score_multiplier": b, "score_shift": c, "multiplier": 2**30, "shift": 22}
        check("Softmax", [x], a | output((U8, 0, 255), 0))


def test_softmax_of_the_longest_rows() -> None:
    """Sums of powers up to 2^39."""
    x = np.full((2, 65536), 3, U8)
    x[1, 7] = 255
    a = {"score_multiplier": 2**13, "score_shift": 15, "multiplier": 2**30, "shift": 14}
    assert check("Softmax", [x], a | output((S16, -32768, 32767), 0))[0, 0] == 1


def _attention(rng: np.random.Generator, z: int) -> tuple[list[Any], dict[str, Any], tuple[int, ...]]:
    """Inputs, attributes but the output's, shape of the scores."""
    batch, rows, keys, groups, shared = (int(v) for v in rng.integers(1, (3, 9, 12, 3, 4)))
    depth, width = (int(v) for v in rng.integers(1, 20, 2))
    q = integers(rng, U8, batch, rows, groups * shared, depth)
    k, v = integers(rng, S8, batch, keys, groups, depth), integers(rng, S8, batch, keys, groups, width)
    (b, multiplier), (c, shift) = dyadics(rng, (2,))
    if rng.random() < 0.7:
        b, c = rng.integers(2**13, 2**16), 15
    a = {"q_zero_point": z, "k_zero_point": int(integers(rng, S8, 1)[0]), "v_zero_point": int(integers(rng, S8, 1)[0])}
    a |= {
        "score_multiplier": int(b),
        "score_shift": int(c),
        "multiplier": int(multiplier),
        "shift": min(int(shift), 38),
    }
    return [q, k, v], a, (batch, groups * shared, rows, keys)


@FEW
@given(seeds, outputs, zero_points)
def test_attention(seed: int, kind: tuple[Any, int, int], z: int) -> None:
    rng = np.random.default_rng(seed)
    inputs, a, (batch, heads, rows, _) = _attention(rng, z)
    assert check("Attention", inputs, a | output(kind, z)).shape == (batch, rows, heads, inputs[2].shape[3])


@FEW
@given(seeds, outputs, zero_points, st.sampled_from(["whole", "batch", "keys", "rows", "causal", "none"]))
def test_masked_attention(seed: int, kind: tuple[Any, int, int], z: int, how: str) -> None:
    rng = np.random.default_rng(seed)
    inputs, a, shape = _attention(rng, z)
    part = {"batch": (shape[0], 1, 1, shape[3]), "keys": shape[3:], "rows": (shape[1], shape[2], 1)}.get(how, shape)
    mask = np.tri(*shape[2:], dtype=bool) if how == "causal" else rng.random(part) < (0 if how == "none" else 0.5)
    check("MaskedAttention", [*inputs, mask], a | output(kind, z))


def test_attention_without_a_mask_attends_all() -> None:
    rng = np.random.default_rng(0)
    inputs, a, shape = _attention(rng, 7)
    a |= OUTPUT_U8
    plain = OPERATORS["Attention"].reference(a, *inputs)
    assert np.array_equal(OPERATORS["MaskedAttention"].reference(a, *inputs, np.ones(shape, bool)), plain)


@pytest.mark.parametrize("entries", [U8, S8, S16])
def test_table_of_every_16_bit_integer(entries: Any) -> None:
    rng = np.random.default_rng(0)
    x, table = np.arange(-32768, 32768).astype(S16), integers(rng, entries, 65536)
    assert np.array_equal(check("Table", [x, table], {}), np.concatenate([table[32768:], table[:32768]]))


@FEW
@given(seeds, st.sampled_from([U8, S8, S16]), outputs, st.integers(1, 40), st.sampled_from(["rows", "batch", "all"]))
def test_rotary(seed: int, dtype: Any, kind: tuple[Any, int, int], half: int, angles: str) -> None:
    rng = np.random.default_rng(seed)
    shape = {"rows": (1, 3, 1, half), "batch": (2, 3, 1, half), "all": (half,)}[angles]
    cos, sin = rotary_angles(rng, dtype, shape), rotary_angles(rng, dtype, shape)
    b, c = dyadics(rng, ())
    a = {"x_zero_point": int(integers(rng, dtype, 1)[0]), "multiplier": int(b), "shift": int(c)}
    check("RotaryEmbedding", [integers(rng, dtype, 2, 3, 2, 2 * half), cos, sin], a | output(kind, seed % 256))


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("zx", [-32768, 0, 32767])
def test_rotary_at_the_extremes(zx: int, opset: int) -> None:
    """The greatest accumulators that an x of 16 bits has: 2^31 - 2^15 where |x - zx| is 65535."""
    x = np.array([[32767, 32767], [-32768, 32767], [32767, -32768], [-32768, -32768]], S16)
    for cos, sin in ((2**14, 2**14), (2**14, -(2**14)), (-(2**14), -(2**14))):
        for b, c in ((2**31 - 1, 46), (1, 16)):
            a = {"x_zero_point": zx, "multiplier": b, "shift": c, **output((S16, -32768, 32767), 0)}
            check("RotaryEmbedding", [x, S16([cos]), S16([sin])], a, opset)


BLOCKS = [(1, 1), (2, 1), (8, 1), (64, 1), (3, 3), (6, 3), (12, 12), (24, 12), (80, 20)]


@FEW
@given(seeds, st.sampled_from([U8, S8, S16]), outputs, st.sampled_from(BLOCKS), st.integers(1, 3))
def test_hadamard(seed: int, dtype: Any, kind: tuple[Any, int, int], sizes: tuple[int, int], groups: int) -> None:
    rng, (block, m) = np.random.default_rng(seed), sizes
    base, (b, c) = rng.choice([-1, 1], (m, m)).astype(S8), dyadics(rng, ())
    a = {"x_zero_point": int(integers(rng, dtype, 1)[0]), "block": block, "multiplier": int(b), "shift": int(c)}
    check("Hadamard", [integers(rng, dtype, 2, 3, groups * block), base], a | output(kind, seed % 256))


@pytest.mark.parametrize("opset", OPSETS)
def test_hadamard_at_the_extremes(opset: int) -> None:
    """The first column is all ones."""
    x = np.full((1, 512), -32768, S16)
    for zx in (-32768, 0, 32767):
        a = {"x_zero_point": zx, "block": 512, "multiplier": 2**30, "shift": 40, **output((S16, -32768, 32767), 0)}
        got = check("Hadamard", [x, np.ones((1, 1), S8)], a, opset)
        assert got[0].tolist() == [(1 - 32768 - zx) // 2] + [0] * 511


@pytest.mark.parametrize(("block", "m"), [(64, 1), (12, 12), (96, 12), (40, 20), (56, 28)])
def test_hadamard_is_what_passes_construct(block: int, m: int) -> None:
    """`mulshift.passes.hadamard.signs` is this operator's H, so that twice the transform is `block` times x."""
    h = signs(block)
    assert h is not None and h.dtype == S8
    x = integers(np.random.default_rng(0), S8, 5, 2 * block)
    a = {"x_zero_point": 0, "block": block, "multiplier": 4, "shift": 2, **output((S16, -32768, 32767), 0)}
    got = check("Hadamard", [x, h[:m, :m]], a)
    groups = x.reshape(5, 2, block).astype(np.int64)
    assert np.array_equal(got.reshape(5, 2, block), groups @ h)
    assert np.array_equal(got.reshape(5, 2, block).astype(np.int64) @ h.T.astype(np.int64), block * groups)


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("name", OPERATORS)
def test_bodies_are_valid_and_declare_what_they_call(name: str, opset: int) -> None:
    op = OPERATORS[name]
    function = op.function(opset)
    assert {n.op_type for n in function if n.domain == DOMAIN} == set(op.calls)
    assert function.opset_imports == {"": opset, DOMAIN: VERSION}
    assert function is not op.function(opset), "a new object at each call"
    assert len(function.outputs) == (1 if op.second is None else 2)


def test_attach_keeps_exactly_what_is_used() -> None:
    x, w, bias = np.zeros((1, 2), U8), np.zeros((2, 3), S8), np.zeros(3, S32)
    one = np.ones(1, S32)
    a = {"x_zero_point": 0, "w_zero_point": 0, **OUTPUT_U8}
    model = one_node("Gemm", [x, w, bias, one, one + 1], a, 21)
    assert {k[1] for k in model.functions} == {"Gemm", "GemmAccumulate", "Requantize"}
    model.graph[0].op_type = "GemmAccumulate"
    attach(model)
    assert {k[1] for k in model.functions} == {"GemmAccumulate"}


def test_exact_sums_beyond_float32_and_with_16_bits() -> None:
    """The carriers of the reference: one float32 sum, two of them, float64; each against numpy's int64."""
    from mulshift.ir.operators.exact import conv, matmul

    rng = np.random.default_rng(5)
    for dtype, k in ((U8, 8), (U8, 2000), (U8, 70000), (S16, 64), (S16, 3000)):
        x, w = integers(rng, dtype, 3, k), np.full((k, 2), 127, S8)
        x[0], w[:, 1] = np.iinfo(dtype).max, integers(rng, S8, k)
        z = int(np.iinfo(dtype).min) // 2
        expected = (x.astype(np.int64) - z) @ w.astype(np.int64)
        assert np.array_equal(matmul(x, w, z), expected)
        image = x.reshape(3, k, 1, 1).repeat(2, 3)
        got = conv({"x_zero_point": z, "pads": [0, 1, 0, 0]}, image, w.T.reshape(2, k, 1, 1))
        assert np.array_equal(got[:, :, 0, 1], expected)
        assert (got[:, :, 0, 0] == 0).all(), "padding stands for zero"
