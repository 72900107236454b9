"""Each row of the torch table against ONNX Runtime on a model of one node, over its attributes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch

from mulshift.ir import Interpreter
from mulshift.ir.tensors import as_array
from mulshift.ir.torch_ops import TORCH_OPS

OPSET = 23
Case = tuple[str, list[Any], dict[str, Any], int]
"""Operator, inputs (None where absent), attributes, number of outputs."""


def _rng(*key: int) -> np.random.Generator:
    return np.random.default_rng([7, *key])


def _f(*shape: int, seed: int = 0) -> np.ndarray:
    return _rng(seed, *shape).normal(size=shape).astype(np.float32)


def _i(low: int, high: int, *shape: int, dtype: Any = np.int64) -> np.ndarray:
    return _rng(*shape).integers(low, high, shape).astype(dtype)


def _ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


_CARRIERS = {"int4": np.int8, "uint4": np.uint8, "bfloat16": np.float32, "float8e4m3fn": np.float32}


def _model(op: str, inputs: list[Any], attributes: dict[str, Any], outputs: int) -> onnx.ModelProto:
    """One node; its inputs are graph inputs, or initializers where numpy lacks their type."""
    names = ["" if x is None else f"x{k}" for k, x in enumerate(inputs)]
    given = {n: np.asarray(x) for n, x in zip(names, inputs, strict=True) if n}
    node = onnx.helper.make_node(op, names, [f"y{k}" for k in range(outputs)], name=op, **attributes)
    graph = onnx.helper.make_graph(
        [node],
        "one",
        [
            onnx.helper.make_tensor_value_info(n, onnx.helper.np_dtype_to_tensor_dtype(x.dtype), list(x.shape))
            for n, x in given.items()
            if x.dtype.name not in _CARRIERS
        ],
        [onnx.ValueInfoProto(name=f"y{k}") for k in range(outputs)],
        [onnx.numpy_helper.from_array(x, n) for n, x in given.items() if x.dtype.name in _CARRIERS],
    )
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", OPSET)], ir_version=11)


def _onnxruntime(model: onnx.ModelProto, feeds: dict[str, Any]) -> list[Any]:
    """Outputs of ONNX Runtime; a type that numpy lacks comes in the one that carries it."""
    cast = onnx.ModelProto()
    cast.CopyFrom(model)
    for k, output in enumerate(_session(model).get_outputs()):
        carrier = _CARRIERS.get(output.type[7:-1])
        if carrier is not None:
            code = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(carrier))
            cast.graph.node.append(onnx.helper.make_node("Cast", [f"y{k}"], [f"cast{k}"], to=code))
            cast.graph.output[k].name = f"cast{k}"
    return _session(cast).run(None, feeds)  # type: ignore[no-any-return]


def _session(model: onnx.ModelProto) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    options.add_session_config_entry("session.x64quantprecision", "1")
    return ort.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])


def _grid(**axes: list[Any]) -> Iterator[dict[str, Any]]:
    """Every combination; attributes that are None are left out."""
    for values in itertools.product(*axes.values()):
        yield {k: v for k, v in zip(axes, values, strict=True) if v is not None}


def _convolutions() -> Iterator[Case]:
    x, grouped = _f(2, 4, 9, 8), _f(6, 2, 3, 3)
    for a in _grid(strides=[None, [2, 1]], pads=[None, [1, 1, 1, 1], [0, 1, 2, 3]], dilations=[None, [2, 1]]):
        yield "Conv", [x, _f(5, 4, 3, 2), _f(5)], a, 1
        yield "Conv", [x, grouped], {**a, "group": 2}, 1
        yield "ConvTranspose", [x, _f(4, 3, 3, 2), _f(3)], a, 1
    for auto in ("SAME_UPPER", "SAME_LOWER", "VALID"):
        yield "Conv", [x, _f(5, 4, 3, 2)], {"auto_pad": auto, "strides": [2, 2]}, 1
    yield "Conv", [_f(1, 3, 11), _f(3, 1, 4)], {"group": 3, "pads": [2, 1]}, 1
    yield "Conv", [_f(1, 2, 5, 6, 4), _f(3, 2, 3, 2, 3)], {"pads": [1, 0, 1, 1, 1, 1]}, 1
    yield "ConvTranspose", [_f(1, 4, 7), _f(4, 2, 3)], {"group": 2, "strides": [2], "pads": [1, 0]}, 1
    up = {"strides": [3, 3], "output_padding": [2, 1], "pads": [1, 2, 2, 1]}
    yield "ConvTranspose", [x, _f(4, 3, 3, 2)], up, 1
    u8, s8 = _i(0, 256, 1, 3, 7, 7, dtype=np.uint8), _i(-128, 128, 4, 3, 3, 3, dtype=np.int8)
    w = (s8.astype(np.int32) + 128).astype(np.uint8)
    yield "ConvInteger", [u8, w, np.uint8(100), np.uint8(128)], {"pads": [1, 1, 1, 1]}, 1
    yield "ConvInteger", [u8, w, np.uint8(3), np.uint8(9)], {"strides": [2, 2], "pads": [0, 1, 1, 0]}, 1
    yield "ConvInteger", [u8, w], {}, 1


def _products() -> Iterator[Case]:
    a, b = _f(3, 4), _f(4, 5)
    for t in _grid(alpha=[None, 0.5], beta=[None, 2.0], transA=[None, 1], transB=[None, 1]):
        x, y = (a.T.copy() if t.get("transA") else a), (b.T.copy() if t.get("transB") else b)
        yield "Gemm", [x, y, _f(5)], t, 1
        yield "Gemm", [x, y, _f(3, 1)], t, 1
        yield "Gemm", [x, y], t, 1
    for s, t2 in [((4,), (4,)), ((3, 4), (4,)), ((4,), (4, 5)), ((2, 1, 3, 4), (5, 4, 2))]:
        yield "MatMul", [_f(*s), _f(*t2)], {}, 1
    yield "Einsum", [_f(2, 3, 4), _f(2, 4, 5)], {"equation": "bij, bjk -> bik"}, 1
    yield "Einsum", [_f(2, 3, 3)], {"equation": "...ii->...i"}, 1
    u8, w = _i(0, 256, 2, 3, 8, dtype=np.uint8), _i(0, 256, 8, 5, dtype=np.uint8)
    yield "MatMulInteger", [u8, w], {}, 1
    yield "MatMulInteger", [u8, w, np.uint8(7), _i(0, 256, 5, dtype=np.uint8)], {}, 1


def _unary() -> Iterator[Case]:
    x = np.concatenate([_f(40) * 3, np.array([0, 0.5, 1.5, -0.5, -2.5, 7, -7], np.float32)])
    unit, above = np.tanh(x) * np.float32(0.99), np.abs(x) + np.float32(1.01)
    domain = {"Acos": unit, "Asin": unit, "Atanh": unit, "Acosh": above, "Log": above, "Sqrt": above}
    plain = (
        "Abs Acos Acosh Asin Asinh Atan Atanh Celu Ceil Cos Cosh Dropout Elu Erf Exp Floor Gelu HardSigmoid HardSwish "
        "Identity LeakyRelu Log Mish Neg Reciprocal Relu Round Selu Shrink Sigmoid Sign Sin Sinh Softplus Softsign "
        "Sqrt Tan Tanh ThresholdedRelu"
    )
    for op in plain.split():
        data = above if op == "Reciprocal" else domain.get(op, x)
        yield op, [data], {}, 1
    yield "Celu", [x], {"alpha": 0.3}, 1
    yield "Elu", [x], {"alpha": 0.3}, 1
    yield "Gelu", [x], {"approximate": "tanh"}, 1
    yield "HardSigmoid", [x], {"alpha": 0.3, "beta": 0.4}, 1
    yield "LeakyRelu", [x], {"alpha": 0.3}, 1
    yield "Selu", [x], {"alpha": 1.3, "gamma": 0.7}, 1
    yield "Shrink", [x], {"bias": 0.3, "lambd": 0.9}, 1
    yield "ThresholdedRelu", [x], {"alpha": 0.4}, 1
    odd = np.array([np.nan, np.inf, -np.inf, 1], np.float32)
    yield "IsNaN", [odd], {}, 1
    for a in _grid(detect_positive=[None, 0], detect_negative=[None, 0]):
        yield "IsInf", [odd], a, 1
    yield "Not", [odd > 0], {}, 1
    yield "BitwiseNot", [_i(-9, 9, 5, dtype=np.int32)], {}, 1
    for dtype in (np.int8, np.int32, np.int64):
        for op in ("Abs", "Neg", "Sign", "Identity"):
            yield op, [_i(-9, 9, 5, dtype=dtype)], {}, 1


def _binary() -> Iterator[Case]:
    x, y = _f(2, 3, 4), np.abs(_f(3, 1)) + np.float32(0.5)
    for op in "Add Sub Mul Div PRelu Equal Greater GreaterOrEqual Less LessOrEqual Max Min".split():
        yield op, [x, y], {}, 1
    yield "Pow", [np.abs(x), y], {}, 1
    yield "Pow", [x, np.float32(3)], {}, 1
    yield "Pow", [x, np.int64(2)], {}, 1
    yield "Pow", [_i(0, 5, 3), np.int64(2)], {}, 1
    for op in ("Sum", "Mean", "Max", "Min"):
        yield op, [x, y, _f(4)], {}, 1
        yield op, [x], {}, 1
    for dtype in (np.int32, np.int64, np.int8, np.uint8, np.uint32, np.uint64):
        a = _i(0 if np.dtype(dtype).kind == "u" else -90, 90, 4, 5, dtype=dtype)
        b = _i(1, 9, 5, dtype=dtype)
        for op in ("Add", "Sub", "Mul", "Div", "Mod", "Equal", "Max", "Min"):
            yield op, [a, b], {}, 1
        if np.dtype(dtype).kind == "i":
            yield "Mod", [a, -b], {"fmod": 1}, 1
            yield "Mod", [a, -b], {}, 1
            yield "Div", [a, -b], {}, 1
        for op in ("BitwiseAnd", "BitwiseOr", "BitwiseXor"):
            yield op, [a, b], {}, 1
        if dtype in (np.uint8, np.uint32, np.uint64):
            yield "BitShift", [a, b % np.array(8, dtype)], {"direction": "LEFT"}, 1
            yield "BitShift", [a, b % np.array(8, dtype)], {"direction": "RIGHT"}, 1
    yield "Mod", [x, y], {"fmod": 1}, 1
    for op in ("And", "Or", "Xor"):
        yield op, [x > 0, y > 1], {}, 1
    yield "Where", [x > 0, x, y], {}, 1
    low, high = np.float32(-0.5), np.float32(0.7)
    for bounds in ([], [low], [None, high], [low, high]):
        yield "Clip", [x, *bounds], {}, 1
    yield "Clip", [_i(-90, 90, 5, dtype=np.int8), np.int8(-5), np.int8(9)], {}, 1


def _quantizers() -> Iterator[Case]:
    x = np.concatenate([_f(3, 4, 6) * 40, np.arange(-4, 4, dtype=np.float32).reshape(1, 4, 2).repeat(3, 0) / 4], 2)
    x[0, 0, :4] = [1e9, -1e9, np.inf, -np.inf]
    s4, half = np.abs(_f(4)) + np.float32(0.1), np.float32(0.5)
    for dtype in (np.uint8, np.int8, np.uint16, np.int16, ml_dtypes.int4, ml_dtypes.uint4):
        info = ml_dtypes.iinfo(dtype)
        low, high = int(info.min) // 2, int(info.max) // 2
        zeros = _i(low, high, 4).astype(dtype)
        q = np.clip(np.rint(x), info.min, info.max).astype(np.int64).astype(dtype)
        yield "QuantizeLinear", [x, half, np.array(high, dtype)], {}, 1
        yield "QuantizeLinear", [x, s4, zeros], {"axis": 1}, 1
        yield "QuantizeLinear", [x, s4, zeros], {"axis": -2}, 1
        yield "QuantizeLinear", [x, s4], {"output_dtype": int(ir.DataType.from_numpy(np.dtype(dtype)))}, 1
        blocks = np.abs(_f(3, 4, 3)) + np.float32(0.1)
        tame = np.clip(x, -1e6, 1e6)  # ONNX Runtime's blocked 4-bit kernel wraps beyond 2^31
        yield "QuantizeLinear", [tame, blocks, np.zeros((3, 4, 3), dtype)], {"axis": 2, "block_size": 3}, 1
        yield "DequantizeLinear", [q, half, np.array(high, dtype)], {}, 1
        yield "DequantizeLinear", [q, s4, zeros], {}, 1
        yield "DequantizeLinear", [q, np.abs(_f(3, 2, 8)), np.ones((3, 2, 8), dtype)], {"axis": 1, "block_size": 2}, 1
    yield "QuantizeLinear", [x, half], {}, 1
    yield "DequantizeLinear", [_i(-(2**31), 2**31, 3, 4, dtype=np.int32), s4], {"axis": 1}, 1
    yield "DequantizeLinear", [_i(-(2**31), 2**31, 3, 4, dtype=np.int32), np.float32(3e-5)], {}, 1
    yield "QuantizeLinear", [(x[1:] / 8).astype(np.float16), np.float16(0.13), np.uint8(9)], {}, 1
    yield "DequantizeLinear", [_i(0, 256, 3, 4, dtype=np.uint8), np.float16(0.13), np.uint8(9)], {}, 1


def _pools() -> Iterator[Case]:
    x = _f(2, 3, 9, 10)
    pads: list[Any] = [None, [1, 1, 1, 1], [0, 1, 2, 0]]
    for a in _grid(strides=[None, [2, 3]], pads=pads, ceil_mode=[None, 1], dilations=[None, [1, 2]]):
        a["kernel_shape"] = [3, 3]
        yield "MaxPool", [x], a, 1
        yield "MaxPool", [_i(0, 256, 2, 3, 9, 10, dtype=np.uint8)], a, 1
        yield "MaxPool", [_i(-128, 128, 2, 3, 9, 10, dtype=np.int8)], a, 1
        yield "AveragePool", [x], a, 1
        yield "AveragePool", [x], {**a, "count_include_pad": 1}, 1
    for auto in ("SAME_UPPER", "SAME_LOWER", "VALID"):
        same = {"kernel_shape": [2, 3], "strides": [2, 2], "auto_pad": auto}
        yield "MaxPool", [x], same, 1
        yield "AveragePool", [x], same, 1
        yield "AveragePool", [x], {**same, "count_include_pad": 1}, 1
    yield "MaxPool", [x], {"kernel_shape": [2, 2]}, 2
    behind = {"kernel_shape": [2, 2], "strides": [3, 3], "pads": [0, 0, 1, 1], "ceil_mode": 1}
    for op in ("MaxPool", "AveragePool"):
        yield op, [_f(1, 1, 5, 5)], behind, 1  # a third window would start in the padding behind the data
    for shape in ((2, 3, 8), (1, 2, 5, 6, 4)):
        n = len(shape) - 2
        yield "MaxPool", [_f(*shape)], {"kernel_shape": [3] * n, "strides": [2] * n, "pads": [1] * (2 * n)}, 1
        yield "AveragePool", [_f(*shape)], {"kernel_shape": [2] * n}, 1
        yield "GlobalAveragePool", [_f(*shape)], {}, 1
        yield "GlobalMaxPool", [_f(*shape)], {}, 1


def _normalizations() -> Iterator[Case]:
    x = _f(2, 6, 4, 5)
    c = [np.abs(_f(6, seed=s)) + np.float32(0.2) for s in range(4)]
    for a in _grid(epsilon=[None, 0.1]):
        yield "BatchNormalization", [x, *c], a, 1
        yield "InstanceNormalization", [x, c[0], c[1]], a, 1
        yield "GroupNormalization", [x, c[0], c[1]], {**a, "num_groups": 3}, 1
        yield "LayerNormalization", [x, _f(5), _f(5)], a, 1
        yield "LayerNormalization", [x, _f(4, 5)], {**a, "axis": 2}, 1
        yield "LayerNormalization", [x, _f(5), _f(5)], a, 3
        yield "LayerNormalization", [x, _f(1), _f(5)], a, 1
        yield "RMSNormalization", [x, _f(5)], a, 1
    for axis in (None, 1, -2):
        a = {} if axis is None else {"axis": axis}
        yield "Softmax", [x], a, 1
        yield "LogSoftmax", [x], a, 1
        yield "LpNormalization", [x], a, 1
        yield "LpNormalization", [x], {**a, "p": 1}, 1


def _reductions() -> Iterator[Case]:
    x, whole = _f(2, 3, 4), _i(-2, 3, 2, 3, 4, dtype=np.int32)
    kinds = "L1 L2 LogSum LogSumExp Max Mean Min Prod Sum SumSquare".split()
    for kind, axes, keep in itertools.product(kinds, (None, [1], [0, -1]), (None, 0)):
        a = {} if keep is None else {"keepdims": keep}
        reach = [] if axes is None else [_ints(*axes)]
        yield f"Reduce{kind}", [np.abs(x) if kind == "LogSum" else x, *reach], a, 1
        if kind in ("Max", "Min", "Mean", "Prod", "Sum", "SumSquare"):
            yield f"Reduce{kind}", [whole, *reach], a, 1
    yield "ReduceSum", [x], {"noop_with_empty_axes": 1}, 1
    yield "ReduceSum", [x, _ints()], {"noop_with_empty_axes": 1}, 1
    yield "ReduceMax", [_i(0, 99, 3, 4, dtype=np.uint8), _ints(1)], {}, 1
    ties = np.array([[1, 3, 3, 0], [2, 2, 2, 2]], np.float32)
    for a in _grid(axis=[None, 1, -1], keepdims=[None, 0], select_last_index=[None, 1]):
        yield "ArgMax", [ties], a, 1
        yield "ArgMin", [ties], a, 1
    for a in _grid(axis=[None, 0], largest=[None, 0]):
        yield "TopK", [ties if "axis" in a else ties.repeat(2, 0), _ints(2)], a, 2
    yield "TopK", [_i(0, 9, 3, 8), _ints(5)], {}, 2
    for a in _grid(exclusive=[None, 1], reverse=[None, 1]):
        yield "CumSum", [x, np.int64(1)], a, 1
        yield "CumSum", [whole, np.int64(-1)], a, 1


def _shapes() -> Iterator[Case]:
    x, bits = _f(2, 3, 4), _i(0, 256, 2, 3, 4, dtype=np.uint8)
    for t in (x, bits, bits.astype(np.uint16), bits.astype(np.uint64)):
        yield "Reshape", [t, _ints(0, -1)], {}, 1
        yield "Transpose", [t], {"perm": [2, 0, 1]}, 1
        yield "Identity", [t], {}, 1
        yield "Concat", [t, t], {"axis": -2}, 1
        yield "Gather", [t, _ints(1, -1)], {"axis": 2}, 1
        yield "Slice", [t, _ints(1), _ints(3), _ints(2)], {}, 1
    yield "Reshape", [_f(0, 3), _ints(3, 0)], {"allowzero": 1}, 1
    yield "Transpose", [x], {}, 1
    for axis in (0, 1, 2, 3, -1):
        yield "Flatten", [x], {"axis": axis}, 1
    yield "Squeeze", [_f(1, 3, 1)], {}, 1
    yield "Squeeze", [_f(1, 3, 1), _ints(-1)], {}, 1
    yield "Unsqueeze", [x, _ints(-1, 0)], {}, 1
    yield "Unsqueeze", [x, _ints(3, 1)], {}, 1
    yield "Expand", [_f(3, 1), _ints(2, 1, 4)], {}, 1
    yield "Tile", [x, _ints(1, 2, 3)], {}, 1
    yield "Shape", [x], {}, 1
    yield "Shape", [x], {"start": -2, "end": -1}, 1
    yield "Size", [x], {}, 1
    for to in ("FLOAT16", "DOUBLE", "INT8", "INT32", "INT64", "BOOL", "FLOAT"):
        yield "Cast", [x * 9], {"to": int(ir.DataType[to])}, 1
    for to in ("UINT8", "INT8", "UINT16", "UINT32", "UINT64", "FLOAT", "BOOL"):
        yield "Cast", [_i(-300, 300, 9, dtype=np.int32)], {"to": int(ir.DataType[to])}, 1
    yield "Cast", [_i(-8, 8, 9).astype(np.int8)], {"to": int(ir.DataType.INT4)}, 1
    yield "Cast", [_f(9)], {"to": int(ir.DataType.FLOAT8E4M3FN)}, 1
    yield "Cast", [_f(9)], {"to": int(ir.DataType.BFLOAT16)}, 1
    yield "Cast", [_f(9)], {"to": int(ir.DataType.STRING)}, 1
    yield "CastLike", [x * 9, np.int8(0)], {}, 1
    yield "Constant", [], {"value": onnx.numpy_helper.from_array(_f(2, 2))}, 1
    yield "Constant", [], {"value_int": 3}, 1
    yield "Constant", [], {"value_floats": [0.5, 2.0]}, 1
    yield "Constant", [], {"value_strings": ["a"]}, 1
    yield "ConstantOfShape", [_ints(2, 3)], {}, 1
    yield "ConstantOfShape", [_ints(2)], {"value": onnx.numpy_helper.from_array(_ints(7))}, 1
    yield "Range", [np.int64(2), np.int64(11), np.int64(3)], {}, 1
    yield "Range", [np.int64(5), np.int64(-4), np.int64(-2)], {}, 1
    yield "Range", [np.float32(0.5), np.float32(2.1), np.float32(0.4)], {}, 1
    yield "DepthToSpace", [_f(1, 8, 2, 3)], {"blocksize": 2}, 1
    yield "DepthToSpace", [_f(1, 8, 2, 3)], {"blocksize": 2, "mode": "CRD"}, 1
    yield "SpaceToDepth", [_f(1, 2, 4, 6)], {"blocksize": 2}, 1
    for a in _grid(upper=[None, 0]):
        yield "Trilu", [_f(3, 4)], a, 1
        yield "Trilu", [_f(3, 4), np.int64(-1)], a, 1


def _picks() -> Iterator[Case]:
    x = _f(4, 5, 6)
    far = 2**62
    slices = [
        ([1], [3], [1], [1]),
        ([-1], [-far], [2], [-2]),
        ([3, 0], [-1, far], [0, 2], [-1, 4]),
        ([9], [2], [0], [1]),
    ]
    for s in slices:
        yield "Slice", [x, *(_ints(*part) for part in s)], {}, 1
    yield "Slice", [x, _ints(1, 2), _ints(3, 9)], {}, 1
    yield "Split", [x, _ints(1, 3)], {"axis": 0}, 2
    yield "Split", [x], {"axis": 1, "num_outputs": 3}, 3
    yield "Gather", [x, np.array([[0, -1], [2, 1]], np.int32)], {"axis": 1}, 1
    yield "Gather", [x, np.int64(-2)], {"axis": -1}, 1
    yield "GatherElements", [x, _i(-5, 5, 4, 2, 6)], {"axis": 1}, 1
    yield "GatherND", [x, np.array([[0, 1], [3, -1]], np.int64)], {}, 1
    yield "GatherND", [x, _i(0, 5, 4, 2, 1)], {"batch_dims": 1}, 1
    for mode in ("constant", "reflect", "edge", "wrap"):
        yield "Pad", [x, _ints(0, 1, 2, 0, 3, 1)], {"mode": mode}, 1
        yield "Pad", [x, _ints(2, 1), None, _ints(-1)], {"mode": mode}, 1
    yield "Pad", [x, _ints(0, -1, 2, 0, 0, -3), np.float32(1.5)], {}, 1
    yield "Pad", [_i(0, 9, 2, 3, dtype=np.uint8), _ints(1, 0, 0, 2), np.uint8(7)], {}, 1


def _resizes() -> Iterator[Case]:
    x, bits = _f(1, 2, 5, 6), _i(0, 256, 1, 2, 5, 6, dtype=np.uint8)
    up, down = np.array([1, 1, 2.0, 3.0], np.float32), np.array([1, 1, 0.6, 0.4], np.float32)
    how = ["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"]
    for a in _grid(mode=["nearest", "linear"], coordinate_transformation_mode=how):
        for scales in (up, down, up / np.float32(1.7)):
            yield "Resize", [x, None, np.where(np.arange(4) < 2, np.float32(1), scales)], a, 1
        yield "Resize", [x, None, None, _ints(1, 2, 9, 4)], a, 1
        yield "Resize", [x, None, None, _ints(1, 2, 1, 13)], a, 1
    for rounding in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil"):
        a = {"nearest_mode": rounding, "mode": "nearest"}
        for scales in (up, down):
            yield "Resize", [bits, None, scales], a, 1
            yield "Resize", [bits, None, scales], {**a, "coordinate_transformation_mode": "asymmetric"}, 1
    yield "Resize", [x, None, up], {"mode": "cubic"}, 1
    yield "Resize", [x, None, None, _ints(10, 3)], {"mode": "linear", "axes": [2, 3]}, 1
    yield "Resize", [_f(1, 2, 7), None, np.array([1, 1, 2], np.float32)], {"mode": "linear"}, 1


FAMILIES = (
    _convolutions,
    _products,
    _unary,
    _binary,
    _quantizers,
    _pools,
    _normalizations,
    _reductions,
    _shapes,
    _picks,
    _resizes,
)


def _tolerance(op: str, dtype: np.dtype[Any]) -> float:
    """Relative to the largest element: sums and transcendental functions are evaluated in another order or way."""
    if dtype.kind != "f" or op in {
        "QuantizeLinear",
        "DequantizeLinear",
        "Add",
        "Sub",
        "Mul",
        "Relu",
        "Clip",
        "MaxPool",
    }:
        return 0.0
    return 2e-3 if dtype == np.float16 else 4e-6


@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.__name__.strip("_"))
def test_family_equals_onnxruntime(family: Any) -> None:
    failures, seen = [], 0
    for op, inputs, attributes, outputs in family():
        model = _model(op, inputs, attributes, outputs)
        feeds = {i.name: np.asarray(inputs[int(i.name[1:])]) for i in model.graph.input}
        what = f"{op} {[None if x is None else (x.dtype.name, x.shape) for x in inputs]} {attributes}"
        expected = _onnxruntime(model, feeds)
        got = Interpreter(ir.from_proto(model)).run(feeds).values()
        failures += [f"{what}: {d}" for e, g in zip(expected, got, strict=True) if (d := _difference(op, e, g))]
        seen += 1
    assert seen > 0
    assert not failures, "\n".join(failures)


def _difference(op: str, expected: Any, got: Any) -> str:
    actual = got if isinstance(got, np.ndarray) else as_array(got)
    if actual.dtype != expected.dtype or actual.shape != expected.shape:
        return f"{actual.dtype}{actual.shape} for {expected.dtype}{expected.shape}"
    if expected.size == 0:
        return ""
    tolerance = _tolerance(op, expected.dtype)
    if tolerance == 0.0:
        return "" if np.array_equal(expected, actual, equal_nan=expected.dtype.kind == "f") else "numbers differ"
    error = np.abs(expected.astype(np.float64) - actual).max() / max(1.0, float(np.abs(expected).max()))
    return "" if error <= tolerance else f"off by {error:.2g}"


def test_every_row_is_exercised() -> None:
    tested = {("", op) for family in FAMILIES for op, *_ in family()}
    standard = {row for row in TORCH_OPS if row[0] == ""}  # rows of mulshift.float are the same functions
    assert standard - tested == {("", "Swish")}, "ONNX Runtime 1.31 has no Swish kernel"


def test_u8_times_s8_does_not_saturate() -> None:
    """ONNX Runtime's own kernel does on x86 without VNNI, so the reference is numpy."""
    x, w = np.full((2, 64), 255, np.uint8), np.full((64, 3), 127, np.int8)
    got = Interpreter(ir.from_proto(_model("MatMulInteger", [x, w], {}, 1))).run({"x0": x, "x1": w})["y0"]
    assert np.array_equal(got.numpy(), x.astype(np.int64) @ w)
    image, kernel = np.full((1, 8, 5, 5), 255, np.uint8), np.full((2, 8, 3, 3), -128, np.int8)
    conv = ir.from_proto(_model("ConvInteger", [image, kernel], {}, 1))
    assert (Interpreter(conv).run({"x0": image, "x1": kernel})["y0"] == 255 * -128 * 72).all()


def test_rows_are_differentiable() -> None:
    """Every float output that torch makes of float inputs leads back to them."""
    stuck = set()
    for op, inputs, attributes, outputs in itertools.chain(*(f() for f in FAMILIES if f is not _shapes)):
        x = np.asarray(inputs[0]) if inputs and inputs[0] is not None else np.zeros(1, np.int8)
        if x.dtype != np.float32 or op in {"QuantizeLinear", "DequantizeLinear"} | _NOT_DIFFERENTIABLE:
            continue
        values = [None if v is None else torch.from_numpy(np.array(v)) for v in inputs]
        values[0] = torch.from_numpy(x.copy()).requires_grad_()
        made = TORCH_OPS[("", op)](ir.from_proto(_model(op, inputs, attributes, outputs)).graph[0], values)
        if made is NotImplemented:
            continue
        (made[0] if isinstance(made, tuple) else made).sum().backward()
        stuck |= {op} if values[0].grad is None else set()
    assert not stuck


_NOT_DIFFERENTIABLE = set(
    "ArgMax ArgMin Equal Greater GreaterOrEqual IsInf IsNaN Less LessOrEqual Mod And Or Xor Not Where".split()
)
