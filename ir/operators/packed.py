"""Products as the kernel library runs them: channels last, packed weights, what follows in the epilogue.

Bases: ConvNhwc, ConvFromNchw, DepthwiseNhwc, GemmPacked are Conv and Gemm (section 2 and 3) on another layout,

    x, w s8 packed, bias s32 [O], b, c s32 [O] or [1]  ->  t = clamp(((acc * b + 2^(c-1)) >> c) + z)

and each has a form NAMEAccumulate (x, w, bias) -> acc s32. x: u8, [N, H, W, C] ([N, C, H, W] for ConvFromNchw; [..., K]
for GemmPacked); results are [N, H, W, O] and [..., N]. w_shape keeps the plain shape, [O, C/G, kh, kw] or [K, N];
`packing` has the layouts. ConvNhwcInt4, GemmPackedInt2 and the like have weights of 4, 2 or 1 bits,
ConvNhwcInt4Blocks and the like 4 bits times a multiplier a block: `low_bits`, w u8. ConvNhwcSparse,
GemmPackedSharedInt4 and the like keep two of four weights: `sparse`, w u8.

GemmPackedRows, GemmPackedInt4Rows and the like take k s32 [..., 1] besides, what `RowQuantize` shifted each row by:

    x, w, bias, b, c, k  ->  Requantize(acc, b, c - k)        0 <= k, 2 <= c - k

A name goes on with the stages of its epilogue, any of them in the order of `epilogue.STAGES`: ConvNhwcAddRequantize.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np

from mulshift.ir.operators.conv import CONV, CONV_ACCUMULATE
from mulshift.ir.operators.epilogue import EPILOGUES, RESCALED, with_epilogue
from mulshift.ir.operators.gemm import GEMM, GEMM_ACCUMULATE
from mulshift.ir.operators.low_bits import (
    BLOCKS_TEXT,
    LOW_BITS,
    LOW_TAPS,
    steps_text,
    taps_text,
    unpack_bits,
    unpack_blocks,
    unpack_low_taps,
)
from mulshift.ir.operators.operator import REQUANTIZE_OUTPUT, Attributes, Operator, hand_on, signature
from mulshift.ir.operators.packing import unpack_conv, unpack_gemm, unpack_taps
from mulshift.ir.operators.requantize import REQUANTIZE
from mulshift.ir.operators.sparse import SPARSE, SparseForm, unpack_zeros, zeros_text
from mulshift.ir.types import Array

_WINDOW = ("strides", "pads", "dilations", "group")
_WEIGHTS = ("w_shape", "layout")
_OUTPUT = ("zero_point", "qmin", "qmax", "dtype")
_INPUTS = ("x", "w", "bias", "b", "c")
_NHWC, _NCHW = (0, 2, 3, 1), (0, 3, 1, 2)

_NUMBERS = """
  shape = Constant <value_ints: ints = @w_shape> ()
  zero = Constant <value_ints = [0]> ()
  one = Constant <value_ints = [1]> ()
  two = Constant <value_ints = [2]> ()
  last = Constant <value_ints = [-1]> ()
"""
_MATRIX = """
  unrolled = Transpose <perm = [0, 1, 3, 2, 4]> (w_steps)
  to_rows = Constant <value_ints = [0, 0, 0, -1]> ()
  padded_rows = Reshape (unrolled, to_rows)
  rows = Slice (padded_rows, zero, k, last)
  to_matrix = Concat <axis = 0> (zero, last, k)
  padded_matrix = Reshape (rows, to_matrix)
  matrix = Slice (padded_matrix, zero, n, one)
"""
"""k4n16 [G, P, K4, 16, 4] -> [G, n, k]."""

_CONV_WEIGHTS = f"""{_NUMBERS}
  groups = Constant <value_int: int = @group> ()
  outputs = Slice (shape, zero, one)
  n = Div (outputs, groups)
  four = Constant <value_ints = [4]> ()
  inner = Slice (shape, one, four)
  k = ReduceProd <keepdims = 1> (inner)
{_MATRIX}
  channels_last = Constant <value_ints = [0, 2, 3, 1]> ()
  to_taps = Gather (shape, channels_last)
  taps = Reshape (matrix, to_taps)
  w_plain = Transpose <perm = [0, 3, 1, 2]> (taps)
"""
_GEMM_WEIGHTS = f"""{_NUMBERS}
  k = Slice (shape, zero, one)
  n = Slice (shape, one, two)
{_MATRIX}
  columns = Squeeze (matrix, zero)
  w_plain = Transpose <perm = [1, 0]> (columns)
"""
_STEPS = "  w_steps = Identity (w)\n"
"""k4n16 as it is."""

_TAPS = "  w_taps = Identity (w)\n"
_TAPS_WEIGHTS = """
  shape = Constant <value_ints: ints = @w_shape> ()
  channels = Transpose <perm = [1, 0]> (w_taps)
  w_plain = Reshape (channels, shape)
"""


@dataclass(frozen=True)
class _Base:
    """A row: a plain product, and how its weights and activations are laid out.

    Attributes:
        plain, accumulate: the operators that it is another layout of.
        window: attributes that it hands on to them.
        weights: statements that make w_plain of w_steps.
        unpack: the same in Python.
        x_perm, y_perm: Transpose before and after, None for none.
        channel: shape of bias, b and c in the plain operator.
        steps: statements that make w_steps, s8 k4n16, of w; for taps w_taps.
    """

    plain: Operator
    accumulate: Operator
    window: tuple[str, ...]
    weights: str
    unpack: Callable[[Attributes, Array], Array]
    x_perm: tuple[int, ...] | None
    y_perm: tuple[int, ...] | None
    channel: tuple[int, ...]
    steps: str = _STEPS


def _conv_weights(a: Attributes, w: Array) -> Array:
    return unpack_conv(w, a["w_shape"], a["group"])


def _gemm_weights(a: Attributes, w: Array) -> Array:
    return unpack_gemm(w, a["w_shape"])


def _taps_weights(a: Attributes, w: Array) -> Array:
    return unpack_taps(w, a["w_shape"])


def _low(base: _Base, bits: int) -> _Base:
    """The same base with weights of so many bits."""

    def unpack(a: Attributes, w: Array) -> Array:
        return base.unpack(a, unpack_bits(w, bits))

    return replace(base, steps=steps_text(bits), unpack=unpack)


def _low_taps(base: _Base, bits: int) -> _Base:
    """The same base of taps with weights of so many bits."""

    def unpack(a: Attributes, w: Array) -> Array:
        return base.unpack(a, unpack_low_taps(w, bits, a["w_shape"][0]))

    return replace(base, steps=taps_text(bits), unpack=unpack)


def _in_blocks(base: _Base) -> _Base:
    """The same base with weights of 4 bits times a multiplier a block."""

    def unpack(a: Attributes, w: Array) -> Array:
        return base.unpack(a, unpack_blocks(w))

    return replace(base, steps=BLOCKS_TEXT, unpack=unpack)


def _sparse(base: _Base, form: SparseForm) -> _Base:
    """The same base with two of four weights kept."""

    def unpack(a: Attributes, w: Array) -> Array:
        return base.unpack(a, unpack_zeros(w, form))

    return replace(base, steps=zeros_text(form), unpack=unpack)


_PER_CHANNEL = (-1, 1, 1)
_BASES = {
    "ConvNhwc": _Base(CONV, CONV_ACCUMULATE, _WINDOW, _CONV_WEIGHTS, _conv_weights, _NCHW, _NHWC, _PER_CHANNEL),
    "ConvFromNchw": _Base(CONV, CONV_ACCUMULATE, _WINDOW, _CONV_WEIGHTS, _conv_weights, None, _NHWC, _PER_CHANNEL),
    "DepthwiseNhwc": _Base(
        CONV, CONV_ACCUMULATE, _WINDOW, _TAPS_WEIGHTS, _taps_weights, _NCHW, _NHWC, _PER_CHANNEL, steps=_TAPS
    ),
    "GemmPacked": _Base(GEMM, GEMM_ACCUMULATE, (), _GEMM_WEIGHTS, _gemm_weights, None, None, (-1,)),
}
_MATRICES = ("ConvNhwc", "ConvFromNchw", "GemmPacked")
_BASES |= {f"{name}Int{bits}": _low(_BASES[name], bits) for name in _MATRICES for bits in LOW_BITS}
_BASES |= {f"DepthwiseNhwcInt{bits}": _low_taps(_BASES["DepthwiseNhwc"], bits) for bits in LOW_TAPS}
_BASES |= {f"{name}Int4Blocks": _in_blocks(_BASES[name]) for name in _MATRICES}
_BASES |= {
    f"{name}{form.suffix}": _sparse(_BASES[name], form) for name in ("ConvNhwc", "GemmPacked") for form in SPARSE
}


RESCALING = "GemmPacked"
"""The product that takes a Rescale behind its Table."""


def _attributes(base: _Base, accumulate: bool) -> tuple[str, ...]:
    """Those that the plain operator takes too."""
    return ("x_zero_point", *(() if accumulate else _OUTPUT), *base.window)


def _product(name: str, base: _Base, accumulate: bool) -> Operator:
    """ConvNhwc and the like, or its accumulator."""
    plain = base.accumulate if accumulate else base.plain
    attributes = _attributes(base, accumulate)
    channel = ("bias",) if accumulate else ("bias", "b", "c")

    def reference(a: Attributes, x: Array, w: Array, *channel: Array) -> Array:
        moved = x if base.x_perm is None else x.transpose(base.x_perm)
        shaped = [v.reshape(base.channel) for v in channel]
        y = plain.reference({**a, "w_zero_point": 0}, moved, base.unpack(a, w), *shaped)
        return y if base.y_perm is None else np.ascontiguousarray(y.transpose(base.y_perm))

    return Operator(
        name=f"{name}Accumulate" if accumulate else name,
        signature=signature((*attributes, *_WEIGHTS), ("x", "w", *channel), ("y",)),
        body=base.steps + base.weights + _call(base, plain.name, attributes, channel),
        reference=reference,
        calls=(plain.name,),
    )


def _call(base: _Base, plain: str, attributes: Iterable[str], channel: tuple[str, ...]) -> str:
    """Statements from x, w_plain and the numbers a channel to y."""
    x = "x" if base.x_perm is None else "x_plain"
    y = "y" if base.y_perm is None else "y_plain"
    given = ", ".join((x, "w_plain", *(f"{v}_plain" for v in channel)))
    return "\n".join(
        (
            f"  per_channel = Constant <value_ints = {list(base.channel)}> ()",
            *(f"  {v}_plain = Reshape ({v}, per_channel)" for v in channel),
            *_transposed("x_plain", base.x_perm, "x"),
            f"  {y} = mulshift.{plain} <w_zero_point = 0, {hand_on(attributes)}> ({given})",
            *_transposed("y", base.y_perm, "y_plain"),
        )
    )


def _transposed(y: str, perm: tuple[int, ...] | None, x: str) -> tuple[str, ...]:
    return () if perm is None else (f"  {y} = Transpose <perm = {list(perm)}> ({x})",)


def _family(name: str, base: _Base) -> list[Operator]:
    product = _product(name, base, accumulate=False)
    attributes = (*_attributes(base, accumulate=False), *_WEIGHTS)
    epilogues = [*EPILOGUES, RESCALED] if name == RESCALING else EPILOGUES
    fused = [with_epilogue(product, attributes, _INPUTS, epilogue) for epilogue in epilogues]
    return [_product(name, base, accumulate=True), product, *fused]


def _by_rows(name: str, accumulate: Operator) -> list[Operator]:
    """GemmPackedRows and the like, out of GemmPackedAccumulate."""
    own = ("x_zero_point", *_WEIGHTS)

    def reference(a: Attributes, x: Array, w: Array, bias: Array, b: Array, c: Array, k: Array) -> Array:
        return REQUANTIZE.reference({**a, "x_zero_point": 0}, accumulate.reference(a, x, w, bias), b, c - k)

    product = Operator(
        name=name,
        signature=signature((*own, *_OUTPUT), (*_INPUTS, "k"), ("y",)),
        body=f"""
  acc = mulshift.{accumulate.name} <{hand_on(own)}> (x, w, bias)
  c_rows = Sub (c, k)
  y = mulshift.Requantize <{REQUANTIZE_OUTPUT}> (acc, b, c_rows)
""",
        reference=reference,
        calls=(accumulate.name, "Requantize"),
    )
    return [product, *(with_epilogue(product, (*own, *_OUTPUT), (*_INPUTS, "k"), epilogue) for epilogue in EPILOGUES)]


PRODUCTS = tuple(_BASES)
"""Names without Accumulate and without stages."""
_FAMILIES = {name: _family(name, base) for name, base in _BASES.items()}
ROW_PRODUCTS = {f"{name}Accumulate": f"{name}Rows" for name in PRODUCTS if name.startswith("GemmPacked")}
"""Accumulator -> the same by rows, without stages."""
PACKED = (
    *(op for family in _FAMILIES.values() for op in family),
    *(op for f in _FAMILIES.values() if f[0].name in ROW_PRODUCTS for op in _by_rows(ROW_PRODUCTS[f[0].name], f[0])),
)
