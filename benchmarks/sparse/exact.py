"""Sparse operators against their dense function bodies: `python benchmarks/sparse/exact.py [--quick]`.

Random products whose weights have a pattern (2:4 and shared, 8 and 4 bits, Gemm and Conv), and whole pruned networks:
the kernel library beside stock ONNX Runtime, which runs the function bodies, and beside the dense kernels. Prints one
JSON object: for each, numbers compared and how many differ.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

sys.path.insert(1, str(Path(__file__).resolve().parent.parent / "precision"))
from cases import case

import mulshift
from mulshift.backends import kernel_session, onnxruntime
from mulshift.ir import Level, load, set_level
from mulshift.passes.allocation.candidates import KINDS
from mulshift.passes.kernels.products import KERNEL
from mulshift.passes.pipeline import Pipeline
from mulshift.passes.sparsity.masks import largest
from mulshift.single_nodes import Form, with_weights_of
from mulshift.sparse_layers import sparse_layers

NODES = {True: 40, False: 600}
NETS = {True: ("efficientnet-lite0",), False: ("efficientnet-lite0", "minilm")}
FORMS = tuple(Form(bits, kind) for bits in (8, 4) for kind in ("2:4", "2:4:shared"))


def random_product(rng: np.random.Generator) -> tuple[ir.Model, dict[str, np.ndarray]]:
    """An INTEGER graph of one Gemm or Conv with random shapes, weights with a pattern, and feeds."""
    form = FORMS[rng.integers(len(FORMS))]
    is_gemm = bool(rng.integers(2))
    n, channels = int(rng.integers(1, 150)), 4 * int(rng.integers(1, 40))
    kernel = int(rng.choice([1, 3]))
    shape = (channels, n) if is_gemm else (n, channels, kernel, kernel)
    x_shape = (int(rng.integers(1, 20)), channels) if is_gemm else (1, channels, *rng.integers(kernel, 9, 2).tolist())
    limit = 2 ** (form.bits - 1) - 1
    w = rng.integers(-limit, limit + 1, shape).astype(np.int8)
    sparsity = KINDS[form.kind].sparsity
    assert sparsity is not None
    w = np.where(largest(rng.random(shape), 1 if is_gemm else 0, sparsity), w, 0).astype(np.int8)
    per_channel = (n,) if is_gemm else (n, 1, 1)
    b = rng.integers(2**14, 2**15, per_channel).astype(np.int32)
    spread = 100 * limit * np.sqrt(w.size / n / 2)
    c = np.full(per_channel, max(2, round(np.log2(spread / 60 * 2**14.5))), np.int32)
    constants = {"w": w, "bias": rng.integers(-1000, 1000, per_channel).astype(np.int32), "b": b, "c": c}
    pads = ",".join("1" if kernel > 1 else "0" for _ in range(4))
    window = "" if is_gemm else f", strides = [1, 1], dilations = [1, 1], pads = [{pads}], group = 1"
    zero = int(rng.integers(0, 256))
    out = f"x_zero_point = {zero}, zero_point = 128, qmin = 0, qmax = 255, dtype = 2{window}"
    op = "Gemm" if is_gemm else "Conv"
    text = f"""<ir_version: 10, opset_import: ["" : 21, "mulshift" : 1]>
    g (uint8[{",".join(map(str, x_shape))}] x) => (uint8[{",".join("abcd"[: len(x_shape)])}] y)
    {{ y = mulshift.{op} <{out}> (x, w, bias, b, c) }}"""
    proto = onnx.parser.parse_model(text)
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(v, k) for k, v in constants.items())
    model = ir.from_proto(proto)
    model.graph.node(0).name = "product"
    set_level(model, Level.INTEGER)
    return model, {"x": rng.integers(0, 256, x_shape).astype(np.uint8)}


def compare(integer: ir.Model, feeds: list[dict[str, Any]]) -> tuple[int, int, int]:
    """Sparse layers, numbers compared and numbers that differ: kernels against bodies and against dense kernels."""
    artifact = mulshift.lower(integer, "onnxruntime")
    dense = integer.clone()
    for node in dense.graph:
        node.metadata_props[KERNEL] = "dense"
    data = artifact.serialize()
    sessions = [
        kernel_session.session(data, 2),
        onnxruntime.session(data, 2, precise=False),
        kernel_session.session(mulshift.lower(dense, "onnxruntime").serialize(), 2),
    ]
    values = differences = 0
    for given in feeds:
        ours, *others = [s.run(None, given) for s in sessions]
        for other in others:
            values += sum(a.size for a in ours)
            differences += sum(int((a != b).sum()) for a, b in zip(ours, other, strict=True))
    return len(sparse_layers(artifact.model.graph)), values, differences


def operators(count: int) -> dict[str, int]:
    """Random products, of those that take a sparse layout."""
    rng, found = np.random.default_rng(0), {"nodes": 0, "values": 0, "differences": 0}
    for _ in range(count):
        model, feeds = random_product(rng)
        sparse, values, differences = compare(model, [feeds])
        if sparse:
            found = {k: found[k] + v for k, v in zip(found, (1, values, differences), strict=True)}
    return found


def network(name: str) -> dict[str, int]:
    """A whole network, all products that can with a pattern: per-channel and shared by turns."""
    given = case(name, 1)
    graph = Pipeline("int8-fast", checked=0).run(load(given.path), given.calibration[:2]).levels[Level.INTEGER]
    names = [str(n.name) for n in graph.graph]
    forms = {n: FORMS[i % len(FORMS)] for i, n in enumerate(names)}
    sparse, values, differences = compare(with_weights_of(graph, forms), given.calibration[:2])
    return {"layers": sparse, "values": values, "differences": differences}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    found = {"operators": operators(NODES[quick]), "networks": {net: network(net) for net in NETS[quick]}}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
