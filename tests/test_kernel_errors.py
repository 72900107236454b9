"""A malformed node is an error status of ONNX Runtime that starts with the node's name; nothing crashes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from kernel_checks import NAME, S8, S16, S32, U8, one_node, output, run

X = np.zeros((2, 3), U8)
ONE, TWO = S32([1]), S32([2])
OUT = output(U8, 0, 255, 0)
REQUANTIZE = {"x_zero_point": 0, **OUT}
ADD = {"x_zero_point": 0, "y_zero_point": 0, "x_multiplier": 1, "y_multiplier": 1, "shift": 2, **OUT}
MUL = {"x_zero_point": 0, "y_zero_point": 0, "multiplier": 1, "shift": 2, **OUT}
MEAN = {"x_zero_point": 0, "keepdims": 1, "multiplier": 1, "shift": 2, **OUT}
NORM = {"x_zero_point": 0, "epsilon": 0, "fraction": 12, "shift": 9, **OUT}
NORM_ROWS = NORM | {"q_x_zero_point": 0}
N3 = np.ones(3, S32)
LERP = {"x_zero_point": 0, "axis": 0}
POOL = {"kernel_shape": [2, 2], "strides": [1, 1], "pads": [0, 0, 0, 0], "dilations": [1, 1], "ceil_mode": 0}
IMAGE = np.zeros((1, 4, 4, 3), U8)
BOX = {"starts": [0, 0], "ends": [9, 9], "steps": [1, 1], "before": [0, 0], "after": [0, 0], "value": 0}
TABLE = np.zeros(256, U8)
AXIS = np.array([1], np.int64)
I0 = np.zeros(2, np.int64)
W = np.zeros((2, 1), S32)

# operator, inputs, attributes, what the message says
CASES: list[tuple[str, list[Any], dict[str, Any], str]] = [
    ("Requantize", [X, ONE, S32([1])], REQUANTIZE, "a shift c is not from 2 to 62"),
    ("Requantize", [X, ONE, S32([63])], REQUANTIZE, "a shift c is not from 2 to 62"),
    ("Requantize", [X, S32([-1]), TWO], REQUANTIZE, "a multiplier b is negative"),
    ("Requantize", [X, S32([1, 1]), TWO], REQUANTIZE, "do not broadcast"),
    ("Requantize", [X, S32([1, 1]), S32([2, 2, 2])], REQUANTIZE, "do not broadcast"),
    ("Requantize", [X, ONE, TWO], REQUANTIZE | {"x_zero_point": 256}, "'x_zero_point' is 256, not from 0 to 255"),
    ("Requantize", [X, ONE, TWO], REQUANTIZE | {"zero_point": 2**31}, "'zero_point' is 2147483648"),
    ("Requantize", [X, ONE, TWO], REQUANTIZE | {"qmin": -1}, "'qmin' is -1, not from 0 to 255"),
    ("Requantize", [X, ONE, TWO], REQUANTIZE | {"qmin": 7, "qmax": 6}, "qmin 7 is above qmax 6"),
    ("Requantize", [X, ONE, TWO], {k: v for k, v in REQUANTIZE.items() if k != "qmax"}, "'qmax' is missing"),
    ("Requantize", [X, ONE, TWO], {k: v for k, v in REQUANTIZE.items() if k != "dtype"}, "'dtype' is missing"),
    ("Requantize", [X, ONE, TWO], REQUANTIZE | {"x_zero_point": "three"}, "missing or no integer"),
    ("Requantize", [X, ONE, TWO], REQUANTIZE | {"x_zero_point": [3]}, "missing or no integer"),
    ("Requantize", [np.zeros((1,) * 9, U8), ONE, TWO], REQUANTIZE, "x has more than 8 axes"),
    ("Add", [X, np.zeros((2, 4), U8)], ADD, "do not broadcast"),
    ("Add", [X, X], ADD | {"shift": 1}, "'shift' is 1, not from 2 to 62"),
    ("Add", [X, X], ADD | {"x_multiplier": -(2**31)}, "'x_multiplier' is -2147483648"),
    ("Add", [X, X.astype(S8)], ADD | {"y_zero_point": 128}, "'y_zero_point' is 128, not from -128 to 127"),
    ("Mul", [X, X], MUL | {"multiplier": 2**31}, "'multiplier' is 2147483648"),
    ("Affine", [X, ONE, ONE, ONE, S32([0])], REQUANTIZE, "a shift c is not from 2 to 62"),
    ("Affine", [X, S32([1, 1]), ONE, ONE, TWO], REQUANTIZE, "do not broadcast"),
    ("Table", [X, TABLE[:255]], {}, "table must have 256 elements"),
    ("Table", [X.astype(S16), TABLE], {}, "table must have 65536 elements"),
    ("Table", [X, np.zeros(65536, U8)], {}, "table must have 256 elements"),
    ("Table", [X, TABLE.reshape(2, 128)], {}, "table must have 256 elements"),
    ("Table", [X.astype(S16), TABLE], {}, "table must have 65536 elements"),
    ("ReduceMean", [X, np.array([2], np.int64)], MEAN, "axes do not fit the 2 axes of x"),
    ("ReduceMean", [X, np.array([-3], np.int64)], MEAN, "axes do not fit the 2 axes of x"),
    ("ReduceMean", [X, np.array([1, -1], np.int64)], MEAN, "axes do not fit the 2 axes of x"),
    ("ReduceMean", [X, np.zeros(0, np.int64)], MEAN, "axes must be a list"),
    ("ReduceMean", [X, AXIS], MEAN | {"keepdims": 2}, "'keepdims' is 2"),
    ("Lerp", [X, I0 + 2, I0, W, W], LERP, "an index is outside the 2 elements"),
    ("Lerp", [X, I0, I0 - 3, W, W], LERP, "an index is outside the 2 elements"),
    ("Lerp", [X, I0, I0[:1], W, W], LERP, "i0 and i1 differ in length"),
    ("Lerp", [X, I0.reshape(1, 2), I0, W, W], LERP, "i0 and i1 must have one axis"),
    ("Lerp", [X, I0, I0, W, W.reshape(1, 2)], LERP, "w0 and w1 must be [2, 1, ...]"),
    ("Lerp", [X, I0, I0, W, W], LERP | {"axis": 2}, "axis 2 is none of the 2 axes of x"),
    *(
        (op, inputs, (NORM_ROWS if op.endswith("RowQuantize") else NORM) | changes, said)
        for op in ("LayerNorm", "RmsNorm", "LayerNormRowQuantize", "RmsNormRowQuantize")
        for inputs, changes, said in [
            ([X, N3[:2], N3[:2]], {}, "the last axis of x must have 2 elements as w"),
            ([np.asarray(X[0, 0]), N3[:1], N3[:1]], {}, "the last axis of x must have 1 elements as w"),
            ([X, N3, N3[:2]], {}, "w and bias must be two lists of 1 to 16384 elements"),
            ([X, N3.reshape(1, 3), N3], {}, "w and bias must be two lists"),
            ([X[:, :0], N3[:0], N3[:0]], {}, "w and bias must be two lists"),
            ([np.zeros((1, 16385), U8), np.ones(16385, S32), np.ones(16385, S32)], {}, "1 to 16384 elements"),
            # sqrt(3 * 4^12) = 7094.7, so |z| <= 7095
            ([X, S32([0, 302675, 0]), S32([0, 2**31 - 1 - 2**8 - 302675 * 7095 + 1, 0])], {}, "may overflow"),
            ([X, S32([0, -(2**31), 0]), N3], {}, "its int32 accumulator may overflow"),
            ([X, N3, S32([-(2**31), 0, 0])], {}, "its int32 accumulator may overflow"),
            ([X, N3, N3], {"epsilon": -1}, "'epsilon' is -1, not from 0 to 1152921504606846976"),
            ([X, N3, N3], {"epsilon": 2**60 + 1}, "'epsilon' is 1152921504606846977"),
            ([X, N3, N3], {"fraction": 21}, "'fraction' is 21, not from 0 to 20"),
            ([X, N3, N3], {"fraction": -1}, "'fraction' is -1"),
            ([X, N3, N3], {"shift": 1}, "'shift' is 1, not from 2 to 31"),
            ([X, N3, N3], {"shift": 32}, "'shift' is 32"),
            ([X, N3, N3], {"x_zero_point": 256}, "'x_zero_point' is 256, not from 0 to 255"),
            ([X, N3, N3], {"zero_point": 2**20}, "zero_point 1048576 is too far from 0"),
            ([X, N3, N3], {"qmin": 7, "qmax": 6}, "qmin 7 is above qmax 6"),
        ]
    ),
    ("RmsNormRowQuantize", [X, N3, N3], NORM, "'q_x_zero_point' is missing"),
    ("RmsNormRowQuantize", [X, N3, N3], NORM_ROWS | {"q_x_zero_point": 256}, "'q_x_zero_point' is 256"),
    ("RmsNormRowQuantize", [X, N3, N3], NORM_ROWS | output(S32, 0, 9, 0), "rows are made of 8 or 16 bits"),
    ("MaxPoolNhwc", [X], POOL, "x must be [N, H, W, C], not of 2 axes"),
    ("MaxPoolNhwc", [IMAGE], POOL | {"kernel_shape": [5, 1]}, "the window is larger than the padded x"),
    ("MaxPoolNhwc", [IMAGE], POOL | {"kernel_shape": [0, 1]}, "'kernel_shape' has 0"),
    ("MaxPoolNhwc", [IMAGE], POOL | {"kernel_shape": [2, 2, 2]}, "'kernel_shape' has 3 numbers, not 2"),
    ("MaxPoolNhwc", [IMAGE], POOL | {"strides": [0, 1]}, "'strides' has 0"),
    ("MaxPoolNhwc", [IMAGE], POOL | {"pads": [0, 0, -1, 0]}, "'pads' has -1"),
    ("MaxPoolNhwc", [IMAGE], POOL | {"pads": [2**63 - 1] * 4}, "'pads' has 9223372036854775807"),
    ("MaxPoolNhwc", [IMAGE], POOL | {"dilations": [2**62, 1]}, "'dilations' has 4611686018427387904"),
    ("MaxPoolNhwc", [IMAGE], POOL | {"strides": 3}, "'strides' has 0 numbers, not 2"),
    ("SlicePad", [IMAGE], BOX, "x has 4 axes, 'starts' is of 2"),
    ("SlicePad", [X], BOX | {"starts": [0] * 9}, "'starts' has 9 numbers, not 1 to 8"),
    ("SlicePad", [X], BOX | {"starts": 3}, "'starts' has 0 numbers, not 1 to 8"),
    ("SlicePad", [X], BOX | {"starts": [0, -1]}, "'starts' has -1"),
    ("SlicePad", [X], BOX | {"ends": [1]}, "'ends' has 1 numbers, not 2"),
    ("SlicePad", [X], BOX | {"ends": [1, 2**31]}, "'ends' has 2147483648"),
    ("SlicePad", [X], BOX | {"steps": [1, 0]}, "'steps' has 0"),
    ("SlicePad", [X], BOX | {"before": [-1, 0]}, "'before' has -1"),
    ("SlicePad", [X], BOX | {"after": [2**62, 2**62]}, "'after' has 4611686018427387904"),
    ("SlicePad", [X], BOX | {"before": [2**31 - 1] * 2, "after": [2**31 - 1] * 2}, "output 0 cannot be made"),
    ("SlicePad", [X], BOX | {"value": 256}, "'value' is 256, not from 0 to 255"),
]


FOUR = np.zeros((2, 3, 4, 5), U8)
KEYS = np.zeros((2, 7, 2, 5), S8)
QKV = [FOUR, KEYS, KEYS]
POWERS = {"score_multiplier": 1, "score_shift": 2, "multiplier": 1, "shift": 2, **OUT}
ATTENTION = {"q_zero_point": 0, "k_zero_point": 0, "v_zero_point": 0, **POWERS}
FLAT_QKV, FLAT = [x.reshape(2, len(x[0]), -1) for x in QKV], ATTENTION | {"heads": 4, "groups": 2}
MATMUL = {"x_zero_point": 0, "w_zero_point": 0, **OUT}
MATRIX = np.zeros((3, 4), S8)
MANY_KEYS = np.zeros((2, 65537, 2, 1), S8)
DEEP, DEEP_KEYS = np.zeros((1, 1, 1, 33026), U8), np.zeros((1, 1, 1, 33026), S8)

TURN = {"x_zero_point": 0, "multiplier": 1, "shift": 2, **OUT}
X4, ANGLES = np.zeros((2, 4), U8), np.zeros((2, 2), S16)
WIDE, LARGE = X4.astype(S16), np.array([[0, 2**14], [2**14 + 1, 0]], S16)
BASE, TWICE = np.ones((2, 2), S8), np.array([[1, 1], [1, 2]], S8)

CASES += [
    *(
        ("RotaryEmbedding", [X4, ANGLES, ANGLES], {k: v for k, v in TURN.items() if k != name}, f"'{name}' is missing")
        for name in TURN
    ),
    ("RotaryEmbedding", [X, ANGLES, ANGLES], TURN, "the last axis of x must have two halves, it has 3 elements"),
    ("RotaryEmbedding", [np.asarray(X[0, 0]), ANGLES, ANGLES], TURN, "must have at least one axis"),
    ("RotaryEmbedding", [X4, ANGLES[0, 0], ANGLES[0, 0]], TURN, "must have at least one axis"),
    ("RotaryEmbedding", [X4, ANGLES, ANGLES[:1]], TURN, "cos and sin differ in their shapes"),
    ("RotaryEmbedding", [X4, ANGLES[:, :1], ANGLES[:, :1]], TURN, "must have 2 elements along the last axis"),
    ("RotaryEmbedding", [X4, ANGLES[[0, 0, 0]], ANGLES[[0, 0, 0]]], TURN, "cos and sin do not broadcast to x"),
    ("RotaryEmbedding", [X4[:1], ANGLES, ANGLES], TURN, "cos and sin do not broadcast to x"),
    ("RotaryEmbedding", [X4, ANGLES[None], ANGLES[None]], TURN, "cos and sin do not broadcast to x"),
    ("RotaryEmbedding", [WIDE, LARGE, ANGLES], TURN, "a cosine or sine is beyond 16384"),
    ("RotaryEmbedding", [WIDE, ANGLES, -LARGE], TURN, "a cosine or sine is beyond 16384"),
    ("RotaryEmbedding", [X4, ANGLES, ANGLES], TURN | {"x_zero_point": 256}, "'x_zero_point' is 256"),
    ("RotaryEmbedding", [X4, ANGLES, ANGLES], TURN | {"shift": 1}, "'shift' is 1, not from 2 to 62"),
    ("RotaryEmbedding", [X4, ANGLES, ANGLES], TURN | {"multiplier": -1}, "'multiplier' is -1"),
    ("RotaryEmbedding", [X4, ANGLES, ANGLES], TURN | {"zero_point": 256}, "'zero_point' is 256"),
    *(
        ("Hadamard", [X4, BASE], {k: v for k, v in (TURN | {"block": 4}).items() if k != name}, f"'{name}' is missing")
        for name in (*TURN, "block")
    ),
    ("Hadamard", [X4, BASE], TURN | {"block": 3}, "block is no power of two times the 2 rows of base"),
    ("Hadamard", [X4, BASE], TURN | {"block": 6}, "block is no power of two times the 2 rows of base"),
    ("Hadamard", [X4, BASE], TURN | {"block": 0}, "'block' is 0"),
    ("Hadamard", [X4, BASE], TURN | {"block": 8}, "the last axis of x must have a multiple of 8 elements"),
    ("Hadamard", [np.asarray(X[0, 0]), BASE], TURN | {"block": 2}, "the last axis of x must have a multiple of 2"),
    ("Hadamard", [X4, BASE[:1]], TURN | {"block": 4}, "base must be square, of 1 to 4096 rows"),
    ("Hadamard", [X4, BASE[0]], TURN | {"block": 4}, "base must be square"),
    ("Hadamard", [X4, BASE[:0, :0]], TURN | {"block": 4}, "base must be square"),
    ("Hadamard", [X4, np.ones((4097, 4097), S8)], TURN | {"block": 4097}, "base must be square"),
    ("Hadamard", [X4, TWICE], TURN | {"block": 4}, "base has 2, which is neither 1 nor -1"),
    ("Hadamard", [X4, BASE - BASE], TURN | {"block": 4}, "base has 0, which is neither 1 nor -1"),
    ("Hadamard", [WIDE, BASE], TURN | {"block": 2**16}, "its int32 accumulator may overflow"),
    ("Hadamard", [X4, BASE], TURN | {"block": 2**24}, "its int32 accumulator may overflow"),
    ("Hadamard", [X4, BASE], TURN | {"block": 4, "zero_point": 256}, "'zero_point' is 256"),
    ("Hadamard", [X4, BASE], TURN | {"block": 4, "shift": 63}, "'shift' is 63, not from 2 to 62"),
    *(
        ("Attention", QKV, {k: v for k, v in ATTENTION.items() if k != name}, f"'{name}' is missing")
        for name in ATTENTION
    ),
    ("Attention", [FOUR[0], KEYS, KEYS], ATTENTION, "q must have 4 axes, it has 3"),
    *(("FlatAttention", FLAT_QKV, {k: v for k, v in FLAT.items() if k != n}, f"'{n}' is missing") for n in FLAT),
    ("FlatAttention", FLAT_QKV, FLAT | {"heads": 0}, "'heads' is 0"),
    ("FlatAttention", FLAT_QKV, FLAT | {"groups": 2**31}, "'groups' is 2147483648"),
    ("FlatAttention", FLAT_QKV, FLAT | {"heads": 3}, "q has 20 columns, which do not divide into 3 heads"),
    ("FlatAttention", FLAT_QKV, FLAT | {"groups": 3}, "k has 10 columns, which do not divide into 3 heads"),
    ("FlatAttention", FLAT_QKV, FLAT | {"heads": 5}, "q has 4 elements a head, k has 5"),
    ("FlatAttention", QKV, FLAT, "q must have 3 axes, it has 4"),
    ("FlatAttention", [*FLAT_QKV[:2], FLAT_QKV[2][0]], FLAT, "v must have 3 axes, it has 2"),
    ("FlatMaskedAttention", [*FLAT_QKV, np.ones(6, bool)], FLAT, "mask does not broadcast to the scores"),
    ("Attention", [FOUR, KEYS[None], KEYS], ATTENTION, "k must have 4 axes, it has 5"),
    ("Attention", [FOUR, KEYS, KEYS[0, 0, 0]], ATTENTION, "v must have 4 axes, it has 1"),
    ("Attention", [FOUR[:1], KEYS, KEYS], ATTENTION, "q, k and v differ in their batch"),
    ("Attention", [FOUR, KEYS, KEYS[:1]], ATTENTION, "q, k and v differ in their batch"),
    ("Attention", [FOUR, KEYS, KEYS[:, 1:]], ATTENTION, "k has 7 keys, v has 6"),
    ("Attention", [FOUR, KEYS, KEYS[:, :, 1:]], ATTENTION, "k has 2 heads, v has 1"),
    ("Attention", [FOUR[..., 1:], KEYS, KEYS], ATTENTION, "q has 4 elements a head, k has 5"),
    ("Attention", [FOUR[:, :, 1:], KEYS, KEYS], ATTENTION, "3 heads of q do not divide into 2 of k"),
    ("Attention", [FOUR, KEYS[:, :, :0], KEYS[:, :, :0]], ATTENTION, "4 heads of q do not divide into 0 of k"),
    ("Attention", [FOUR, KEYS[:, :0], KEYS[:, :0]], ATTENTION, "k must have 1 to 65536 keys"),
    ("Attention", [FOUR[..., :1], MANY_KEYS, MANY_KEYS], ATTENTION, "k must have 1 to 65536 keys"),
    ("Attention", [DEEP, DEEP_KEYS, DEEP_KEYS], ATTENTION, "its int32 scores may overflow"),
    (
        "Attention",
        [FOUR[..., :1], MANY_KEYS[:, 1:], MANY_KEYS[:, 1:]],
        ATTENTION | {"v_zero_point": 1},
        "its int32 sums over the keys may overflow",
    ),
    ("Attention", QKV, ATTENTION | {"q_zero_point": -1}, "'q_zero_point' is -1, not from 0 to 255"),
    ("Attention", QKV, ATTENTION | {"k_zero_point": 128}, "'k_zero_point' is 128, not from -128 to 127"),
    ("Attention", QKV, ATTENTION | {"v_zero_point": -129}, "'v_zero_point' is -129, not from -128 to 127"),
    ("Attention", QKV, ATTENTION | {"score_multiplier": -1}, "'score_multiplier' is -1"),
    ("Attention", QKV, ATTENTION | {"score_shift": 63}, "'score_shift' is 63, not from 2 to 62"),
    ("Attention", QKV, ATTENTION | {"multiplier": 2**31}, "'multiplier' is 2147483648"),
    ("Attention", QKV, ATTENTION | {"shift": 39}, "'shift' is 39, not from 2 to 38"),
    ("Attention", QKV, ATTENTION | {"zero_point": 256}, "'zero_point' is 256, not from 0 to 255"),
    ("MaskedAttention", [*QKV, np.ones(6, bool)], ATTENTION, "mask does not broadcast to the scores"),
    ("MaskedAttention", [*QKV, np.ones((3, 1, 1, 7), bool)], ATTENTION, "mask does not broadcast to the scores"),
    ("MaskedAttention", [*QKV, np.ones((1, 2, 4, 3, 7), bool)], ATTENTION, "mask has 5 axes, more than 4"),
    ("Softmax", [np.zeros((), U8)], POWERS, "x must have at least one axis"),
    ("Softmax", [np.zeros((1, 65537), U8)], POWERS, "x has 65537 elements along the last axis, more than 65536"),
    ("Softmax", [X], POWERS | {"shift": 23}, "'shift' is 23, not from 2 to 22"),
    ("Softmax", [X], POWERS | {"score_shift": 1}, "'score_shift' is 1, not from 2 to 62"),
    ("Softmax", [X], {k: v for k, v in POWERS.items() if k != "multiplier"}, "'multiplier' is missing"),
    ("MatMul", [X[0], MATRIX, ONE, TWO], MATMUL, "x and w must have at least 2 axes"),
    ("MatMul", [X, MATRIX[0], ONE, TWO], MATMUL, "x and w must have at least 2 axes"),
    ("MatMul", [X, MATRIX[1:], ONE, TWO], MATMUL, "x has 3 elements along k, w has 2"),
    ("MatMul", [np.zeros((2, 2, 3), U8), np.zeros((3, 3, 4), S8), ONE, TWO], MATMUL, "of x and w do not broadcast"),
    ("MatMul", [X, MATRIX, S32([1, 1]), S32([2, 2])], MATMUL, "not one for each of 4 columns"),
    ("MatMul", [X, MATRIX, S32([1, 1]), TWO], MATMUL, "b has 2 and c 1 elements"),
    ("MatMul", [X, MATRIX, S32([[1]]), TWO], MATMUL, "not one or one for each column"),
    ("MatMul", [X, MATRIX, ONE, S32([63])], MATMUL, "a shift c is not from 2 to 62"),
    ("MatMul", [X, MATRIX, ONE, TWO], MATMUL | {"w_zero_point": 128}, "'w_zero_point' is 128"),
    (
        "MatMul",
        [DEEP[0, 0].repeat(2, 1), DEEP_KEYS[0, 0].repeat(2, 1).T, ONE, TWO],
        MATMUL | {"w_zero_point": 127},
        "overflow",
    ),
]


def outputs_of(op: str) -> list[Any]:
    """Element types of a case."""
    return [U8, S32] if op.endswith("RowQuantize") else [S32 if op == "Lerp" else U8]


def _message(model: onnx.ModelProto, feeds: dict[str, Any]) -> str:
    """What ONNX Runtime says instead of running it."""
    with pytest.raises(Exception, match="ONNXRuntimeError") as caught:
        run(model, feeds)
    return str(caught.value)


@pytest.mark.parametrize(("op", "inputs", "attributes", "said"), CASES)
def test_malformed(op: str, inputs: list[Any], attributes: dict[str, Any], said: str) -> None:
    message = _message(one_node(op, inputs, attributes, outputs_of(op)), {"i0": inputs[0]})
    assert f"{NAME}: " in message
    assert said in message


@pytest.mark.parametrize("index", [1, 2])
def test_numbers_computed_at_run_time_are_checked_too(index: int) -> None:
    inputs = [X, ONE, TWO]
    inputs[index] = S32([-1])
    model = one_node("Requantize", inputs, REQUANTIZE, [U8], fed=(0, 1, 2))
    assert f"{NAME}: a " in _message(model, {f"i{k}": v for k, v in enumerate(inputs)})


@pytest.mark.parametrize(
    ("op", "inputs", "attributes"),
    [
        ("Affine", [X, ONE, ONE, ONE, TWO], REQUANTIZE),
        ("LayerNorm", [X, N3, N3], NORM),
        ("RmsNorm", [X, N3, N3], NORM),
        ("RmsNormRowQuantize", [X, N3, N3], NORM_ROWS),
    ],
)
def test_weights_must_be_constant(op: str, inputs: list[Any], attributes: dict[str, Any]) -> None:
    model = one_node(op, inputs, attributes, outputs_of(op), fed=(0, 1))
    assert f"{NAME}: w must be a constant" in _message(model, {"i0": inputs[0], "i1": inputs[1]})


def test_base_must_be_constant() -> None:
    model = one_node("Hadamard", [X4, BASE], TURN | {"block": 4}, [U8], fed=(0, 1))
    assert f"{NAME}: base must be a constant" in _message(model, {"i0": X4, "i1": BASE})


@pytest.mark.parametrize(
    ("op", "inputs", "attributes"),
    [
        ("Add", [X, X.astype(np.float32)], ADD),
        ("Table", [X.astype(S32), TABLE], {}),
        ("Requantize", [X, ONE.astype(np.int64), TWO], REQUANTIZE),
        ("RotaryEmbedding", [X4, ANGLES, ANGLES.astype(S8)], TURN),
        ("Hadamard", [X4, BASE.astype(S16)], TURN | {"block": 4}),
        ("ReduceMean", [X, AXIS.astype(S32)], MEAN),
        ("MaxPoolNhwc", [IMAGE.astype(S16)], POOL),
        ("SlicePad", [X.astype(S16)], BOX),
        ("LayerNorm", [X.astype(S32), N3, N3], NORM),
        ("RmsNorm", [X, N3.astype(np.int64), N3], NORM),
        ("Attention", [FOUR, KEYS.astype(U8), KEYS], ATTENTION),
        ("MaskedAttention", [*QKV, np.ones(7, U8)], ATTENTION),
        ("MaskedAttention", QKV, ATTENTION),
        ("Softmax", [X.astype(np.int64)], POWERS),
        ("MatMul", [X, MATRIX.astype(U8), ONE, TWO], MATMUL),
    ],
)
def test_types_without_a_kernel_name_the_node(op: str, inputs: list[Any], attributes: dict[str, Any]) -> None:
    assert NAME in _message(one_node(op, inputs, attributes, [U8]), {"i0": inputs[0]})


def _changed(change: Callable[[onnx.ModelProto], None]) -> onnx.ModelProto:
    model = one_node("Requantize", [X, ONE, TWO], REQUANTIZE, [U8])
    change(model)
    return model


def test_too_few_and_too_many_inputs() -> None:
    for change in (lambda m: m.graph.node[0].input.pop(), lambda m: m.graph.node[0].input.append("i1")):
        assert NAME in _message(_changed(change), {"i0": X})


def test_a_missing_input() -> None:
    for index in range(3):
        message = _message(_changed(lambda m, k=index: m.graph.node[0].input.__setitem__(k, "")), {"i0": X})
        assert "Requantize" in message or NAME in message


def test_an_output_declared_as_another_type() -> None:
    model = one_node("Requantize", [X, ONE, TWO], REQUANTIZE, [S16])
    assert NAME in _message(model, {"i0": X})


@pytest.mark.parametrize("length", [600, 5000])
def test_long_names(length: int) -> None:
    model = _changed(lambda m: setattr(m.graph.node[0], "name", "n" * length))
    model.graph.initializer[1].CopyFrom(onnx.numpy_helper.from_array(S32([1]), "i2"))
    told = "n" * length if length < 700 else "Requantize"
    assert f": {told}: a shift c is not" in _message(model, {"i0": X})


def test_a_node_without_a_name_is_told_by_its_operator() -> None:
    model = _changed(lambda m: m.graph.node[0].ClearField("name"))
    model.graph.initializer[1].CopyFrom(onnx.numpy_helper.from_array(S32([1]), "i2"))
    assert "Requantize: a shift c is not" in _message(model, {"i0": X})


@pytest.mark.parametrize("name", ["avx9", "PORTABLE", "avx2,portable"])
def test_an_unknown_instruction_set(name: str) -> None:
    code = (
        "from test_kernel_errors import ONE, REQUANTIZE, TWO, U8, X, _message, one_node\n"
        "print(_message(one_node('Requantize', [X, ONE, TWO], REQUANTIZE, [U8]), {'i0': X}))\n"
        "from mulshift import kernels\n"
        "try: kernels.instruction_set()\n"
        "except ValueError as e: print(e)\n"
    )
    here = os.path.dirname(__file__)
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "MULSHIFT_ISA": name}, cwd=here, capture_output=True, text=True
    )
    assert f"{NAME}: MULSHIFT_ISA names no instruction set that this machine runs" in done.stdout, done.stderr
    assert "MULSHIFT_ISA must be one of" in done.stdout
