"""A small net with a shortcut, a depthwise convolution and inputs that share most of their signal."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from float_graphs import graph, random

from mulshift.ir import Array, Feeds, Interpreter
from mulshift.passes.calibrate import Calibrate
from mulshift.passes.insert_fake_quant import InsertFakeQuant

TEXT = """g (float[N,3,6,6] x) => (float[N,5] y) {
 a = Conv <pads = [1, 1, 1, 1]> (x, w1, b1) r = Relu (a)
 d = Conv <group = 8, pads = [1, 1, 1, 1]> (r, w2) e = Relu (d)
 f = Conv (e, w3, b3) s = Add (f, r) t = Relu (s)
 p = GlobalAveragePool (t) q = Flatten (p) y = Gemm <transB = 1> (q, w4, b4) }"""
SHAPES = {"w1": (8, 3, 3, 3), "b1": (8,), "w2": (8, 1, 3, 3), "w3": (8, 8, 1, 1), "b3": (8,), "w4": (5, 8), "b4": (5,)}
PRODUCTS = ("Conv", "Gemm")


def samples(count: int, seed: int = 0) -> list[Feeds]:
    """Images whose channels have a common part."""
    rng = np.random.default_rng(seed)
    common = rng.uniform(0, 1, (count, 1, 6, 6))
    return [
        {"x": np.asarray(common[i : i + 1] + 0.3 * rng.uniform(-1, 1, (1, 3, 6, 6)), np.float32)} for i in range(count)
    ]


def build(bits: int = 4, count: int = 40) -> tuple[ir.Model, ir.Model, list[Feeds]]:
    """The float net, the net with pairs, and samples to round on."""
    model = graph(TEXT, {name: random(shape, i) for i, (name, shape) in enumerate(SHAPES.items())})
    data = samples(count)
    Calibrate(samples=data)(model)
    quantized = model.clone()
    InsertFakeQuant(weight_bits=bits)(quantized)
    return model, quantized, data


def error(exact: ir.Model, quantized: ir.Model, data: list[Feeds]) -> float:
    """Squared error of the output as a share of its squares."""
    pairs = [(_output(exact, feeds), _output(quantized, feeds)) for feeds in data]
    return float(sum(((a - b) ** 2).sum() for a, b in pairs) / sum((a**2).sum() for a, _ in pairs))


def numbers(model: ir.Model) -> dict[str, bytes]:
    """All initializers."""
    return {
        n: v.const_value.numpy().tobytes() for n, v in model.graph.initializers.items() if v.const_value is not None
    }


def _output(model: ir.Model, feeds: Feeds) -> Array:
    return next(iter(Interpreter(model).run(feeds).values())).numpy()
