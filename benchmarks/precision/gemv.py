"""One row times a constant matrix at 8, 4 and 2 bits beside MatMulNBits.

python benchmarks/precision/gemv.py [--quick]. Sides are timed by turns, one process each, the minimum of all; our nodes
are checked against the operator table first. Prints one JSON object: threads -> side -> microseconds.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import here  # noqa: F401
import numpy as np
import onnx
from node_models import DOMAIN, OPSET, Node, our_model
from onnx import TensorProto, helper, numpy_helper
from sides import Side, milliseconds

from mulshift.ir.operators.low_bits import BLOCKS, LOW_BITS, pack_bits, pack_blocks
from mulshift.ir.operators.packing import K4N16, pack_gemm

K, N = 4096, 4096
ROUNDS, SECONDS = {True: 1, False: 3}, {True: 3.0, False: 6.0}
SMALL_BLOCK = 32
THEIR_BLOCKS = (SMALL_BLOCK, 128)
U8 = {"zero_point": 128, "qmin": 0, "qmax": 255, "dtype": int(TensorProto.UINT8)}


def ours(bits: int, block: int = 0) -> Node:
    """Uniform u8 by uniform weights, in blocks times 1 to 15; sums spread over u8."""
    rng = np.random.default_rng(bits)
    x = rng.integers(0, 256, (1, K), np.uint8)
    most = 2 ** (bits - 1) - 1
    w = rng.integers(-most, most + 1, (K, N))
    if block:
        w, most = w * rng.integers(1, 16, (K // block, N)).repeat(block, 0), 15 * most
    name, layout, packed = _packed(pack_gemm(w.astype(np.int8)), bits, block)
    constants = {
        "w": packed,
        "bias": rng.integers(-1000, 1000, N).astype(np.int32),
        "b": np.full(1, 9, np.int32),
        "c": np.full(1, round(np.log2(9 * most * K**0.5)), np.int32),
    }
    return Node(name, {"x_zero_point": 128, "w_shape": [K, N], "layout": layout, **U8}, x, constants)


def _packed(w: np.ndarray, bits: int, block: int) -> tuple[str, str, np.ndarray]:
    """Operator, layout, weights of k4n16."""
    if block:
        blocks = pack_blocks(w, block)
        assert blocks is not None
        return "GemmPackedInt4Blocks", BLOCKS, blocks
    return ("GemmPacked", K4N16, w) if bits == 8 else (f"GemmPackedInt{bits}", LOW_BITS[bits], pack_bits(w, bits))


def floats() -> tuple[onnx.ModelProto, np.ndarray]:
    """Float x and w, MatMul."""
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(1, K)).astype(np.float32), rng.normal(size=(K, N)).astype(np.float32)
    return _float_model(helper.make_node("MatMul", ["x", "w"], ["y"]), {"w": w}), x


def matmul_n_bits(bits: int, block: int) -> tuple[onnx.ModelProto, np.ndarray]:
    """Symmetric, accuracy level 4: products in int8."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1, K)).astype(np.float32)
    constants = {
        "w": rng.integers(0, 256, (N, K // block, block * bits // 8), np.uint8),
        "scales": rng.uniform(0.01, 0.02, N * K // block).astype(np.float32),
    }
    sizes = {"K": K, "N": N, "bits": bits, "block_size": block, "accuracy_level": 4}
    node = helper.make_node("MatMulNBits", ["x", *constants], ["y"], domain="com.microsoft", **sizes)
    return _float_model(node, constants), x


def _float_model(node: onnx.NodeProto, constants: dict[str, np.ndarray]) -> onnx.ModelProto:
    shapes = {"x": (1, K), "y": (1, N)}
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items())
    graph = helper.make_graph([node], "node", [x], [y], [numpy_helper.from_array(v, k) for k, v in constants.items()])
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("com.microsoft", 1), helper.make_opsetid(DOMAIN, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def sides(folder: Path) -> Iterator[tuple[str, str]]:
    """Write the models; (side, engine of transformer/worker.py)."""
    for bits, block in ((8, 0), (4, 0), (4, SMALL_BLOCK), (2, 0)):
        node, name = ours(bits, block), f"ours {bits} bits{f', blocks of {block}' if block else ''}"
        yield _write(folder, name, our_model(node), node.x), "ours"
        _check(folder / f"{name}.onnx", node)
    for bits in (8, 4):
        for block in THEIR_BLOCKS:
            name = f"MatMulNBits {bits} bits, block {block}"
            yield _write(folder, name, *matmul_n_bits(bits, block)), "onnxruntime"
    yield _write(folder, "float", *floats()), "onnxruntime"


def _write(folder: Path, name: str, model: onnx.ModelProto, x: np.ndarray) -> str:
    onnx.save(model, folder / f"{name}.onnx")
    np.savez(folder / f"{name}.npz", x=x[None])
    return name


def _check(path: Path, node: Node) -> None:
    import mulshift

    y = mulshift.session(path, 1).run(None, {"x": node.x})[0]
    if not np.array_equal(y, node.expected):
        raise SystemExit(f"{path.stem}: differs from the reference")


def main(quick: bool) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder, best = Path(name), dict[str, dict[str, float]]()
        engines = dict(sides(folder))
        for threads in ("1", "2"):
            running = {
                side: Side("transformer/worker", (engine, folder / f"{side}.onnx", folder / f"{side}.npz", threads))
                for side, engine in engines.items()
            }
            found = milliseconds(running, SECONDS[quick], ROUNDS[quick])
            best[threads] = {side: time * 1e3 for side, time in found.items()}
    sys.stdout.write(json.dumps(best) + "\n")


if __name__ == "__main__":
    main("--quick" in sys.argv[1:])
