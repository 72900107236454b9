"""fuse-kernels: weights of few bits and with zeros are packed to as few bytes as hold them, told by their values."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
import qdq_graphs as g
from kernel_graphs import fuse, weights
from sparse_weights import thinned

from mulshift.ir import Array, add_initializer, constant
from mulshift.ir.operators import packing
from mulshift.passes.kernels.products import DENSE, KERNEL

PRODUCTS = ("Conv", "ConvAccumulate", "GemmAccumulate")


def few(bits: int, **shapes: tuple[int, ...]) -> dict[str, Array]:
    """Weights that are few integers."""
    rng, most = np.random.default_rng(bits), max(1, 2 ** (bits - 1) - 1)
    return {
        key: (rng.choice([-1, 1], shape) if bits == 1 else rng.integers(-most, most + 1, shape)).astype(np.float32)
        for key, shape in shapes.items()
    }


def narrow(integer: ir.Model, bits: int) -> None:
    """8 bits hold more: as if the products' weights had been quantized to as few."""
    for node in integer.graph:
        w = constant(node.inputs[1]) if node.op_type in PRODUCTS else None
        if w is not None:
            cut = np.where(w < 0, -1, 1) if bits == 1 else w >> (8 - bits)
            node.replace_input_with(1, add_initializer(integer.graph, f"{node.name}.narrow", cut.astype(np.int8)))


@pytest.mark.parametrize(("bits", "name", "rows"), [(8, "", 8), (4, "Int4", 4), (2, "Int2", 2), (1, "Int1", 1)])
def test_weights_that_fit_few_bits_are_packed_to_them(bits: int, name: str, rows: int) -> None:
    text = (
        "(float[1,8,6,6] x) => (float[1,40] y) "
        "{ a = Conv<pads=[1,1,1,1]>(x, w) r = Relu(a) p = GlobalAveragePool(r) f = Flatten(p) y = MatMul(f, v) }"
    )
    given = few(bits, w=(32, 8, 2, 2), v=(32, 40))
    feeds = {"x": g.normal(1, 8, 6, 6)}
    integer = g.lower(g.qdq(g.graph(text, given), feeds))
    narrow(integer, bits)
    found, _ = fuse(integer, feeds)
    packed = {n.op_type: n.inputs[1] for n in found.graph if n.op_type.startswith(("ConvNhwc", "GemmPacked"))}
    assert [*packed] == [f"ConvNhwc{name}", f"GemmPacked{name}Accumulate"]
    assert [v.shape for v in packed.values() if v is not None] == [(1, 2, rows, 16, 4), (1, 3, rows, 16, 4)]


@pytest.mark.parametrize(("bits", "name", "bytes_"), [(4, "Int4", 8), (2, "Int2", 4), (1, "Int1", 2)])
def test_taps_and_first_convolutions_in_few_bits_too(bits: int, name: str, bytes_: int) -> None:
    """Those whose sums no padding fills: one bit needs no zero in a depthwise convolution."""
    text = "(float[1,3,6,6] x) => (float[1,16,2,2] y) { a = Conv(x, w) r = Relu(a) y = Conv<group=16>(r, v) }"
    given = few(bits, w=(16, 3, 3, 3), v=(16, 1, 3, 3))
    feeds = {"x": g.normal(1, 3, 6, 6)}
    integer = g.lower(g.qdq(g.graph(text, given), feeds))
    narrow(integer, bits)
    found, _ = fuse(integer, feeds)
    packed = {n.op_type: n.inputs[1] for n in found.graph if "Conv" in n.op_type or "Depthwise" in n.op_type}
    first = "ConvFromNchwInt2" if bits == 1 else f"ConvFromNchw{name}"  # 27 products: one is padded with 0
    assert [*packed] == [first, f"DepthwiseNhwc{name}Accumulate"]
    taps = packed[f"DepthwiseNhwc{name}Accumulate"]
    assert taps is not None and taps.shape == (9, bytes_)


SPARSE = {"": (8, 4), "Sparse": (8, 16), "Shared": (8, 16), "SparseInt4": (4, 16), "SharedInt4": (4, 16)}
"""Form -> bits, channels in fours: of 16 k and fewer a sum, two of four would take no fewer bytes."""


@pytest.mark.parametrize("kernel", ["", DENSE])
@pytest.mark.parametrize("form", SPARSE)
def test_two_of_four_weights_are_kept_by_their_values(form: str, kernel: str) -> None:
    bits, fours = SPARSE[form]
    text = (
        f"(float[1,{4 * fours},6,6] x) => (float[1,40] y) "
        "{ a = Conv(x, w) r = Relu(a) p = GlobalAveragePool(r) f = Flatten(p) y = MatMul(f, v) }"
    )
    inner, feeds = 4 * fours, {"x": g.normal(1, 4 * fours, 6, 6)}
    integer = g.lower(g.qdq(g.graph(text, weights(w=(inner, inner, 1, 1), v=(inner, 40))), feeds))
    rng = np.random.default_rng(1)
    for node in integer.graph:
        w = constant(node.inputs[1]) if node.op_type in ("Conv", "GemmAccumulate") else None
        if w is None:
            continue
        node.metadata_props[KERNEL] = kernel
        is_conv = w.ndim == 4
        packed = packing.pack_conv(w, 1) if is_conv else packing.pack_gemm(w)
        thin = thinned(packed >> (8 - bits), form.startswith("Shared"), rng)
        plain = packing.unpack_conv(thin, w.shape, 1) if is_conv else packing.unpack_gemm(thin, w.shape)
        node.replace_input_with(1, add_initializer(integer.graph, f"{node.name}.thin", np.ascontiguousarray(plain)))
    found, _ = fuse(integer, feeds)
    names = [n.op_type for n in found.graph if n.op_type.startswith(("ConvNhwc", "GemmPacked"))]
    suffix = form if not kernel else "Int4" if bits == 4 else ""
    assert names == [f"ConvNhwc{suffix}", f"GemmPacked{suffix}Accumulate"]
