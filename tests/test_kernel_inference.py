"""Models load with the kernel library whatever the graph says of the values between its nodes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import mulshift
from mulshift.ir import ModelError

TYPES = {
    "p": onnx.TensorProto.UINT8,
    "q": onnx.TensorProto.UINT8,
    "s": onnx.TensorProto.UINT8,
    "t": onnx.TensorProto.INT16,
    "r": 2,
    "n": 2,
    "l": 6,
} | {"h": 2, "v": 2}
X = np.arange(200, dtype=np.uint8).reshape(1, 5, 5, 8)


def _chain(shape: str, known: dict[str, int]) -> bytes:
    """Ten operators; `known` values are given an element type, none a shape."""
    u8 = "zero_point = 0, qmin = 0, qmax = 255, dtype = 2"
    table = ", ".join(str(i) for i in range(256))
    model = onnx.parser.parse_model(f"""<ir_version: 10, opset_import: ["" : 21, "mulshift" : 1]>
g (uint8{shape} x) => (int8 y) <int32[1] b = {{1}}, int32[1] c = {{2}}, int64[1] axes = {{1}}, int64[2] i = {{0, 1}},
                                int8[1,1] base = {{1}}, int16[4] cos = {{1, 2, 3, 4}},
                                int32[8] g = {{1, 1, 1, 1, 1, 1, 1, 1}},
                                int32[2] w = {{1, 1}}, int16[256] table = {{{table}}}> {{
  p = mulshift.MaxPoolNhwc <kernel_shape = [2, 2]> (x)
  q = mulshift.SlicePad <starts = [0, 0, 1, 0], ends = [9, 9, 9, 2147483647], steps = [1, 1, 1, 1],
                         before = [0, 0, 0, 0], after = [0, 0, 1, 0], value = 3> (p)
  s = mulshift.Add <x_zero_point = 0, y_zero_point = 0, x_multiplier = 1, y_multiplier = 1, shift = 2, {u8}> (q, q)
  t = mulshift.Table (s, table)
  r = mulshift.ReduceMean <x_zero_point = 0, keepdims = 0, multiplier = 1, shift = 2, {u8}> (t, axes)
  n = mulshift.LayerNorm <x_zero_point = 0, epsilon = 1, fraction = 8, shift = 8, {u8}> (r, g, g)
  h = mulshift.Hadamard <x_zero_point = 0, block = 8, multiplier = 1, shift = 2, {u8}> (n, base)
  v = mulshift.RotaryEmbedding <x_zero_point = 0, multiplier = 1, shift = 2, {u8}> (h, cos, cos)
  l = mulshift.Lerp <x_zero_point = 0, axis = -1> (v, i, i, w, w)
  y = mulshift.Requantize <x_zero_point = 0, zero_point = 0, qmin = -128, qmax = 127, dtype = 3> (l, b, c)
}}""")
    for name, code in known.items():
        model.graph.value_info.append(onnx.helper.make_tensor_value_info(name, code, None))
    model.graph.output[0].type.tensor_type.ClearField("shape")
    if not shape:
        model.graph.input[0].type.tensor_type.ClearField("shape")
    return bytes(model.SerializeToString())


@pytest.mark.parametrize("shape", ["[1, 5, 5, 8]", "[N, H, W, 8]", "[N, 5, 5, C]"])
@pytest.mark.parametrize("known", [{}, TYPES])
def test_shapes_follow_from_the_input(shape: str, known: dict[str, int]) -> None:
    y = mulshift.session(_chain(shape, known)).run(None, {"x": X})[0]
    assert y.dtype == np.int8
    assert y.shape == (1, 4, 2)


def test_types_are_enough_where_no_shape_is_known() -> None:
    assert mulshift.session(_chain("", TYPES)).run(None, {"x": X})[0].shape == (1, 4, 2)


def test_without_both_the_model_is_refused() -> None:
    with pytest.raises(ModelError, match="type inference failed"):
        mulshift.session(_chain("", {}))
