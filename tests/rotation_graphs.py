"""Small blocks of transformers with random weights, in ONNX text, for the tests of rotate."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_ir as ir

from mulshift.ir import Array, Feeds, Interpreter, constant
from mulshift.passes.rotate import Rotate
from mulshift.passes.rotation.ties import is_weight
from mulshift.passes.rotation.weights import out_axis

if TYPE_CHECKING:
    import torch

WIDTH, HEADS, PAIRS, HEAD, HIDDEN, WORDS = 48, 4, 2, 8, 40, 11
"""Channels, heads of queries, heads of keys and values, channels of a head, hidden channels, words."""
OUTLIER = 17

ATTENTION = """
<domain: "mulshift.float", opset_import: ["" : 23]>
Attention (q, k, v) => (y)
{
  a = Transpose <perm = [0, 2, 1, 3]> (q)
  b = Transpose <perm = [0, 2, 3, 1]> (k)
  c = Transpose <perm = [0, 2, 1, 3]> (v)
  s = MatMul (a, b)
  p = Softmax (s)
  o = MatMul (p, c)
  y = Transpose <perm = [0, 2, 1, 3]> (o)
}
"""

TAKEN_APART = """
  q4 = Reshape (q, heads)  qt = Transpose <perm = [0, 2, 1, 3]> (q4)
  k4 = Reshape (k, pairs)  kt = Transpose <perm = [0, 2, 1, 3]> (k4)
  k5 = Unsqueeze (kt, two)  ke = Expand (k5, twice)  kr = Reshape (ke, merged)
  kx = Transpose <perm = [0, 1, 3, 2]> (kr)
  v4 = Reshape (v, pairs)  vt = Transpose <perm = [0, 2, 1, 3]> (v4)
  v5 = Unsqueeze (vt, two)  ve = Expand (v5, twice)  vr = Reshape (ve, merged)
  s = MatMul (qt, kx)  p = Softmax (s)  a = MatMul (p, vr)
  at = Transpose <perm = [0, 2, 1, 3]> (a)  ar = Reshape (at, flat)
"""
WHOLE = """
  q4 = Reshape (q, heads)  k4 = Reshape (k, heads)  v4 = Reshape (v, heads)
  a = mulshift.float.Attention (q4, k4, v4)  ar = Reshape (a, flat)
"""
RMS_BLOCK = """g (int64[N, S] ids) => ({type}[N, S, {words}] y) {{
  x0 = Gather (table, ids)
  n1 = RMSNormalization (x0, g1)
  q = MatMul (n1, wq)  k = MatMul (n1, wk)  v = MatMul (n1, wv)
  {attention}
  o = MatMul (ar, wo)  x1 = Add (x0, o)
  n2 = RMSNormalization (x1, g2)
  up = MatMul (n2, w1)  gate = MatMul (n2, w2)  sg = Sigmoid (gate)  act = Mul (gate, sg)  h = Mul (act, up)
  d = MatMul (h, w3)  x2 = Add (x1, d)
  n3 = RMSNormalization (x2, g3)
  head = Transpose <perm = [1, 0]> (table)
  y = MatMul (n3, head)
}}"""
LAYER_NORM_BLOCK = """g ({type}[1, 3, 8, 8] image) => ({type}[1, 5] y) {{
  c = Conv <strides = [4, 4]> (image, wc, bc)  cr = Reshape (c, patches)  ct = Transpose <perm = [0, 2, 1]> (cr)
  cc = Concat <axis = 1> (token, ct)  x0 = Add (cc, positions)
  n1 = LayerNormalization <axis = -1> (x0, g1, b1)
  q0 = MatMul (n1, wq)  q = Add (q0, bq)  k = MatMul (n1, wk)  v0 = MatMul (n1, wv)  v = Add (v0, bv)
  {attention}
  o0 = MatMul (ar, wo)  o = Add (o0, bo)  x1 = Add (o, x0)
  n2 = LayerNormalization <axis = -1> (x1, g2, b2)
  h0 = MatMul (n2, w1)  h1 = Add (h0, c1)  h = Gelu (h1)
  d0 = MatMul (h, w3)  d = Add (d0, c3)  x2 = Add (x1, d)
  n3 = LayerNormalization <axis = -1> (x2, g3, b3)
  first = Gather <axis = 1> (n3, zero)
  y = Gemm <transB = 1> (first, wy, by)
}}"""


def model(text: str, weights: Mapping[str, Any], functions: str = "", opset: int = 23) -> ir.Model:
    """From ONNX text and the weights that it reads; functions stay functions."""
    imports = f'"" : {opset}' + (', "mulshift.float" : 1' if functions else "")
    proto = onnx.parser.parse_model(f"<ir_version: 10, opset_import: [{imports}]>\n{text}\n{functions}")
    read = {name for node in proto.graph.node for name in node.input}
    for name, array in ((k, a) for k, a in weights.items() if k in read):
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), name))
    for output in proto.graph.output:
        if not output.type.tensor_type.shape.dim:
            output.type.tensor_type.ClearField("shape")
    made = ir.from_proto(onnx.shape_inference.infer_shapes(proto, strict_mode=True, data_prop=True))
    for node in made.graph:
        node.name = node.name or f"{node.outputs[0].name}.node"
    return made


def normal(*shape: int, seed: int = 0, scale: float = 1.0) -> Array:
    """Seeded float32."""
    return (np.random.default_rng(seed).normal(size=shape) * scale).astype(np.float32)


def block_weights(kind: type = np.float32, whole: bool = False, outlier: float = 1) -> dict[str, Array]:
    """Weights of both blocks. `whole`: as many heads of keys as of queries. `outlier`: how many times as large
    the norms make one channel (Wei et al. 2022, arXiv:2209.13325: gamma is what amplifies outliers).
    """
    keys = (HEADS if whole else PAIRS) * HEAD
    shapes = {
        "wq": (WIDTH, HEADS * HEAD), "wk": (WIDTH, keys), "wv": (WIDTH, keys), "wo": (HEADS * HEAD, WIDTH),
        "w1": (WIDTH, HIDDEN), "w2": (WIDTH, HIDDEN), "w3": (HIDDEN, WIDTH), "table": (WORDS, WIDTH),
        "wc": (WIDTH, 3, 4, 4), "token": (1, 1, WIDTH), "positions": (1, 5, WIDTH), "wy": (5, WIDTH),
    }  # fmt: skip
    found = {
        k: normal(*s, seed=i, scale=s[0] ** -0.5 if k[0] == "w" else 1.0) for i, (k, s) in enumerate(shapes.items())
    }
    vectors = {"bq": HEADS * HEAD, "bv": keys, "bo": WIDTH, "c1": HIDDEN, "c3": WIDTH, "bc": WIDTH, "by": 5}
    vectors |= {f"{k}{i}": WIDTH for k in "bg" for i in (1, 2, 3)}
    found |= {k: normal(n, seed=50 + i, scale=0.3) for i, (k, n) in enumerate(vectors.items())}
    found |= {k: found[k] + 1 for k in ("g1", "g2", "g3")}
    for name in ("g1", "g2", "g3"):
        found[name][OUTLIER] *= outlier
    return {k: a.astype(kind) for k, a in found.items()} | {k: np.asarray(v) for k, v in SHAPES.items()}


SHAPES = {
    "heads": [0, 0, HEADS, HEAD], "pairs": [0, 0, PAIRS, HEAD], "two": [2], "twice": [1, 1, HEADS // PAIRS, 1, 1],
    "merged": [0, HEADS, -1, HEAD], "flat": [0, 0, HEADS * HEAD], "patches": [0, WIDTH, 4], "zero": 0,
}  # fmt: skip


def rms_block(kind: type = np.float32, whole: bool = False, outlier: float = 1, opset: int = 23) -> ir.Model:
    """Llama style: embedding, RMSNormalization, grouped queries, SwiGLU, head tied to the embedding."""
    return _block(RMS_BLOCK, kind, whole, outlier, opset)


def layer_norm_block(kind: type = np.float32, whole: bool = True, outlier: float = 1, opset: int = 23) -> ir.Model:
    """ViT style: patches by a Conv, class token, positions, LayerNormalization with bias, Gelu, Gemm on one token."""
    if not whole:
        raise ValueError("one image has one token for `twice`")
    return _block(LAYER_NORM_BLOCK, kind, whole, outlier, opset)


def _block(text: str, kind: type, whole: bool, outlier: float, opset: int) -> ir.Model:
    name = "double" if kind is np.float64 else "float"
    attention = WHOLE if whole else TAKEN_APART
    filled = text.format(type=name, words=WORDS, attention=attention)
    return model(filled, block_weights(kind, whole, outlier), ATTENTION if whole else "", opset)


def feeds(built: ir.Model, seed: int = 1, count: int = 2, kind: type = np.float32) -> dict[str, Array]:
    """For either block."""
    rng = np.random.default_rng(seed)
    if built.graph.inputs[0].name == "ids":
        return {"ids": rng.integers(0, WORDS, (count, 6))}
    return {"image": rng.normal(size=(1, 3, 8, 8)).astype(kind)}


def outputs(built: ir.Model, fed: Feeds) -> Array:
    """The first output by the interpreter."""
    return next(iter(Interpreter(built).run(fed).values())).numpy()


def quantized_outputs(built: ir.Model, fed: Feeds, bits: int, weight_bits: int) -> Array:
    """The first output with every linear operator reading activations rounded to `bits`, one scale a tensor, and
    weights rounded to `weight_bits`, one scale an output channel.
    """
    import torch

    linear = [n for n in built.graph if n.op_type in ("MatMul", "Gemm", "Conv") and is_weight(n.inputs[1])]
    read = {n.inputs[0] for n in linear}
    weights = {n.inputs[1]: n for n in linear}

    def rounded(value: ir.Value, x: torch.Tensor) -> torch.Tensor | None:
        if value in weights:  # made by a Transpose
            return _per_column(x, weight_bits)
        if value not in read:
            return None
        scale = (x.max().clamp(min=0) - x.min().clamp(max=0)) / (2**bits - 1)
        made: torch.Tensor = torch.round(x / scale) * scale
        return made

    overrides = {}
    for value, node in weights.items():
        array = constant(value)
        if array is not None and value is not None:
            moved = torch.from_numpy(np.array(np.moveaxis(array, out_axis(node), -1)))
            flat = _per_column(moved.reshape(-1, moved.shape[-1]), weight_bits).reshape(moved.shape)
            overrides[str(value.name)] = flat.movedim(-1, out_axis(node))
    return next(iter(Interpreter(built, overrides).run(fed, rounded).values())).numpy()


def _per_column(w: torch.Tensor, bits: int) -> torch.Tensor:
    scale = w.abs().amax(0) / (2 ** (bits - 1) - 1)
    import torch

    made: torch.Tensor = torch.round(w / scale) * scale
    return made


def sqnr(expected: Array, got: Array) -> float:
    """Signal to noise in dB."""
    return float(
        10 * np.log10((expected.astype(np.float64) ** 2).sum() / ((expected - got).astype(np.float64) ** 2).sum())
    )


BLOCKS: dict[str, tuple[Callable[..., ir.Model], dict[str, Any]]] = {
    "RMSNormalization, grouped queries": (rms_block, {"whole": False}),
    "RMSNormalization, Attention": (rms_block, {"whole": True}),
    "LayerNormalization, Attention": (layer_norm_block, {}),
}


def error(built: ir.Model, step: Rotate, fed: dict[str, Array]) -> float:
    """Largest error of the output that the pass makes, relative to the largest output."""
    before = outputs(built, fed)
    step(built)
    return float(np.abs(outputs(built, fed) - before).max() / np.abs(before).max())
