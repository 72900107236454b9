"""Run one integer operator's ONNX body every way there is and compare it with its Python reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from hypothesis import settings
from hypothesis import strategies as st
from onnx_ir.passes.common import InlinePass

from mulshift.ir import DOMAIN, OPERATORS, attach
from mulshift.ir.operators import VERSION
from mulshift.ir.operators.norm import largest_normalized
from mulshift.ir.operators.rotary import MAX_ANGLE

OPSETS = (18, 21, 23)
U8, S8, S16, S32 = np.uint8, np.int8, np.int16, np.int32
FEW = settings(max_examples=12, deadline=None)

zero_points = st.integers(0, 255)
seeds = st.integers(0, 2**16)
outputs = st.sampled_from([(U8, 0, 255), (U8, 0, 17), (S8, -128, 127), (S8, -127, 127), (S16, -32768, 32767)])


def one_node(op: str, inputs: list[Any], attributes: dict[str, Any], opset: int) -> ir.Model:
    """A model of one node; the first input is fed, the others are constants."""
    helper = onnx.helper
    names = [f"i{k}" for k in range(len(inputs))]
    made = ["o"] if OPERATORS[op].second is None else ["o", "p"]
    node = helper.make_node(op, names, made, domain=DOMAIN, **attributes)
    fed = helper.make_tensor_value_info("i0", helper.np_dtype_to_tensor_dtype(inputs[0].dtype), inputs[0].shape)
    constants = [onnx.numpy_helper.from_array(x, n) for n, x in zip(names[1:], inputs[1:], strict=True)]
    graph = helper.make_graph([node], "one", [fed], [onnx.ValueInfoProto(name=n) for n in made], constants)
    imports = [helper.make_opsetid("", opset), helper.make_opsetid(DOMAIN, VERSION)]
    model = ir.from_proto(helper.make_model(graph, opset_imports=imports, ir_version=10))
    attach(model)
    return model


def _run(model: ir.Model, x: np.ndarray, level: ort.GraphOptimizationLevel) -> list[np.ndarray]:
    options = ort.SessionOptions()
    options.graph_optimization_level = level
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), options, ["CPUExecutionProvider"])
    return session.run(None, {"i0": x})  # type: ignore[no-any-return]


def check(op: str, inputs: list[Any], attributes: dict[str, Any], opset: int = 21) -> np.ndarray:
    """The reference's first output, after comparing every way to run the body with all of them."""
    inputs = [np.asarray(x) for x in inputs]
    expected = OPERATORS[op].run(attributes, *inputs)
    inlined = InlinePass()(one_node(op, inputs, attributes, opset)).model
    assert {n.domain for n in inlined.graph} == {""}
    plain, optimized = ort.GraphOptimizationLevel.ORT_DISABLE_ALL, ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    whole = one_node(op, inputs, attributes, opset)
    for model, level in ((whole, plain), (whole, optimized), (inlined, optimized)):
        for got, wanted in zip(_run(model, inputs[0], level), expected, strict=True):
            assert got.dtype == wanted.dtype
            assert np.array_equal(got, wanted), level
    return expected[0]


def output(kind: tuple[Any, int, int], z: int) -> dict[str, int]:
    """Attributes of a requantized output."""
    dtype, low, high = kind
    code = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    return {"zero_point": min(max(z, low), high), "qmin": low, "qmax": high, "dtype": code}


def integers(rng: np.random.Generator, dtype: Any, *shape: int) -> np.ndarray:
    """Random over the whole type, ends included often."""
    info = np.iinfo(dtype)
    x = rng.integers(int(info.min), int(info.max) + 1, shape, np.int64)
    ends = rng.random(shape) < 0.1
    return np.where(ends, rng.choice([info.min, info.max], shape), x).astype(dtype)


def dyadics(rng: np.random.Generator, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Any b below 2^31 and c in [2, 62], lengths of b evenly spread."""
    b = rng.integers(1, 2**31, shape) >> rng.integers(0, 31, shape)
    return b.astype(S32), rng.integers(2, 63, shape).astype(S32)


def norm_rows(rng: np.random.Generator, dtype: Any, n: int) -> np.ndarray:
    """[5, n]: any elements, one throughout, all the least, one apart by one step, two values."""
    x = integers(rng, dtype, 5, n)
    x[1] = x[1, 0]
    x[2] = np.iinfo(dtype).min
    x[3] = max(int(x[3, 0]) - 1, int(np.iinfo(dtype).min))
    x[3, n // 2] += 1
    x[4] = np.where(rng.random(n) < 0.5, x[4, 0], x[4, -1])
    return x


def norm_weights(rng: np.random.Generator, n: int, fraction: int, shift: int) -> tuple[np.ndarray, np.ndarray]:
    """w and bias, [n], as large as an int32 accumulator allows, or smaller."""
    room = 2**31 - 1 - 2 ** (shift - 1)
    bias = rng.integers(-room // 2, room // 2, n)
    most = (room - np.abs(bias)) // largest_normalized(n, fraction)
    return (most * rng.choice([-1, -0.3, 0.01, 1], n)).astype(S32), bias.astype(S32)


def rotary_angles(rng: np.random.Generator, dtype: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Cosines or sines for an x of that type, as large as it allows now and then."""
    angles = integers(rng, S16, *shape)
    return angles if dtype != S16 else np.clip(angles, -MAX_ANGLE, MAX_ANGLE)
