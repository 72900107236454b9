"""Products with two of four weights kept, per channel and by a pattern of 64 columns, beside our dense int8.

python benchmarks/sparse/products.py [--quick]. Weights are normal, on 8 or 4 bits a column by its largest,
of each four the two largest kept (by a pattern: of the largest sums). `dense` has all of them, `dense, zeros` those
that `per channel` keeps, on the dense layout. Sides are timed by turns, one process each, the minimum of all; each is
checked against the operator table first. Prints one JSON object: product -> side -> microseconds.
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
from node_models import Node, our_model
from onnx import TensorProto
from sides import Side, milliseconds

from mulshift.ir.operators.packing import K4N16, pack_gemm
from mulshift.ir.operators.sparse import SPARSE, least_zeros, pack_zeros

TILE = 64
QUICK = {"gemv 4096x4096": (1, 4096, 4096), "gemm 128x1024x1024": (128, 1024, 1024)}
FULL = QUICK | {
    "gemv 1024x4096": (1, 1024, 4096),
    "gemm 128x768x3072": (128, 768, 3072),
    "gemm 128x3072x768": (128, 3072, 768),
    "gemm 128x2048x2048": (128, 2048, 2048),
    "gemm 128x4096x4096": (128, 4096, 4096),
}
"""M, K, N."""
NAMES = {"Sparse": "per channel", "SparseInt4": "per channel int4", "Shared": "shared", "SharedInt4": "shared int4"}
ROUNDS, SECONDS = {True: 1, False: 3}, {True: 3.0, False: 6.0}
U8 = {"zero_point": 128, "qmin": 0, "qmax": 255, "dtype": int(TensorProto.UINT8)}


def quantized(k: int, n: int, bits: int) -> np.ndarray:
    """Normal numbers, each column's largest is the most that so many bits hold."""
    w = np.random.default_rng(bits).normal(size=(k, n))
    return np.rint(w / np.abs(w).max(0) * (2 ** (bits - 1) - 1)).astype(np.int8)


def pruned(w: np.ndarray, columns: int) -> np.ndarray:
    """Of each four the two whose |w|, summed over so many columns, are largest."""
    k, n = w.shape
    fours = np.abs(w.reshape(k // 4, 4, n).astype(np.int64))
    sums = fours.reshape(k // 4, 4, n // columns, columns).sum(3).repeat(columns, 2)
    rank = (-sums).argsort(1, kind="stable").argsort(1)
    return (w.reshape(fours.shape) * (rank < 2)).reshape(k, n).astype(np.int8)


def weights(k: int, n: int) -> Iterator[tuple[str, str, str, np.ndarray]]:
    """Side, operator, layout, weights."""
    dense = {bits: quantized(k, n, bits) for bits in (8, 4)}
    yield "dense", "GemmPacked", K4N16, pack_gemm(dense[8])
    yield "dense, zeros", "GemmPacked", K4N16, pack_gemm(pruned(dense[8], 1))
    for form in SPARSE:
        packed = pack_gemm(pruned(dense[form.bits], TILE if form.shared else 1))
        if least_zeros(packed, form.bits) != form:
            raise SystemExit(f"{form.layout} is not what holds its own weights")
        yield NAMES[form.suffix], f"GemmPacked{form.suffix}", form.layout, pack_zeros(packed, form)


def sides(folder: Path, product: str) -> list[str]:
    """Write the models of a product, each checked."""
    m, k, n = FULL[product]
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (m, k), np.uint8)
    names = []
    for side, op, layout, w in weights(k, n):
        spread = 30 if "int4" not in side else 2
        constants = {
            "w": w,
            "bias": rng.integers(-1000, 1000, n).astype(np.int32),
            "b": np.full(1, 9, np.int32),
            "c": np.full(1, round(np.log2(9 * spread * k**0.5)), np.int32),
        }
        node = Node(op, {"x_zero_point": 128, "w_shape": [k, n], "layout": layout, **U8}, x, constants)
        onnx.save(our_model(node), folder / f"{side}.onnx")
        np.savez(folder / f"{side}.npz", x=x[None])
        _check(folder / f"{side}.onnx", node)
        names.append(side)
    return names


def _check(path: Path, node: Node) -> None:
    import mulshift

    y = mulshift.session(path, 1).run(None, {"x": node.x})[0]
    if not np.array_equal(y, node.expected):
        raise SystemExit(f"{path.stem}: differs from the reference")


def timed(product: str, threads: int, quick: bool) -> dict[str, float]:
    """Side -> microseconds."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = {side: (folder / f"{side}.onnx", folder / f"{side}.npz") for side in sides(folder, product)}
        running = {side: Side("transformer/worker", ("ours", *names, threads)) for side, names in files.items()}
        found = milliseconds(running, SECONDS[quick], ROUNDS[quick])
        return {side: time * 1e3 for side, time in found.items()}


def main(quick: bool) -> None:
    found = {}
    for product in QUICK if quick else FULL:
        for threads in (1, 2) if product.startswith("gemv 4096") else (1,):
            found[f"{product}, {threads} thread{'s' * (threads > 1)}"] = timed(product, threads, quick)
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main("--quick" in sys.argv[1:])
