"""Operators that ONNX Runtime's optimizer and exporters fused, and attention of opset 23, against ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import pytest
from float_graphs import ops
from importing import run, text_model

from mulshift.ir import Array, Interpreter, UnsupportedError, load
from mulshift.ir.frontend.fused import ROWS
from mulshift.passes.calibrate import Calibrate
from mulshift.passes.canonicalize import Canonicalize
from mulshift.passes.fuse import Fuse
from mulshift.passes.insert_fake_quant import InsertFakeQuant
from mulshift.passes.to_integer import ToInteger

B, S, N, H, G, D, C = 2, 5, 7, 4, 2, 8, 32
CLOSE = 1e-5
"""Of outputs of order 1: float32 sums of up to 32 products in another order."""
EXTRA = ', "com.microsoft" : 1'

SEQ, KEY, ONE = f"float[{B},{S},{C}]", f"float[{B},{N},{C}]", f"float[{C}]"
FEW, CACHE = f"float[{B},{S},{G * D}]", f"float[16,{D // 2}]"
HEADS, SHARED = f"float[{B},{H},{S},{D}]", f"float[{B},{G},{N},{D}]"
PAST, PRESENT = f"float[{B},{H},3,{D}]", f"float[{B},{H},{S + 3},{D}]"
QKV = f"{SEQ} q, {KEY} k, {KEY} v"
MHA = f"com.microsoft.MultiHeadAttention<num_heads={H}"
GQA = f"com.microsoft.GroupQueryAttention<num_heads={H}, kv_num_heads={G}"
TURN = "com.microsoft.RotaryEmbedding"
ANGLES = f"{CACHE} cos, {CACHE} sin"
WIDE = "float[16,8] cos, float[16,8] sin"

CASES: dict[str, tuple[int, str, str, str, list[str]]] = {
    "skip layer norm": (
        17,
        f"{SEQ} x, {SEQ} s, {ONE} g, {ONE} b, {ONE} c",
        f"{SEQ} y, {SEQ} t",
        "y, m, i, t = com.microsoft.SkipLayerNormalization<epsilon=0.001>(x, s, g, b, c)",
        ["Add", "Add", "LayerNormalization"],
    ),
    "skip layer norm, default": (
        17,
        f"{SEQ} x, float[{S},{C}] s, {ONE} g",
        f"{SEQ} y",
        "y = com.microsoft.SkipLayerNormalization(x, s, g)",
        ["Add", "LayerNormalization"],
    ),
    "skip simplified": (
        17,
        f"{SEQ} x, {SEQ} s, {ONE} g, {ONE} c",
        f"{SEQ} y, {SEQ} t",
        "y, m, i, t = com.microsoft.SkipSimplifiedLayerNormalization(x, s, g, c)",
        ["Add", "Add", "RMSNormalization"],
    ),
    "simplified": (
        14,
        f"{SEQ} x, {ONE} g",
        f"{SEQ} y",
        "y = SimplifiedLayerNormalization<axis=-1, epsilon=0.01, stash_type=1>(x, g)",
        ["RMSNormalization"],
    ),
    "layer norm before 17": (
        12,
        f"{SEQ} x, {ONE} g, {ONE} b",
        f"{SEQ} y",
        "y = LayerNormalization<axis=-1, epsilon=0.01>(x, g, b)",
        ["LayerNormalization"],
    ),
    "embeddings": (
        13,
        f"int32[{B},{S}] ids, int32[{B},{S}] seg, float[9,{C}] w, float[16,{C}] p, float[2,{C}] t, {ONE} g, {ONE} b,"
        f"int32[{B},{S}] mask",
        f"{SEQ} y, int32[{B}] keys, {SEQ} sum",
        "y, keys, sum = com.microsoft.EmbedLayerNormalization<epsilon=0.001>(ids, seg, w, p, t, g, b, mask)",
        ["Gather", "Add", "Gather", "Add", "LayerNormalization"],
    ),
    "embeddings, positions": (
        13,
        f"int32[{B},{S}] ids, float[9,{C}] w, float[16,{C}] p, {ONE} g, {ONE} b, int32[{B},{S}] at",
        f"{SEQ} y",
        "y, keys = com.microsoft.EmbedLayerNormalization(ids, , w, p, , g, b, , at)",
        ["Gather", "Gather", "Add", "LayerNormalization"],
    ),
    "bias gelu": (13, f"{SEQ} x, {ONE} c", f"{SEQ} y", "y = com.microsoft.BiasGelu(x, c)", ["Add", "Gelu"]),
    "fast gelu": (13, f"{SEQ} x, {ONE} c", f"{SEQ} y", "y = com.microsoft.FastGelu(x, c)", ["Add", "Gelu"]),
    "gelu": (13, f"{SEQ} x", f"{SEQ} y", "y = com.microsoft.Gelu(x)", ["Gelu"]),
    "quick gelu": (13, f"{SEQ} x", f"{SEQ} y", "y = com.microsoft.QuickGelu<alpha=1.5>(x)", ["Swish"]),
    "product": (
        13,
        f"float[{B},{C},{S}] a, float[{B},{N},{C}] b",
        f"float[{B},{S},{N}] y",
        "y = com.microsoft.FusedMatMul<transA=1, transB=1, alpha=0.25>(a, b)",
        ["MatMul", "Mul"],
    ),
    "heads": (17, QKV, f"{SEQ} y", f"y = {MHA}>(q, k, v)", ["Attention"]),
    "heads, scale and bias": (
        17,
        f"{QKV}, float[{3 * C}] c",
        f"{SEQ} y",
        f"y = {MHA}, scale=0.2>(q, k, v, c)",
        ["Add", "Add", "Add", "Attention"],
    ),
    "heads, lengths": (17, f"{QKV}, int32[{B}] lens", f"{SEQ} y", f"y = {MHA}>(q, k, v, , lens)", ["MaskedAttention"]),
    "heads, key mask": (
        17,
        f"{QKV}, int32[{B},{N}] mask",
        f"{SEQ} y",
        f"y = {MHA}>(q, k, v, , mask)",
        ["MaskedAttention"],
    ),
    "heads, mask": (
        17,
        f"{QKV}, int32[{B},{S},{N}] mask",
        f"{SEQ} y",
        f"y = {MHA}>(q, k, v, , mask)",
        ["MaskedAttention"],
    ),
    "heads, bias of scores": (
        17,
        f"{QKV}, float[1,{H},{S},{N}] r",
        f"{SEQ} y",
        f"y = {MHA}>(q, k, v, , , r)",
        ["MatMul", "Mul", "Add", "Softmax", "MatMul"],
    ),
    "heads, mask of scores": (
        17,
        f"{QKV}, bool[{B},1,{S},{N}] mask",
        f"{SEQ} y",
        f"""zero = Constant<value=float {{0}}>() low = Constant<value=float {{-1e30}}>() r = Where(mask, zero, low)
        y = {MHA}>(q, k, v, , , r)""",
        ["MaskedAttention"],
    ),
    "heads, causal": (
        17,
        f"{SEQ} q, {SEQ} k, {SEQ} v",
        f"{SEQ} y",
        f"y = {MHA}, unidirectional=1>(q, k, v)",
        ["MaskedAttention"],
    ),
    "heads, past": (
        17,
        f"{SEQ} q, {SEQ} k, {SEQ} v, {PAST} pk, {PAST} pv",
        f"{SEQ} y, {PRESENT} nk, {PRESENT} nv",
        f"y, nk, nv = {MHA}, unidirectional=1>(q, k, v, , , , pk, pv)",
        ["Concat", "Concat", "MaskedAttention"],
    ),
    "heads, keys in four axes": (
        17,
        f"{SEQ} q, float[{B},{H},{N},{D}] k, float[{B},{H},{N},{D}] v",
        f"{SEQ} y",
        f"y = {MHA}>(q, k, v)",
        ["Attention"],
    ),
    "packed": (
        13,
        f"{SEQ} x, float[{C},{3 * C}] w, float[{3 * C}] c, int32[{B}] lens",
        f"{SEQ} y",
        f"y = com.microsoft.Attention<num_heads={H}>(x, w, c, lens)",
        ["MatMul", "Add", "MatMul", "Add", "MatMul", "Add", "MaskedAttention"],
    ),
    "packed, other sizes": (
        13,
        f"{SEQ} x, float[{C},64] w, float[64] c, int32[{B},{S}] mask",
        f"float[{B},{S},32] y",
        f"y = com.microsoft.Attention<num_heads={H}, qkv_hidden_sizes=[16,16,32], unidirectional=1>(x, w, c, mask)",
        ["MatMul", "Add", "MatMul", "Add", "MatMul", "Add", "MaskedAttention"],
    ),
    "groups": (
        17,
        f"{SEQ} q, {FEW} k, {FEW} v, int32[{B}] full, int32 total",
        f"{SEQ} y, float[{B},{G},{S},{D}] nk, float[{B},{G},{S},{D}] nv",
        f"y, nk, nv = {GQA}>(q, k, v, , , full, total)",
        ["MaskedAttention"],
    ),
    "groups, rotary": (
        17,
        f"float[{B},{S},64] q, float[{B},{S},32] k, float[{B},{S},32] v, int32[{B}] full, int32 total, {WIDE}",
        f"float[{B},{S},64] y, float[{B},{G},{S},16] nk, float[{B},{G},{S},16] nv",
        f"y, nk, nv = {GQA}, do_rotary=1>(q, k, v, , , full, total, cos, sin)",
        ["RotaryEmbedding", "RotaryEmbedding", "MaskedAttention"],
    ),
    "groups, rotary, packed": (
        17,
        f"float[{B},{S},128] q, int32[{B}] full, int32 total, {WIDE}",
        f"float[{B},{S},64] y",
        f"y, nk, nv = {GQA}, do_rotary=1, rotary_interleaved=1>(q, , , , , full, total, cos, sin)",
        ["Split", "RotaryEmbedding", "RotaryEmbedding", "MaskedAttention"],
    ),
    "turn": (
        17,
        f"{SEQ} x, int64[{B},{S}] at, {ANGLES}",
        f"{SEQ} y",
        f"y = {TURN}(x, at, cos, sin)",
        ["Gather", "Gather", "RotaryEmbedding"],
    ),
    "turn, from one position": (
        17,
        f"{HEADS} x, int64[1] at, {ANGLES}",
        f"{HEADS} y",
        f"y = {TURN}<interleaved=1>(x, at, cos, sin)",
        ["Add", "Gather", "Gather", "RotaryEmbedding"],
    ),
    "turn, in part": (
        17,
        f"{SEQ} x, int64[{B},{S}] at, float[16,2] cos, float[16,2] sin",
        f"{SEQ} y",
        f"y = {TURN}<num_heads={H}, rotary_embedding_dim=4>(x, at, cos, sin)",
        ["Gather", "Gather", "Split", "RotaryEmbedding", "Concat"],
    ),
    "standard turn": (
        23,
        f"{HEADS} x, {ANGLES}, int64[{B},{S}] at",
        f"{HEADS} y",
        "y = RotaryEmbedding(x, cos, sin, at)",
        ["Gather", "Gather", "RotaryEmbedding"],
    ),
    "standard turn, no positions": (
        23,
        f"{SEQ} x, float[{B},{S},4] cos, float[{B},{S},4] sin",
        f"{SEQ} y",
        f"y = RotaryEmbedding<num_heads={H}, interleaved=1>(x, cos, sin)",
        ["RotaryEmbedding"],
    ),
    "standard": (23, f"{HEADS} q, {HEADS} k, {HEADS} v", f"{HEADS} y", "y = Attention(q, k, v)", ["Attention"]),
    "standard, groups": (
        23,
        f"{HEADS} q, {SHARED} k, {SHARED} v, bool[{S},{N}] m",
        f"{HEADS} y",
        "y = Attention<scale=0.3>(q, k, v, m)",
        ["MaskedAttention"],
    ),
    "standard, three axes": (
        23,
        f"{SEQ} q, {FEW} k, {FEW} v",
        f"{SEQ} y",
        f"y = Attention<q_num_heads={H}, kv_num_heads={G}, is_causal=1>(q, k, v)",
        ["MaskedAttention"],
    ),
    "standard, float mask": (
        23,
        f"{HEADS} q, {SHARED} k, {SHARED} v, float[{B},1,{S},{N}] m",
        f"{HEADS} y",
        "y = Attention(q, k, v, m)",
        ["MatMul", "Mul", "Add", "Softmax", "MatMul"],
    ),
    "standard, past": (
        23,
        f"{HEADS} q, {HEADS} k, {HEADS} v, bool[{S},{S + 3}] m, {PAST} pk, {PAST} pv",
        f"{HEADS} y, {PRESENT} nk, {PRESENT} nv",
        "y, nk, nv = Attention(q, k, v, m, pk, pv)",
        ["Concat", "Concat", "MaskedAttention"],
    ),
    "standard, lengths": (
        24,
        f"{HEADS} q, {SHARED} k, {SHARED} v, int64[{B}] lens",
        f"{HEADS} y",
        "y = Attention(q, k, v, , , , lens)",
        ["MaskedAttention"],
    ),
}
MOVERS = {"Transpose", "Reshape", "Unsqueeze", "Squeeze", "Expand"}
INTEGERS = {"Cast", "Not", "Range", "Less", "LessOrEqual", "And", "Shape", "ReduceSum", "Where"}


def feeds_of(proto: onnx.ModelProto) -> dict[str, Array]:
    rng = np.random.default_rng(3)
    made: dict[str, Array] = {}
    for value in proto.graph.input:
        shape = [d.dim_value for d in value.type.tensor_type.shape.dim]
        kind = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type))
        array: Array = rng.standard_normal(shape).astype(np.float32)
        if value.name in ("mask", "m") and kind != np.float32:
            array = np.asarray(array > 0)
            array[..., 0] = True
        if value.name == "mask" and "EmbedLayer" in proto.graph.node[0].op_type:
            array = np.arange(S) < np.array([[3], [S]])
        fixed = {"lens": [4, 5], "full": [S - 1] * B, "total": S, "ids": rng.integers(0, 9, shape)}
        fixed |= {"seg": rng.integers(0, 2, shape), "at": rng.integers(0, 9, shape)}
        made[value.name] = np.asarray(fixed.get(value.name, array)).astype(kind)
    return made


def build(name: str) -> onnx.ModelProto:
    opset, inputs, outputs, body, _ = CASES[name]
    return text_model(f"g ({inputs}) => ({outputs}) {{ {body} }}", opset, extra=EXTRA)


def with_weights(proto: onnx.ModelProto, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Turn what models hold as weights into initializers; the feeds that are left."""
    names = [v.name for v in proto.graph.input if v.name in ("w", "c", "g", "b", "p", "t", "cos", "sin", "s")]
    if "FusedMatMul" in proto.graph.node[0].op_type or "Skip" in proto.graph.node[0].op_type:
        names = [n for n in names if n in ("g", "c")]
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(feeds[n], n) for n in names)
    kept = [v for v in proto.graph.input if v.name not in names]
    del proto.graph.input[:]
    proto.graph.input.extend(kept)
    return {k: v for k, v in feeds.items() if k not in names}


@pytest.mark.parametrize("name", CASES)
def test_the_same_numbers(name: str) -> None:
    """ONNX Runtime runs the original; ours gives the same at import, and after canonicalize and fuse."""
    proto = build(name)
    feeds = with_weights(proto, feeds_of(proto))
    expected = run(proto, feeds, optimize=False)
    model = load(proto)
    assert not any((n.domain, n.op_type) in ROWS for n in model.graph)
    feeds = {k: v for k, v in feeds.items() if k in {str(i.name) for i in model.graph.inputs}}
    for step in (None, Canonicalize(), Fuse()):
        if step is not None:
            step(model)
        for got in (run(model, feeds), [t.numpy() for t in Interpreter(model).run(feeds).values()]):
            for a, b in zip(expected, got, strict=True):
                np.testing.assert_allclose(b, a, rtol=0, atol=CLOSE)
    found = [op for op in ops(model) if op not in MOVERS | INTEGERS]
    wanted = CASES[name][-1]
    assert sorted(found) == sorted(wanted)
    assert [v.name for v in model.graph.outputs] == [v.name for v in proto.graph.output]


PACKED = {
    "all": (f"float[{B},{S},{H},3,{D}] q", f"y = {MHA}>(q)", ["q"]),
    "keys and values": (f"{SEQ} q, float[{B},{S},{H},2,{D}] k", f"y = {MHA}>(q, k)", ["k"]),
}


@pytest.mark.parametrize("name", PACKED)
def test_packed_heads(name: str) -> None:
    """ONNX Runtime has them on GPUs alone, so beside its own operator on the parts."""
    inputs, body, packed = PACKED[name]
    proto = text_model(f"g ({inputs}) => ({SEQ} y) {{ {body} }}", 17, extra=EXTRA)
    feeds = feeds_of(proto)
    parts = np.moveaxis(feeds[packed[0]], 3, 0).reshape(-1, B, S, C)
    plain = dict(zip("qkv" if packed == ["q"] else "kv", parts, strict=True))
    text = f"g ({SEQ} q, {SEQ} k, {SEQ} v) => ({SEQ} y) {{ y = {MHA}>(q, k, v) }}"
    expected = run(text_model(text, 17, extra=EXTRA), {**feeds, **plain})[0]
    np.testing.assert_allclose(run(load(proto), feeds)[0], expected, rtol=0, atol=CLOSE)


REFUSED = {
    "softcap": (f"{HEADS} q", f"{HEADS} y", "[a] y = Attention<softcap=5.0>(q, q, q)", "attribute softcap = 5.0"),
    "scores": (
        f"{HEADS} q",
        f"{HEADS} y, float[{B},{H},{S},{S}] s",
        "[a] y, pk, pv, s = Attention(q, q, q)",
        "output 'qk_matmul_output'",
    ),
    "cache": (
        f"{SEQ} q, {PAST} k, {PAST} v, int32[1] n",
        f"{SEQ} y",
        f"[a] y = {MHA}>(q, q, q, , , , k, v, n)",
        "input 'past_sequence_length'",
    ),
    "window": (
        f"{SEQ} q, {FEW} k, int32[{B}] full, int32 total",
        f"{SEQ} y",
        f"[a] y = {GQA}, local_window_size=4>(q, k, k, , , full, total)",
        "attribute local_window_size = 4",
    ),
    "grouped cache": (
        f"{SEQ} q, {FEW} k, {SHARED} p, int32[{B}] full, int32 total",
        f"{SEQ} y",
        f"[a] y = {GQA}>(q, k, k, p, p, full, total)",
        "input 'past_key'",
    ),
    "starts and ends": (
        f"{SEQ} q, int32[{3 * B + 2}] m",
        f"{SEQ} y",
        f"[a] y = {MHA}>(q, q, q, , m)",
        "its mask 'm' holds more than one number",
    ),
    "transposed batches": (
        f"{HEADS} q",
        f"{HEADS} y",
        "[a] y = com.microsoft.FusedMatMul<transBatchA=1>(q, q)",
        "attribute transBatchA = 1",
    ),
    "mean": (
        f"{SEQ} x, {ONE} g",
        f"{SEQ} y, float[{B},{S},1] m",
        "[a] y, m = com.microsoft.SkipLayerNormalization(x, x, g)",
        "output 'mean'",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    """What has no form here: one line that names the node, the cause and what to do."""
    inputs, outputs, body, cause = REFUSED[name]
    with pytest.raises(UnsupportedError) as caught:
        load(text_model(f"g ({inputs}) => ({outputs}) {{ {body} }}", 23, extra=EXTRA))
    message = str(caught.value)
    assert "node 'a'" in message
    assert cause in message
    assert "export the model" in message
    assert "\n" not in message


CHAIN = f"""g (int32[N,S] ids, int32[N,S] mask) => (float[N,S,{C}] y) {{
    x, keys = com.microsoft.EmbedLayerNormalization(ids, , w, p, , g, b, mask)
    a = com.microsoft.Attention<num_heads={H}>(x, qkv, c, keys)
    d = MatMul(a, o)
    n, , , t = com.microsoft.SkipLayerNormalization(d, x, g, b, b)
    h = MatMul(n, o) e = com.microsoft.BiasGelu(h, b)
    q = com.microsoft.FusedMatMul<transB=1>(e, o) k = MatMul(n, o)
    z = com.microsoft.MultiHeadAttention<num_heads={H}>(q, k, n, , mask)
    y = com.microsoft.SkipSimplifiedLayerNormalization(z, t, g)
}}"""


def test_a_whole_model() -> None:
    """One operator after another, sizes known by name alone; on to integers without a float between."""
    proto, rng = text_model(CHAIN, 17, extra=EXTRA), np.random.default_rng(0)
    shapes = {"w": (9, C), "p": (16, C), "g": (C,), "b": (C,), "qkv": (C, 3 * C), "c": (3 * C,), "o": (C, C)}
    for name, shape in shapes.items():
        array = (rng.standard_normal(shape) / np.sqrt(C)).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    mask = (np.arange(S) < np.array([[3], [S]])).astype(np.int32)
    feeds = {"ids": rng.integers(0, 9, (B, S)).astype(np.int32), "mask": mask}
    expected = run(proto, feeds, optimize=False)[0]
    model = load(proto)
    for step in (Canonicalize(), Fuse()):
        step(model)
        np.testing.assert_allclose(run(model, feeds)[0], expected, rtol=0, atol=CLOSE)
    assert ops(model).count("MaskedAttention") == 2
    for last in (Calibrate(samples=[feeds]), InsertFakeQuant(), ToInteger(float_islands="forbid")):
        last(model)
