"""Nodes of products that are wrong in one thing, each with what the error says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from kernel_checks import S8, S16, S32, U8, one_node, output
from sparse_weights import form_of, thinned

from mulshift.ir import Array
from mulshift.ir.operators import low_bits, packing
from mulshift.ir.operators.sparse import pack_zeros

EPILOGUE = "AddTableRequantize"
OPTIONAL = ("strides", "pads", "dilations")
"""Attributes that may be left out."""
INPUTS = ("x", "w", "bias", "b", "c", "r", "table", "q_b", "q_c")
BY_ROWS = (*INPUTS[:5], "k", *INPUTS[5:])
RESCALED = (*INPUTS[:5], "table", "rescale_b", "rescale_c")
HUGE = 2**31 - 1


@dataclass
class Draft:
    """A node that is right until something is changed."""

    op: str
    inputs: list[Array]
    attributes: dict[str, Any]
    outputs: list[Any] = field(default_factory=lambda: [S16, S8])
    fed: tuple[int, ...] = (0, 5)

    def model(self) -> onnx.ModelProto:
        return one_node(self.op, self.inputs, self.attributes, self.outputs, self.fed)

    def names(self) -> tuple[str, ...]:
        """Of the inputs."""
        if "Rescale" in self.op:
            return RESCALED
        return BY_ROWS if "Rows" in self.op else INPUTS

    def feeds(self) -> dict[str, Array]:
        return {f"i{k}": self.inputs[k] for k in self.fed}


def draft(base: str) -> Draft:
    """x [1, 5, 5, 6] to 20 channels (depthwise: to 6), or [3, 6] to 20; every stage."""
    by_rows, base = base.endswith("Rows"), base.removesuffix("Rows")
    rng = np.random.default_rng(1)
    a: dict[str, Any] = {"x_zero_point": 7, "layout": packing.K4N16, **output(U8, 0, 255, 3)}
    channels, bits = 6 if base.startswith("DepthwiseNhwc") else 20, int(base.partition("Int")[2][:1] or 8)
    if base.startswith("GemmPacked"):
        depth = 8 if bits == 1 else 6
        x, w = rng.integers(0, 256, (3, depth)), _weights(rng, (depth, 20), bits)
        packed, shape = packing.pack_gemm(w.astype(S8)), (3, 20)
    else:
        depthwise, read = base.startswith("DepthwiseNhwc"), 8 if bits == 1 and channels == 20 else 6
        inner = 1 if depthwise else read
        x = rng.integers(0, 256, (1, read, 5, 5) if base.startswith("ConvFromNchw") else (1, 5, 5, read))
        w, shape = _weights(rng, (channels, inner, 3, 3), bits), (1, 3, 3, channels)
        a |= {"strides": [1, 1], "pads": [0, 0, 0, 0], "dilations": [1, 1], "group": read // inner}
        packed = packing.pack_taps(w.astype(S8)) if depthwise else packing.pack_conv(w.astype(S8), 1)
        a["layout"] = packing.TAPS if depthwise else packing.K4N16
    if sparse := form_of(base):
        packed, a["layout"] = pack_zeros(thinned(packed.astype(S8), sparse.shared, rng), sparse), sparse.layout
    elif base.endswith("Blocks"):
        packed, a["layout"] = low_bits.pack_blocks(packed, 16), low_bits.BLOCKS
    elif bits < 8 and base.startswith("DepthwiseNhwc"):
        packed, a["layout"] = low_bits.pack_low_taps(packed, bits), low_bits.LOW_TAPS[bits]
    elif bits < 8:
        packed, a["layout"] = low_bits.pack_bits(packed, bits), low_bits.LOW_BITS[bits]
    a["w_shape"] = list(w.shape)
    add = {"y_zero_point": 1, "x_multiplier": 100, "y_multiplier": 90, "shift": 7, **output(S8, -128, 127, 0)}
    again = {"x_zero_point": 5, **output(S8, -128, 127, 0)}
    a |= {f"add_{k}": v for k, v in add.items()} | {f"q_{k}": v for k, v in again.items()} | {"table_dtype": 5}
    numbers = [np.full(channels, n, S32) for n in (5, 100, 12)]
    tail = [rng.integers(0, 256, shape).astype(U8), np.arange(256).astype(S16), S32([3]), S32([9])]
    head = [x.astype(U8), packed, *numbers]
    if by_rows:
        return Draft(f"{base}Rows{EPILOGUE}", [*head, np.array([[0], [5], [10]], S32), *tail], a, fed=(0, 5, 6))
    return Draft(base + EPILOGUE, [*head, *tail], a)


def draft_of_rescaling() -> Draft:
    """[3, 6] to 20, a table of words, one number a column."""
    made = draft("GemmPacked")
    a = {k: v for k, v in made.attributes.items() if not k.startswith(("add_", "q_"))}
    a |= {f"rescale_{k}": v for k, v in ({"x_zero_point": 0} | output(U8, 0, 255, 9)).items()}
    numbers = [np.full(20, n, S32) for n in (2**30, 40)]
    return Draft("GemmPackedTableRescale", [*made.inputs[:5], made.inputs[6], *numbers], a, [U8], (0,))


def _weights(rng: np.random.Generator, shape: tuple[int, ...], bits: int) -> Array:
    if bits == 1:
        return 2 * rng.integers(0, 2, shape) - 1
    return rng.integers(-9, 9, shape) if bits == 8 else rng.integers(-(2 ** (bits - 1)), 2 ** (bits - 1), shape)


Change = Callable[[Draft], None]


def _set(**attributes: Any) -> Change:
    return lambda d: d.attributes.update(attributes)


def _without(name: str) -> Change:
    def change(d: Draft) -> None:
        del d.attributes[name]

    return change


def _put(name: str, make: Callable[[Array], Array]) -> Change:
    def change(d: Draft) -> None:
        at = d.names().index(name)
        d.inputs[at] = make(d.inputs[at])

    return change


def _feed(name: str) -> Change:
    def change(d: Draft) -> None:
        d.fed = tuple(sorted({*d.fed, d.names().index(name)}))

    return change


def _outputs(*dtypes: Any) -> Change:
    def change(d: Draft) -> None:
        d.outputs = list(dtypes)

    return change


def _last(value: int) -> Callable[[Array], Array]:
    """The same array with another last element."""
    return lambda x: np.concatenate([x.reshape(-1)[:-1], np.array([value], x.dtype)]).reshape(x.shape)


EVERY: dict[str, tuple[Change, str]] = {
    "an unknown layout": (_set(layout="n16k4"), "w is laid out as 'n16k4'"),
    "a layout that is a number": (_set(layout=4), "'layout' is missing or no short text"),
    "a layout too long to be one": (_set(layout="k" * 500), "'layout' is missing or no short text"),
    "a negative b": (_put("b", _last(-1)), "a multiplier b is negative"),
    "c of 1": (_put("c", _last(1)), "a shift c is not from 2 to 62"),
    "c of 63": (_put("c", _last(63)), "a shift c is not from 2 to 62"),
    "a negative q_b": (_put("q_b", _last(-(2**31))), "a multiplier b is negative"),
    "q_c of 63": (_put("q_c", _last(63)), "a shift c is not from 2 to 62"),
    "two q_b": (_put("q_b", lambda x: S32([1, 2])), "q_b and q_c must have one element"),
    "too few b": (_put("b", lambda x: x[:3]), "b has 3 and c"),
    "too many c": (_put("c", lambda x: S32([*x, 2])), "elements, not one or"),
    "too few biases": (_put("bias", lambda x: x[1:]), "bias has"),
    "no bias at all": (_put("bias", lambda x: x[:0]), "bias has 0 elements"),
    "a bias beyond int32 sums": (_put("bias", _last(2**31 - 1)), "its int32 accumulator may overflow"),
    "255 entries": (_put("table", lambda x: x[1:]), "table must have 256 entries"),
    "a table of two axes": (_put("table", lambda x: x.reshape(16, 16)), "table must have 256 entries"),
    "a table read by s16": (_set(add_dtype=5, add_qmax=9), "a table is read by 8-bit values"),
    "a sum of s32": (_set(dtype=6, zero_point=0), "a 32-bit value cannot be added"),
    "a zero point of 32 bits": (_set(dtype=6, zero_point=1), "zero_point"),
    "a zero point that u8 lacks": (_set(zero_point=256), "zero_point"),
    "a zero point far away": (_set(zero_point=-(2**31)), "zero_point"),
    "a sum's zero point that s8 lacks": (_set(add_zero_point=128), "add_zero_point"),
    "q's zero point far away": (_set(q_zero_point=2**31 - 1), "q_zero_point"),
    "x's zero point that u8 lacks": (_set(x_zero_point=256), "'x_zero_point' is 256, not from 0 to 255"),
    "r's zero point that u8 lacks": (_set(add_y_zero_point=-1), "'add_y_zero_point' is -1"),
    "y's zero point that s16 lacks": (_set(q_x_zero_point=32768), "'q_x_zero_point' is 32768"),
    "an empty clamp": (_set(qmin=9, qmax=8), "qmin 9 is above qmax 8"),
    "an unknown type": (_set(dtype=1), "dtype"),
    "a type of 64 bits": (_set(q_dtype=7), ""),
    "a shift of 1": (_set(add_shift=1), "'add_shift' is 1"),
    "a multiplier below int32": (_set(add_x_multiplier=-(2**31)), "'add_x_multiplier' is -2147483648"),
    "a multiplier beyond int32": (_set(add_y_multiplier=2**31), "'add_y_multiplier' is 2147483648"),
    "r of another shape": (_put("r", lambda x: x[..., :-1]), "r must have the shape of the output"),
    "r of another rank": (_put("r", lambda x: x.reshape(-1)), "r must have the shape of the output"),
    "r of one element": (_put("r", lambda x: x.reshape(-1)[:1]), "r must have the shape of the output"),
    "r of s32": (_put("r", lambda x: x.astype(S32)), ""),
    "x of s8": (_put("x", lambda x: x.astype(S8)), ""),
    "w of another type": (_put("w", lambda x: x.astype(U8 if x.dtype == S8 else S8)), ""),
    "w of one axis more": (_put("w", lambda x: x[None]), "w must be ["),
    "w with a row too few": (_put("w", lambda x: x[:, :-1] if x.ndim == 2 else x[:, :, :-1]), "w must be ["),
    "an empty w": (_put("w", lambda x: x[:0]), "w must be ["),
    "w_shape of three numbers": (_set(w_shape=[1, 2, 3]), "'w_shape' has 3 numbers"),
    "w_shape with a zero": (lambda d: d.attributes["w_shape"].__setitem__(0, 0), "'w_shape' has 0"),
    "w_shape with a negative number": (lambda d: d.attributes["w_shape"].__setitem__(1, -6), "'w_shape' has -6"),
    "w_shape beyond all": (lambda d: d.attributes["w_shape"].__setitem__(1, 2**63 - 1), "'w_shape' has 9223"),
    "another type than declared": (_outputs(U8, S8), ""),
    "another second type than declared": (_outputs(S16, U8), ""),
    "one output too few": (_outputs(S16), "has 2 outputs, not 1"),
    "one input too few": (lambda d: d.inputs.pop(), ""),
    "one input too many": (lambda d: d.inputs.append(S32([2])), ""),
    **{f"{name} that is fed": (_feed(name), f"{name} must be a constant") for name in INPUTS if name not in "xr"},
}
"""Of every base operator."""

WINDOWS: dict[str, tuple[Change, str]] = {
    "x of three axes": (_put("x", lambda x: x[0]), "x must have 4 axes, it has 3"),
    "x of five axes": (_put("x", lambda x: x[None]), "x must have 4 axes, it has 5"),
    "x of other channels": (_put("x", lambda x: np.zeros((1, 7, 7, 7), U8)), "x has 7 channels, w has 6"),
    "a window larger than x": (_put("x", lambda x: np.zeros((1, 6, 1, 6), U8)), ""),
    "groups that do not divide": (_set(group=7), ""),
    "no group": (_set(group=0), "'group' is 0"),
    "more groups than outputs": (_set(group=HUGE), ""),
    "a stride of 0": (_set(strides=[0, 1]), "'strides' has 0"),
    "three strides": (_set(strides=[1, 1, 1]), "'strides' has 3 numbers"),
    "nine strides": (_set(strides=[1] * 9), "'strides' has 9 numbers"),
    "strides that are a number": (_set(strides=2), "'strides' has 0 numbers"),
    "strides beyond all": (_set(strides=[2**63 - 1, 1]), "'strides' has 9223372036854775807"),
    "a negative pad": (_set(pads=[0, -1, 0, 0]), "'pads' has -1"),
    "pads beyond all": (_set(pads=[2**63 - 1] * 4), "'pads' has 9223372036854775807"),
    "dilations beyond all": (_set(dilations=[2**62, 2**62]), "'dilations' has 4611686018427387904"),
    "a dilation of 0": (_set(dilations=[1, 0]), "'dilations' has 0"),
    "dilations beyond x": (_set(dilations=[HUGE, 1]), "is smaller than the kernel"),
    "dilations of text": (_set(dilations="11"), "dilations"),
}


def _padding(d: Draft) -> None:
    """k = 6 or 54 leaves two of the last four weights of a column."""
    d.inputs[1][0, 0, -1, 0, 3] = 1


BLOCKS: dict[str, tuple[Change, str]] = {
    "w that is not zero where it is padding": (_padding, "w is not zero where it is padding"),
}
"""Of k4n16 weights."""


def _kept(positions: tuple[int, int, int, int], last: bool = False) -> Change:
    """Four weights of 1 in the first or last step of the first column, at such positions of its two fours."""

    def change(d: Draft) -> None:
        form = form_of(d.op.removesuffix(EPILOGUE))
        assert form is not None
        w, step = d.inputs[1], 6 if last and d.op.startswith("ConvNhwc") else 0
        if form.shared:
            w[0, 0, 0, step] = sum(p << 2 * i for i, p in enumerate(positions))
            row = w[0, 0, 1 + step * form.bits // 8, :4]
        else:
            chunk, shift = w[0, 0, step // 4], 2 * (step % 4)
            chunk[:4] = chunk[:4] & (255 - (3 << shift)) | [p << shift for p in positions]
            first = 64 + 64 * (step % 4 * form.bits // 8)
            row = chunk[first : first + 4]
        row[:] = 1 if form.bits == 8 else 0x99

    return change


def _half_a_step(d: Draft) -> None:
    """k = 3 or 51 has no second four in its last step."""
    d.attributes["w_shape"] = [3, 20] if d.op.startswith("GemmPacked") else [20, 17, 3, 1]


KEPT: dict[str, tuple[Change, str]] = {
    "positions that are equal": (_kept((0, 1, 2, 2)), "w has positions that do not ascend"),
    "positions that fall": (_kept((3, 1, 0, 1)), "w has positions that do not ascend"),
    "a kept weight where w is padding": (_kept((0, 1, 2, 3), last=True), "w is not zero where it is padding"),
    "a kept four where w is padding": (_half_a_step, "w is not zero where it is padding"),
}
"""Of weights of which two of four are kept."""

ROWS: dict[str, tuple[Change, str]] = {
    "x of no axes": (_put("x", lambda x: np.asarray(x[0, 0])), "x must have at least one axis"),
    "x of another k": (_put("x", lambda x: x[:, :-1]), "x has 5 elements along k, w has 6"),
    "x of nine axes": (_put("x", lambda x: np.zeros((1,) * 8 + (6,), U8)), "x has more than 8 axes"),
}


SHIFTED: dict[str, tuple[Change, str]] = {
    "a negative k": (_put("k", _last(-1)), "k is -1, not from 0 to 10"),
    "a k that leaves c - k of 1": (_put("k", _last(11)), "k is 11, not from 0 to 10"),
    "a k too few": (_put("k", lambda x: x[:-1]), "k must have one element for each row of x"),
    "k of one axis": (_put("k", lambda x: x.reshape(-1)), "k must have one element for each row of x"),
    "k of s16": (_put("k", lambda x: x.astype(S16)), ""),
}
"""Of products by rows."""


RESCALINGS: dict[str, tuple[Change, str]] = {
    "a negative rescale_b": (_put("rescale_b", _last(-1)), "a multiplier b is negative"),
    "rescale_c of 63": (_put("rescale_c", _last(63)), "a shift c is not from 2 to 62"),
    "too few rescale_b": (_put("rescale_b", lambda x: x[1:]), "rescale_b has 19 and rescale_c 20 elements"),
    "a table of bytes": (_put("table", lambda x: x.astype(U8)), ""),
    "a type of 32 bits": (_set(rescale_dtype=6), ""),
    "a zero point that u8 lacks": (_set(rescale_zero_point=256), "rescale_zero_point"),
    "y's zero point that s16 lacks": (_set(rescale_x_zero_point=32768), "'rescale_x_zero_point' is 32768"),
}
"""Of a product with a rescaling."""


def _overflowing(d: Draft) -> None:
    """16 channels and 2^60 taps: the number of weights, in 64 bits, wraps around to none."""
    d.op, d.outputs, d.fed = d.op.replace(EPILOGUE, "Accumulate"), [S32], (0,)
    d.attributes |= {"w_shape": [20, 16, 2**30, 2**30], "pads": [2**29] * 4, "strides": [2**30] * 2}
    d.inputs = [np.zeros((1, 16, 16, 16), U8), d.inputs[1][:, :, :0], d.inputs[2]]


BASES = (
    "ConvNhwc",
    "ConvFromNchw",
    "DepthwiseNhwc",
    "DepthwiseNhwcInt4",
    "GemmPacked",
    "GemmPackedInt4",
    "GemmPackedInt4Blocks",
    "GemmPackedRows",
    "GemmPackedInt4Rows",
    "GemmPackedSparse",
    "GemmPackedSharedInt4",
    "ConvNhwcSparseInt4",
    "ConvNhwcShared",
)


def malformed() -> Iterator[tuple[str, Draft, str]]:
    """(what is wrong, node, part of the message); "" where ONNX Runtime itself may say it."""
    for title, (change, said) in RESCALINGS.items():
        made = draft_of_rescaling()
        change(made)
        yield f"GemmPackedTableRescale: {title}", made, said
    for base in BASES:
        kinds = EVERY | (ROWS if base.startswith("GemmPacked") else WINDOWS)
        if base in ("ConvNhwc", "ConvFromNchw", "GemmPacked"):
            kinds = kinds | BLOCKS
        kinds = kinds | (KEPT if form_of(base) else {}) | (SHIFTED if base.endswith("Rows") else {})
        if base in ("ConvNhwc", "ConvFromNchw"):
            kinds = kinds | {"2^64 weights an output": (_overflowing, "'w_shape' has more weights")}
        for name in sorted(draft(base).attributes.keys() - set(OPTIONAL)):
            kinds = kinds | {f"no {name}": (_without(name), f"'{name}' is missing")}
        for title, (change, said) in kinds.items():
            made = draft(base)
            change(made)
            yield f"{base}: {title}", made, said
