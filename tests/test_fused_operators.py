"""Packed and channels-last operators: layouts, and each body on stock ONNX Runtime against its reference with ==."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from operator_checks import (
    FEW,
    S8,
    S16,
    S32,
    U8,
    check,
    dyadics,
    integers,
    one_node,
    output,
    outputs,
    seeds,
    zero_points,
)
from random_nodes import boxes
from sparse_weights import form_of, thinned

from mulshift.ir import OPERATORS, Array
from mulshift.ir.operators import low_bits, packing
from mulshift.ir.operators.epilogue import EPILOGUES, RESCALED
from mulshift.ir.operators.packed import PRODUCTS, RESCALING, ROW_PRODUCTS
from mulshift.ir.operators.sparse import SPARSE, SparseForm, least_zeros, pack_zeros, unpack_zeros

sizes = st.integers(1, 40)


@settings(max_examples=40)
@given(st.integers(1, 3), sizes, st.integers(1, 9), st.integers(1, 3), st.integers(1, 3))
def test_packed_convolutions_come_back(group: int, out: int, inner: int, height: int, width: int) -> None:
    w = integers(np.random.default_rng(out), S8, group * out, inner, height, width)
    packed = packing.pack_conv(w, group)
    assert packed.shape == (group, -(-out // 16), -(-inner * height * width // 4), 16, 4)
    assert np.array_equal(packing.unpack_conv(packed, w.shape, group), w)
    assert np.abs(packed.astype(np.int64)).sum() == np.abs(w.astype(np.int64)).sum(), "padded with zeros"


@settings(max_examples=40)
@given(sizes, sizes)
def test_packed_matrices_come_back(k: int, n: int) -> None:
    w = integers(np.random.default_rng(k), S8, k, n)
    packed = packing.pack_gemm(w)
    assert packed.shape == (1, -(-n // 16), -(-k // 4), 16, 4)
    assert np.array_equal(packing.unpack_gemm(packed, w.shape), w)
    assert packed[0, (n - 1) // 16, (k - 1) // 4, (n - 1) % 16, (k - 1) % 4] == w[-1, -1]


@settings(max_examples=40)
@given(sizes, sizes, st.sampled_from([4, 2, 1]))
def test_few_bits_come_back(k: int, n: int, bits: int) -> None:
    w = integers(np.random.default_rng(k), S8, 4 * k, n) >> (8 - bits)
    w = 2 * w + 1 if bits == 1 else w
    rows = low_bits.pack_bits(packing.pack_gemm(w), bits)
    assert rows.shape == (1, -(-n // 16), -(-k * bits // 8), 16, 4) and rows.dtype == U8
    assert np.array_equal(packing.unpack_gemm(low_bits.unpack_bits(rows, bits), w.shape), w)
    assert low_bits.least_bits(w, 4 * k) <= bits


@settings(max_examples=40)
@given(sizes, sizes, st.sampled_from([8, 32, 64]))
def test_blocks_come_back(k: int, n: int, block: int) -> None:
    rng = np.random.default_rng(k)
    multipliers = rng.integers(1, 16, (-(-k // block), n)).repeat(block, 0)[:k]
    w = (rng.integers(-8, 8, (k, n)) * multipliers).astype(S8)
    packed = low_bits.pack_blocks(packing.pack_gemm(w), block)
    assert packed is not None and packed.shape == (1, -(-n // 16), -(-k // block), 16 + 8 * block)
    assert np.array_equal(packing.unpack_gemm(low_bits.unpack_blocks(packed), w.shape), w)


def test_what_is_no_multiple_of_four_bits_fits_no_block() -> None:
    w = np.array([[17], [34], [-17], [119]], S8)  # 1, 2, -1, 7 times 17
    assert low_bits.pack_blocks(packing.pack_gemm(w), 32) is not None
    w[0] = 16
    assert (
        low_bits.pack_blocks(packing.pack_gemm(w), 32) is None and low_bits.least_blocks(packing.pack_gemm(w)) is None
    )


def test_the_least_bits() -> None:
    for low, high, bits in ((-8, 7, 4), (-9, 7, 8), (-8, 8, 8), (-2, 1, 2), (-2, 2, 4), (-1, 1, 2), (0, 0, 2)):
        assert low_bits.least_bits(np.array([low, 0, high], S8), 3) == bits
    assert low_bits.least_bits(np.array([-1, 1], S8), 8) == 1
    assert low_bits.least_bits(np.array([-1, 1], S8), 6) == 2, "no zero to pad six with"
    assert low_bits.least_bits(np.zeros(0, S8), 0) == 8


@settings(max_examples=40)
@given(sizes, st.integers(1, 5), st.integers(1, 5))
def test_taps_come_back(channels: int, height: int, width: int) -> None:
    w = integers(np.random.default_rng(channels), S8, channels, 1, height, width)
    packed = packing.pack_taps(w)
    assert packed.shape == (height * width, channels)
    assert np.array_equal(packing.unpack_taps(packed, w.shape), w)
    for bits in low_bits.LOW_TAPS:
        few = packing.pack_taps(np.where(w < 0, -1, 1).astype(S8) if bits == 1 else w >> (8 - bits))
        rows = low_bits.pack_low_taps(few, bits)
        assert rows.shape == (height * width, -(-channels * bits // 8))
        assert np.array_equal(low_bits.unpack_low_taps(rows, bits, channels), few)


@settings(max_examples=60)
@given(sizes, sizes, st.sampled_from(SPARSE))
def test_kept_weights_come_back(k: int, n: int, form: SparseForm) -> None:
    rng = np.random.default_rng(k)
    packed = thinned(packing.pack_gemm(integers(rng, S8, k, n) >> (8 - form.bits)), form.shared, rng)
    w = pack_zeros(packed, form)
    assert np.array_equal(unpack_zeros(w, form)[:, :, : packed.shape[2]], packed)
    found = least_zeros(packed, form.bits)
    assert found is not None and SPARSE.index(found) <= SPARSE.index(form)


def test_three_of_four_are_not_kept() -> None:
    w = np.zeros((8, 20), S8)
    w[4:6, 3] = w[6, 19] = 1
    assert least_zeros(packing.pack_gemm(w), 8) == SPARSE[2], "positions 0, 1, 2 of two columns of two panels"
    w[6, 2] = 1
    assert least_zeros(packing.pack_gemm(w), 8) == SPARSE[3], "positions 0, 1, 2 of two columns of a panel"
    w[7, 3] = 1
    assert least_zeros(packing.pack_gemm(w), 8) is None, "of a column"
    assert least_zeros(packing.pack_gemm(w[:0]), 8) is None


def test_where_kept_weights_lie() -> None:
    """Column 17, k = 41: the second of step 5's first four (40 to 43)."""
    w = np.zeros((64, 20), S8)
    w[40, 17], w[41, 17] = 7, -9
    of_columns, of_panel = (pack_zeros(packing.pack_gemm(w), SPARSE[i]) for i in (3, 2))
    assert of_columns[0, 1, 1, 64 + 64 + 4 * 1 : 64 + 64 + 4 * 1 + 2].tolist() == [7, 256 - 9]
    assert of_columns[0, 1, 1, 4 * 1 : 4 * 1 + 2].tolist() == [0b0000, 0b01010101], "steps 4 to 7; unused: 0 and 1"
    assert of_panel.shape == (1, 2, 1 + 8, 64)
    assert of_panel[0, 1, 1 + 5, 4:6].tolist() == [7, 256 - 9] and of_panel[0, 1, 0, 5] == 0b01000100


def test_where_a_weight_lies() -> None:
    """B[k, n] at [g, n // 16, k // 4, n % 16, k % 4], k = (ky * kw + kx) * (C / G) + channel."""
    w = np.zeros((2 * 20, 3, 2, 2), S8)
    w[20 + 17, 2, 1, 0] = 1  # group 1, n = 17, k = (1 * 2 + 0) * 3 + 2 = 8
    assert np.argwhere(packing.pack_conv(w, 2)).tolist() == [[1, 1, 2, 1, 0]]
    assert np.argwhere(packing.pack_taps(w[:, :1]) == 0).shape == (4 * 40, 2)


def test_there_is_an_operator_for_each_base_and_epilogue() -> None:
    names = {base + "".join(e) for base in PRODUCTS for e in [(), ("Accumulate",), *EPILOGUES]}
    assert names | {"MaxPoolNhwc"} <= set(OPERATORS) and len(names) == 27 * 9
    assert [n for n in OPERATORS if "Rescale" in n] == ["".join((RESCALING, *RESCALED))]
    by_rows = {base + "".join(e) for base in ROW_PRODUCTS.values() for e in [(), *EPILOGUES]}
    assert by_rows <= set(OPERATORS) and len(by_rows) == 9 * 8
    assert OPERATORS["ConvNhwcAddTableRequantize"].calls == ("ConvNhwc", "Add", "Table", "Requantize")


class Product:
    """Random operands of one base operator."""

    def __init__(self, base: str, seed: int, z: int, kind: tuple[Any, int, int]) -> None:
        self.rng = np.random.default_rng(seed)
        self.attributes: dict[str, Any] = {"x_zero_point": z, "layout": packing.K4N16}
        sparse = form_of(base)
        plain, _, form = base.removesuffix(sparse.suffix if sparse else "").partition("Int")
        self.bits, self.in_blocks = sparse.bits if sparse else int(form[:1] or 8), form.endswith("Blocks")
        make = {"GemmPacked": self._gemm, "DepthwiseNhwc": self._depthwise}.get(plain, self._conv)
        self.channels = make(plain)
        if sparse:
            self.w = pack_zeros(thinned(self.w, sparse.shared, self.rng), sparse)
            self.attributes["layout"] = sparse.layout
        elif self.in_blocks:
            self.w, self.attributes["layout"] = low_bits.pack_blocks(self.w, 8), low_bits.BLOCKS
        elif self.bits < 8 and plain == "DepthwiseNhwc":
            self.w = low_bits.pack_low_taps(self.w, self.bits)
            self.attributes["layout"] = low_bits.LOW_TAPS[self.bits]
        elif self.bits < 8:
            self.w, self.attributes["layout"] = low_bits.pack_bits(self.w, self.bits), low_bits.LOW_BITS[self.bits]
        self.attributes |= output(kind, z)
        self.bias = self.rng.integers(-(2**20), 2**20, (self.channels, 1, 1)[: 1 if plain == "GemmPacked" else 3])
        self.b, self.c = dyadics(self.rng, self.bias.shape if seed % 3 else (1,))
        self.inputs = [self.x, self.w, self.bias.astype(S32), self.b, self.c]
        self.accumulated = {k: v for k, v in self.attributes.items() if k not in output(kind, z)}

    def _weights(self, *shape: int) -> Array:
        w = integers(self.rng, S8, *shape)
        if self.in_blocks:
            return np.asarray((w >> 4) * 5, S8)
        return np.where(w < 0, -1, 1).astype(S8) if self.bits == 1 else w >> (8 - self.bits)

    def _gemm(self, base: str) -> int:
        k, n = (int(v) for v in self.rng.integers(1, 40, 2))
        k = 4 * k if self.bits == 1 else k
        self.x = integers(self.rng, U8, *[(3, k), (2, 3, k), (k,)][k % 3])
        self.w = packing.pack_gemm(self._weights(k, n))
        self.attributes |= {"w_shape": [k, n]}
        return n

    def _conv(self, base: str) -> int:
        group, inner, out = [(1, 3, 5), (2, 2, 17), (3, 1, 1), (1, 5, 32), (4, 4, 16)][self.rng.integers(5)]
        inner = 4 * inner if self.bits == 1 else inner
        self._window(base == "ConvFromNchw", group, group * inner)
        w = self._weights(group * out, inner, *self.kernel)
        self.w = packing.pack_conv(w, group)
        self.attributes |= {"w_shape": list(w.shape)}
        return group * out

    def _depthwise(self, base: str) -> int:
        channels = int(self.rng.integers(2, 40))
        self._window(False, channels, channels)
        w = self._weights(channels, 1, *self.kernel)
        self.w = packing.pack_taps(w)
        self.attributes |= {"w_shape": list(w.shape), "layout": packing.TAPS}
        return channels

    def _window(self, nchw: bool, group: int, channels: int) -> None:
        self.kernel = self.rng.integers(1, 4, 2).tolist()
        strides, dilations = self.rng.integers(1, 4, 2).tolist(), self.rng.integers(1, 3, 2).tolist()
        size = [d * (k - 1) + 1 + int(self.rng.integers(0, 5)) for k, d in zip(self.kernel, dilations, strict=True)]
        batch = int(self.rng.integers(1, 3))
        self.x = integers(self.rng, U8, *((batch, channels, *size) if nchw else (batch, *size, channels)))
        pads = self.rng.integers(0, 3, 4).tolist()
        self.attributes |= {"strides": strides, "pads": pads, "dilations": dilations, "group": group}

    def with_stages(
        self, epilogue: tuple[str, ...], shape: tuple[int, ...], z: int
    ) -> tuple[list[Any], dict[str, Any]]:
        """Inputs and attributes of the operator with stages; a Table needs 8 bits before it."""
        inputs, a, rng = list(self.inputs), dict(self.attributes), self.rng
        if "Add" in epilogue:
            other = [U8, S8, S16][rng.integers(3)]
            inputs.append(integers(rng, other, *shape))
            kind = (S8, -128, 127) if "Table" in epilogue else (S16, -32768, 32767)
            bx, by = (int(v) for v in rng.integers(-(2**31) + 1, 2**31, 2))
            own = {"y_zero_point": int(integers(rng, other, 1)[0]), "x_multiplier": bx, "y_multiplier": by}
            a |= {f"add_{k}": v for k, v in (own | {"shift": int(rng.integers(2, 40))} | output(kind, z)).items()}
        if "Table" in epilogue:
            entries = S16 if "Rescale" in epilogue else [U8, S8, S16][rng.integers(3)]
            inputs.append(integers(rng, entries, 256))
            a |= {"table_dtype": onnx.helper.np_dtype_to_tensor_dtype(np.dtype(entries))}
        if "Rescale" in epilogue:
            inputs.extend(dyadics(rng, self.bias.shape if rng.integers(2) else (1,)))
            own = {"x_zero_point": int(rng.integers(-9, 9)), **output((U8, 0, 255), 9)}
            a |= {f"rescale_{k}": v for k, v in own.items()}
        if "Requantize" in epilogue:
            inputs.extend(v.reshape(()) for v in dyadics(rng, (1,)))
            own = {"x_zero_point": int(rng.integers(-9, 9)), **output((U8, 0, 255), 9)}
            a |= {f"q_{k}": v for k, v in own.items()}
        return inputs, a


@pytest.mark.parametrize("base", PRODUCTS)
@FEW
@given(seeds, zero_points, outputs)
def test_products(base: str, seed: int, z: int, kind: tuple[Any, int, int]) -> None:
    p = Product(base, seed, z, kind)
    check(f"{base}Accumulate", p.inputs[:3], p.accumulated)
    made = check(base, p.inputs, p.attributes)
    assert made.shape[-1] == p.channels


@pytest.mark.parametrize(
    ("base", "epilogue"),
    [
        *((b, e) for b in PRODUCTS for e in EPILOGUES if e == EPILOGUES[-1] or ("Int" not in b and not form_of(b))),
        (RESCALING, RESCALED),
    ],
)
@settings(max_examples=4)
@given(seeds, zero_points)
def test_epilogues(base: str, epilogue: tuple[str, ...], seed: int, z: int) -> None:
    kind = (U8, 0, 255) if "Table" in epilogue else [(U8, 0, 255), (S8, -128, 127), (S16, -32768, 32767)][seed % 3]
    p = Product(base, seed, z, kind)
    t = OPERATORS[base].reference(p.attributes, *p.inputs)
    inputs, a = p.with_stages(epilogue, t.shape, z)
    check(base + "".join(epilogue), inputs, a)


@pytest.mark.parametrize("base", [name.removesuffix("Accumulate") for name in ROW_PRODUCTS])
@settings(max_examples=6)
@given(seeds, zero_points, st.sampled_from([(), *EPILOGUES]))
def test_products_by_rows(base: str, seed: int, z: int, epilogue: tuple[str, ...]) -> None:
    p = Product(base, seed, z, (U8, 0, 255) if "Table" in epilogue else (S16, -32768, 32767))
    k = p.rng.integers(0, p.c.min() - 1, (*p.x.shape[:-1], 1)).astype(S32)
    plain = OPERATORS[f"{base}Rows"].reference(p.attributes, *p.inputs, k)
    for row in np.ndindex(*p.x.shape[:-1]):
        same_k = [*p.inputs[:4], (p.c - k[row]).astype(S32)]
        assert np.array_equal(plain[row], OPERATORS[base].reference(p.attributes, *same_k)[row])
    p.inputs.append(k)
    inputs, a = p.with_stages(epilogue, plain.shape, z)
    check(f"{base}Rows" + "".join(epilogue), inputs, a)


@pytest.mark.parametrize("opset", [18, 23])
def test_other_opsets(opset: int) -> None:
    for base in PRODUCTS:
        p = Product(base, 7, 3, (U8, 0, 255))
        t = OPERATORS[base].reference(p.attributes, *p.inputs)
        inputs, a = p.with_stages(("Add", "Table", "Requantize"), t.shape, 3)
        check(f"{base}AddTableRequantize", inputs, a, opset)


def _plain_conv(x: Array, w: Array, a: dict[str, Any]) -> Array:
    """Sums one product at a time, NHWC in and out: an independent reading of the formula."""
    (top, left, bottom, right), z, group = a["pads"], a["x_zero_point"], a["group"]
    x = np.pad(x.astype(np.int64) - z, ((0, 0), (top, bottom), (left, right), (0, 0)))
    out, inner, height, width = w.shape
    rows = (x.shape[1] - (height - 1) * a["dilations"][0] - 1) // a["strides"][0] + 1
    columns = (x.shape[2] - (width - 1) * a["dilations"][1] - 1) // a["strides"][1] + 1
    y = np.zeros((x.shape[0], rows, columns, out), np.int64)
    for o, i, j, ky, kx in np.ndindex(out, rows, columns, height, width):
        first = o // (out // group) * inner
        at = i * a["strides"][0] + ky * a["dilations"][0], j * a["strides"][1] + kx * a["dilations"][1]
        y[:, i, j, o] += x[:, at[0], at[1], first : first + inner] @ w[o, :, ky, kx].astype(np.int64)
    return y


@pytest.mark.parametrize("base", ["ConvNhwc", "ConvFromNchw", "DepthwiseNhwc"])
def test_products_are_sums_of_products(base: str) -> None:
    for seed in range(4):
        p = Product(base, seed, 100, (U8, 0, 255))
        a = p.accumulated
        unpack = packing.unpack_taps(p.w, a["w_shape"]) if base == "DepthwiseNhwc" else None
        w = packing.unpack_conv(p.w, a["w_shape"], a["group"]) if unpack is None else unpack
        x = p.x.transpose(0, 2, 3, 1) if base == "ConvFromNchw" else p.x
        got = OPERATORS[f"{base}Accumulate"].reference(a, *p.inputs[:3])
        assert np.array_equal(got, _plain_conv(x, w, a) + p.bias.reshape(-1))


@FEW
@given(seeds, st.sampled_from([U8, S8]), st.integers(0, 1))
def test_max_pool(seed: int, dtype: Any, ceil: int) -> None:
    rng = np.random.default_rng(seed)
    kernel, dilations = rng.integers(1, 4, 2), rng.integers(1, 3, 2)
    size = dilations * (kernel - 1) + 1 + rng.integers(0, 5, 2)
    pads = [int(rng.integers(0, k)) for k in (*kernel, *kernel)]
    x = integers(rng, dtype, 2, *size.tolist(), 3)
    a = {"kernel_shape": kernel.tolist(), "strides": rng.integers(1, 4, 2).tolist(), "pads": pads}
    check("MaxPoolNhwc", [x], a | {"dilations": dilations.tolist(), "ceil_mode": ceil})


@FEW
@given(seeds, st.sampled_from([U8, S8]), st.integers(1, 4))
def test_slice_pad(seed: int, dtype: Any, rank: int) -> None:
    rng = np.random.default_rng(seed)
    check("SlicePad", [integers(rng, dtype, *rng.integers(4, 9, rank).tolist())], boxes(rng, dtype, rank))


def test_a_wrong_panel_is_seen() -> None:
    """Break it on purpose: two output channels trade places in the packed weights."""
    p = Product("GemmPacked", 1, 3, (S16, -32768, 32767))
    expected = OPERATORS["GemmPackedAccumulate"].reference(p.accumulated, *p.inputs[:3])
    p.inputs[1] = p.inputs[1][:, :, :, ::-1]
    got = OPERATORS["GemmPackedAccumulate"].reference(p.accumulated, *p.inputs[:3])
    assert not np.array_equal(got, expected)


def test_attach_brings_the_plain_operators_along() -> None:
    p = Product("ConvNhwc", 0, 3, (U8, 0, 255))
    model = one_node("ConvNhwc", p.inputs, p.attributes, 21)
    assert [k[1] for k in model.functions] == ["Requantize", "ConvAccumulate", "Conv", "ConvNhwc"]
