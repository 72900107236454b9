"""A small net with room for patterns of zeros: 1x1, 3x3, grouped and depthwise convolutions, a shortcut, a Gemm."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import torch
from float_graphs import graph, random

from mulshift.ir import Array, Feeds, constant
from mulshift.passes.rounding.layers import Product, find_layer, find_product
from mulshift.passes.sparsity.masks import holds, tap_order
from mulshift.passes.sparsity.pattern import sparsity_of

TEXT = """g (float[N,3,6,6] x) => (float[N,5] y) {
 a = Conv <pads = [1, 1, 1, 1]> (x, w1, b1) r = Relu (a)
 d = Conv <group = 8, pads = [1, 1, 1, 1]> (r, w2, b2) e = Relu (d)
 f = Conv (e, w3, b3) s = Add (f, r) t = Relu (s)
 u = Conv <pads = [1, 1, 1, 1]> (t, w4, b4) v = Relu (u)
 h = Conv <group = 2> (v, w5, b5) i = Relu (h)
 p = GlobalAveragePool (i) q = Flatten (p) y = Gemm <transB = 1> (q, w6, b6) }"""
SHAPES = {
    "w1": (8, 3, 3, 3), "b1": (8,), "w2": (8, 1, 3, 3), "b2": (8,), "w3": (8, 8, 1, 1), "b3": (8,),
    "w4": (16, 8, 3, 3), "b4": (16,), "w5": (8, 8, 1, 1), "b5": (8,), "w6": (5, 8), "b6": (5,),
}  # fmt: skip
SPARSE = ("f", "u", "h", "y")
"""Nodes that can have zeros: the others have too few input channels."""
PATTERNS = ("2:4", "1:4", "3:8", "2:4:shared", "1x4@2:4")


def build() -> ir.Model:
    """The float net."""
    return graph(TEXT, {name: random(shape, i) for i, (name, shape) in enumerate(SHAPES.items())})


def samples(count: int, seed: int = 0) -> list[Feeds]:
    """Images whose channels have a common part."""
    rng = np.random.default_rng(seed)
    common = rng.uniform(0, 1, (count, 1, 6, 6))
    return [
        {"x": np.asarray(common[i : i + 1] + 0.3 * rng.uniform(-1, 1, (1, 3, 6, 6)), np.float32)} for i in range(count)
    ]


def rows(layer: Product, weights: Array) -> torch.Tensor:
    """Weights with the groups of a pattern side by side."""
    return layer.matrix(weights)[:, :, tap_order(layer)]


def product(node: ir.Node) -> Product:
    """With or without pairs."""
    found = next((p for p in (find_layer(node), find_product(node)) if isinstance(p, Product)), None)
    assert found is not None
    return found


def patterns(model: ir.Model) -> dict[str, str]:
    """Node -> its pattern, of all that say they have one and do."""
    said = {n: s for n in model.graph if (s := sparsity_of(n)) is not None}
    return {str(n.name): str(s) for n, s in said.items() if holds(rows(product(n), product(n).weights), s)}


def integer_patterns(model: ir.Model) -> dict[str, str]:
    """Name of what an integer product makes -> its pattern, where its s8 weights have it."""
    found: dict[str, str] = {}
    for node in model.graph:
        sparsity, w = sparsity_of(node), constant(node.inputs[1]) if len(node.inputs) > 1 else None
        if sparsity is not None and w is not None and holds(integer_rows(node, w), sparsity):
            found[str(node.name)] = str(sparsity)
    return found


def integer_rows(node: ir.Node, w: Array) -> torch.Tensor:
    """[groups, outputs, K] of an integer product, tap by tap. Gemm: w is [K, N]."""
    groups = node.attributes["group"].as_int() if "group" in node.attributes else 1
    tapped = w.T[:, None] if w.ndim == 2 else np.moveaxis(w.reshape(*w.shape[:2], -1), 1, 2)
    return torch.from_numpy(np.ascontiguousarray(tapped)).reshape(groups, len(tapped) // groups, -1).double()
