"""Models of one node, ours beside ONNX Runtime's own, checked before they are timed.

python benchmarks/node_models.py FOLDER writes NAME.onnx and NAME-x.npy (ours), where weights matter NAME-reduced.onnx
and its input, NAME-ort.onnx and its input, and prints a JSON object: name -> what is wrong, empty if all is well. Our
node has no function body here, so what runs is the kernel; it must equal the Python reference of the operator table.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from mulshift.ir import OPERATORS, MulshiftError, QParams, QuantSpec
from mulshift.ir.operators.packing import K4N16, TAPS, pack_gemm, pack_taps
from mulshift.passes.scales import reduce_range

OPSET, DOMAIN = 21, "mulshift"
GEMMS = {"gemm-1024x1024x1024": (1024, 1024, 1024), "gemm-197x768x3072": (197, 768, 3072)}
"""M, K, N."""
DEPTHWISE = {
    f"depthwise-{size}x{size}x{channels}-stride-{stride}": (size, channels, stride)
    for size, channels in ((112, 32), (56, 144), (28, 192), (14, 576))
    for stride in (1, 2)
}
"""Height and width, channels, stride: shapes of MobileNetV2; 3x3, padding 1."""
U8 = {"qmin": 0, "qmax": 255, "dtype": int(TensorProto.UINT8)}


@dataclass(frozen=True)
class Node:
    """Our operator with its data.

    Attributes:
        op: row of OPERATORS.
        attributes: of the node.
        x: input of the model.
        constants: the other inputs.
    """

    op: str
    attributes: dict[str, Any]
    x: np.ndarray
    constants: dict[str, np.ndarray]

    @cached_property
    def expected(self) -> np.ndarray:
        """By the Python reference."""
        return OPERATORS[self.op].reference(self.attributes, self.x, *self.constants.values())


def gemm(m: int, k: int, n: int) -> Node:
    """Uniform u8 by uniform s8, zero point 128; results spread over all of u8."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (m, k), np.uint8)
    w = rng.integers(-127, 128, (k, n)).astype(np.int8)
    constants = {"w": pack_gemm(w), "bias": rng.integers(-1000, 1000, n).astype(np.int32)}
    attributes = {"x_zero_point": 128, "w_shape": [k, n], "layout": K4N16, "zero_point": 128, **U8}
    return Node("GemmPacked", attributes, x, constants | _scales(rng, n, spread=5400 * k**0.5, bound=k * 127 * 128))


def depthwise(size: int, channels: int, stride: int, reduced: bool = False) -> Node:
    """As after ReLU: zero point 0 before and after. Weights: uniform s8, or what reduce_range makes of them."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (1, size, size, channels), np.uint8)
    w = rng.integers(-127, 128, (channels, 1, 3, 3)).astype(np.int8)
    if reduced:
        each = QuantSpec(8, signed=True, symmetric=True, axis=0)
        as_they_are = QParams(np.ones(channels, np.float32), np.zeros(channels, np.int32), each)
        scale = reduce_range(as_they_are, w.astype(np.float32), 0, windows=True).scale
        w = np.rint(w / scale.reshape(-1, 1, 1, 1)).astype(np.int8)
    constants = {"w": pack_taps(w), "bias": rng.integers(-1000, 1000, channels).astype(np.int32)}
    window = {"strides": [stride] * 2, "pads": [1] * 4, "dilations": [1, 1], "group": channels}
    attributes = {"x_zero_point": 0, "w_shape": list(w.shape), "layout": TAPS, **window, "zero_point": 0, **U8}
    magnitude = np.abs(w.astype(int)).sum(axis=(1, 2, 3))
    spread = 32000 * float(magnitude.mean()) / (9 * 63.75)
    scales = _scales(rng, channels, spread=spread, bound=int(magnitude.max()) * 255)
    return Node("DepthwiseNhwc", attributes, x, constants | scales)


def _scales(rng: np.random.Generator, channels: int, spread: float, bound: int) -> dict[str, np.ndarray]:
    """b and c, so that a sum of `spread` becomes about 40; b as wide as 32 bits hold it with a sum of `bound`.

    That is what `narrow-scales` makes of such weights (docs/passes.md), down to 6 bits.
    """
    bits = min(15, int(np.log2(2**31 / bound)))
    c = round(np.log2(spread / 40 * 2 ** (bits - 0.5)))
    b = rng.integers(2 ** (bits - 1), 2**bits, channels).astype(np.int32)
    return {
        "b": np.minimum(b, (2**31 - 2 ** (c - 1) - 1000 * 2**bits) // bound).astype(np.int32),
        "c": np.full(channels, c, np.int32),
    }


def our_model(node: Node) -> onnx.ModelProto:
    made = helper.make_node(node.op, ["x", *node.constants], ["y"], domain=DOMAIN, **node.attributes)
    return _model([made], node.x.shape, node.expected.shape, node.constants)


def qdq_model(node: Node) -> onnx.ModelProto:
    """The same depthwise convolution as ONNX Runtime likes it: QDQ, u8 x s8 per channel, NCHW."""
    a, n = node.attributes, node.constants
    scale = n["b"] / np.exp2(n["c"])
    constants = {
        "one": np.float32(1),
        "zero": np.uint8(0),
        "w": np.ascontiguousarray(n["w"].T).reshape(a["w_shape"]),
        "bias": n["bias"],
        "scale": scale.astype(np.float32),
        "zeros": np.zeros(len(scale), np.int8),
        "zeros32": np.zeros(len(scale), np.int32),
    }
    window = {name: a[name] for name in ("strides", "pads", "dilations", "group")} | {"kernel_shape": [3, 3]}
    nodes = [
        helper.make_node("DequantizeLinear", ["x", "one", "zero"], ["x_float"]),
        helper.make_node("DequantizeLinear", ["w", "scale", "zeros"], ["w_float"], axis=0),
        helper.make_node("DequantizeLinear", ["bias", "scale", "zeros32"], ["bias_float"], axis=0),
        helper.make_node("Conv", ["x_float", "w_float", "bias_float"], ["y_float"], **window),
        helper.make_node("QuantizeLinear", ["y_float", "one", "zero"], ["y"]),
    ]
    shapes = [tuple(np.transpose(v, (0, 3, 1, 2)).shape) for v in (node.x, node.expected)]
    return _model(nodes, shapes[0], shapes[1], constants)


def _model(
    nodes: list[onnx.NodeProto], x: tuple[int, ...], y: tuple[int, ...], constants: dict[str, np.ndarray]
) -> onnx.ModelProto:
    values = [helper.make_tensor_value_info(name, TensorProto.UINT8, shape) for name, shape in (("x", x), ("y", y))]
    initializers = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "node", values[:1], values[1:], initializers)
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def write(folder: Path, name: str, model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    """Save the model and its input; its output, with our library registered."""
    from node_worker import session

    path = folder / f"{name}.onnx"
    onnx.save(model, path)
    np.save(folder / f"{name}-x.npy", x)
    y: np.ndarray = session(str(path), ours=not name.endswith("-ort")).run(None, {"x": x})[0]
    return y


def check_gemm(folder: Path, name: str) -> str:
    node = gemm(*GEMMS[name])
    y = write(folder, name, our_model(node), node.x)
    return _different(int((y != node.expected).sum()))


def check_depthwise(folder: Path, name: str) -> str:
    """ONNX Runtime rounds half to even in float: one step off in places."""
    node = depthwise(*DEPTHWISE[name])
    nchw = np.ascontiguousarray(node.x.transpose(0, 3, 1, 2))
    theirs = write(folder, f"{name}-ort", qdq_model(node), nchw).transpose(0, 2, 3, 1).astype(int)
    far = int((abs(theirs - node.expected) > 1).sum())
    if far:
        return f"ONNX Runtime: {_different(far)}"
    wrong = 0
    for suffix, ours in (("", node), ("-reduced", depthwise(*DEPTHWISE[name], reduced=True))):
        y = write(folder, name + suffix, our_model(ours), ours.x)
        wrong += int((y != ours.expected).sum())
    return _different(wrong)


def _different(count: int) -> str:
    return f"{count} values differ from the reference" if count else ""


def _attempt(check: Callable[[Path, str], str], folder: Path, name: str) -> str:
    """The check's answer; one line where ONNX Runtime or the operator table refuses."""
    try:
        return check(folder, name)
    except (FileNotFoundError, KeyError, MulshiftError) as e:
        return f"{type(e).__name__}: {str(e).strip().splitlines()[0][:200]}"


def main(folder: str) -> None:
    warnings.filterwarnings("ignore")
    checks = dict.fromkeys(GEMMS, check_gemm) | dict.fromkeys(DEPTHWISE, check_depthwise)
    wrong = {name: _attempt(check, Path(folder), name) for name, check in checks.items()}
    sys.stdout.write(json.dumps(wrong) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
