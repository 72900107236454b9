"""Run one operator's kernel through ONNX Runtime and compare it with the operator's Python reference."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from mulshift import kernels
from mulshift.backends.model_operators import operators_of
from mulshift.ir import DOMAIN, OPERATORS
from mulshift.ir.operators import VERSION

U8, S8, S16, S32 = np.uint8, np.int8, np.int16, np.int32
NAME = "the node"


def one_node(
    op: str,
    inputs: Sequence[Any],
    attributes: dict[str, Any],
    outputs: Sequence[Any],
    fed: Sequence[int] = (0,),
    dynamic: bool = False,
) -> onnx.ModelProto:
    """A model of one node without a function body: what runs it is the kernel.

    Args:
        inputs: arrays; those in `fed` become inputs of the graph, the others constants.
        outputs: element type of each output.
        dynamic: the graph's inputs are of any size.
    """
    helper = onnx.helper
    names = [f"i{k}" for k in range(len(inputs))]
    made = [f"o{k}" for k in range(len(outputs))]
    node = helper.make_node(op, names, made, name=NAME, domain=DOMAIN, **attributes)
    arrays = [np.asarray(x) for x in inputs]
    shapes = [[None] * x.ndim if dynamic else x.shape for x in arrays]
    values = [
        helper.make_tensor_value_info(names[k], helper.np_dtype_to_tensor_dtype(arrays[k].dtype), shapes[k])
        for k in fed
    ]
    constants = [onnx.numpy_helper.from_array(x, names[k]) for k, x in enumerate(arrays) if k not in fed]
    results = [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(np.dtype(t)), None)
        for n, t in zip(made, outputs, strict=True)
    ]
    graph = helper.make_graph([node], "one", values, results, constants)
    imports = [helper.make_opsetid("", 21), helper.make_opsetid(DOMAIN, VERSION)]
    return helper.make_model(graph, opset_imports=imports, ir_version=10)


def open_session(model: onnx.ModelProto, threads: int = 1, library: str = "") -> ort.InferenceSession:
    """With the kernel library; another than the installed one works on memory of malloc, which a sanitizer watches."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    options.enable_cpu_mem_arena = not library
    data = model.SerializeToString()
    operators = operators_of(data, DOMAIN)
    if library:
        _register(options, operators, library)
    else:
        kernels.register(options, operators)
    return ort.InferenceSession(data, options, ["CPUExecutionProvider"])


def _register(options: ort.SessionOptions, operators: Iterable[str], library: str) -> None:
    """As `kernels.register`, of another library."""
    names = ctypes.c_char_p(f",{','.join(operators)},".encode())
    opened = ctypes.CDLL(library)
    opened.mulshift_register_only(names)
    options.register_custom_ops_library(library)
    opened.mulshift_register_only(None)


def run(model: onnx.ModelProto, feeds: dict[str, Any], threads: int = 1) -> list[np.ndarray]:
    """All outputs, with the kernel library."""
    return run_session(open_session(model, threads), feeds)


def run_session(session: ort.InferenceSession, feeds: dict[str, Any]) -> list[np.ndarray]:
    """All outputs; the shapes that the kernels told ONNX Runtime before must be theirs."""
    results: list[np.ndarray] = session.run(None, feeds)
    for value, y in zip(session.get_outputs(), results, strict=True):
        sizes = value.shape or y.shape  # [] where it said nothing
        assert len(sizes) == y.ndim
        assert all(isinstance(s, str) or s == n for s, n in zip(sizes, y.shape, strict=True))
    return results


def check(
    op: str, inputs: Sequence[Any], attributes: dict[str, Any], fed: Sequence[int] = (0,), threads: int = 1
) -> np.ndarray:
    """The reference's result, after comparing the kernel's with it."""
    arrays = [np.asarray(x) for x in inputs]
    expected = np.asarray(OPERATORS[op].reference(attributes, *arrays))
    model = one_node(op, arrays, attributes, [expected.dtype], fed)
    (got,) = run(model, {f"i{k}": arrays[k] for k in fed}, threads)
    assert got.dtype == expected.dtype
    assert got.shape == expected.shape
    assert np.array_equal(got, expected)
    return expected


def output(dtype: Any, low: int, high: int, zero_point: int) -> dict[str, int]:
    """Attributes of a requantized output."""
    code = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    return {"zero_point": zero_point, "qmin": low, "qmax": high, "dtype": code}


def integers(rng: np.random.Generator, dtype: Any, shape: Sequence[int]) -> np.ndarray:
    """Random over the whole type, ends included often; s32 without -2^31, for |x - zx| < 2^31."""
    info = np.iinfo(dtype)
    low = int(info.min) + (dtype == S32)
    x = rng.integers(low, int(info.max) + 1, tuple(shape), np.int64)
    return np.where(rng.random(tuple(shape)) < 0.1, rng.choice([low, info.max], tuple(shape)), x).astype(dtype)
