"""fuse: attention as exporters write it, every mask they use, and what only looks like attention."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from float_graphs import apply, by_ort, graph, ops, random, reasons

from mulshift.ir import Array, Interpreter, attribute
from mulshift.passes.canonicalize import Canonicalize
from mulshift.passes.fuse import Fuse

B, M, N, H, D = 2, 5, 6, 4, 8
CLOSE = 1e-5
"""Of outputs of order 1: a few float32 sums of 8 products in another order."""

LOW = np.asarray(np.finfo(np.float32).min)
CAUSAL = np.tril(np.ones((M, N), bool), N - M)
NUMBERS: dict[str, Array] = {
    "zero": np.zeros((), np.float32),
    "one": np.ones((), np.float32),
    "low": LOW,
    "inf": np.asarray(-np.inf, np.float32),
    "big": np.asarray(-10000, np.float32),
    "mild": np.asarray(-5, np.float32),
    "root": np.asarray(D**0.5, np.float32),
    "rc": np.asarray(D**-0.25, np.float32),
    "c": np.asarray(D**-0.5, np.float32),
    "a1": np.array([1]),
    "a2": np.array([2]),
    "a12": np.array([1, 2]),
    "causal": np.where(CAUSAL, 0, LOW)[None, None].astype(np.float32),
    "causal2": np.where(CAUSAL, 0, -np.inf).astype(np.float32),
    "past": CAUSAL,
    "bias": random((1, H, M, N), 9),
    "s3": np.array([-1, N, D]),
    "s4": np.array([B, H, D, N]),
    "s5": np.array([B, 2, 2, N, D]),
    "s4r": np.array([B, H, N, D]),
}
Q = "qt=Transpose<perm=[0,2,1,3]>(q)"
K = "kt=Transpose<perm=[0,2,3,1]>(k)"
V = "vt=Transpose<perm=[0,2,1,3]>(v)"
HEADS = f"{Q} {K} {V} s=MatMul(qt,kt)"
MIX = "p=Softmax<axis=-1>(z) o=MatMul(p,vt) y=Transpose<perm=[0,2,1,3]>(o)"
SHARED = """kh=Transpose<perm=[0,2,1,3]>(k) vh=Transpose<perm=[0,2,1,3]>(v) ku=Unsqueeze(kh,a2) vu=Unsqueeze(vh,a2)
    ke=Expand(ku,s5) ve=Expand(vu,s5) kr=Reshape(ke,s4r) vt=Reshape(ve,s4r)"""
KEYS, BOTH = f"bool[{B},{N}] m", f"bool[{B},1,{M},{N}] m"

FORMS: dict[str, tuple[str, str, str]] = {
    "scale after": ("", f"{HEADS} z=Div(s,root) {MIX}", "Attention"),
    "no scale": ("", f"{HEADS} z=Identity(s) {MIX}", "Attention"),
    "scale on q": ("", f"{Q} {K} {V} qs=Mul(c,qt) z=MatMul(qs,kt) {MIX}", "Attention"),
    "BERT, eager": (KEYS, f"{HEADS} d=Mul(s,c) u=Unsqueeze(m,a12) w=Where(u,zero,low) z=Add(d,w) {MIX}", "Masked"),
    "BERT, 1 - m": (
        f"int64[{B},{N}] m",
        f"{HEADS} d=Div(s,root) u=Unsqueeze(m,a12) f=Cast<to=1>(u) r=Sub(one,f) w=Mul(r,big) z=Add(w,d) {MIX}",
        "Masked",
    ),
    "BERT, lowest": (
        f"int64[{B},{N}] m",
        f"""{HEADS} d=Div(s,root) u=Unsqueeze(m,a12) f=Cast<to=1>(u) r=Sub(one,f) b=Cast<to=9>(r) w=Where(b,low,r)
        z=Add(d,w) {MIX}""",
        "Masked",
    ),
    "SDPA": (
        "",
        f"""{Q} {V} qs=Mul(qt,rc) kh=Transpose<perm=[0,2,1,3]>(k) kf=Reshape(kh,s3) kg=Transpose<perm=[0,2,1]>(kf)
        kt=Reshape(kg,s4) ks=Mul(kt,rc) z=MatMul(qs,ks) p=Softmax<axis=-1>(z) n=IsNaN(p) w=Where(n,zero,p)
        o=MatMul(w,vt) y=Transpose<perm=[0,2,1,3]>(o)""",
        "Attention",
    ),
    "SDPA, mask": (
        BOTH,
        f"""{Q} {V} qs=Mul(qt,rc) kt=Transpose<perm=[0,2,3,1]>(k) ks=Mul(kt,rc) s=MatMul(qs,ks) b=Where(m,zero,inf)
        z=Add(s,b) p=Softmax<axis=-1>(z) n=IsNaN(p) w=Where(n,zero,p) o=MatMul(w,vt) y=Transpose<perm=[0,2,1,3]>(o)""",
        "Masked",
    ),
    "causal": ("", f"{HEADS} d=Mul(s,c) z=Add(d,causal) {MIX}", "Masked"),
    "causal, two axes": ("", f"{HEADS} d=Mul(s,c) z=Add(causal2,d) {MIX}", "Masked"),
    "Where, true attends": (BOTH, f"{HEADS} d=Mul(s,c) z=Where(m,d,low) {MIX}", "Masked"),
    "Where, false attends": (BOTH, f"{HEADS} d=Mul(s,c) z=Where(m,inf,d) {MIX}", "Masked"),
    "Not": (KEYS, f"{HEADS} u=Unsqueeze(m,a12) n=Not(u) w=Where(n,inf,zero) z=Add(s,w) {MIX}", "Masked"),
    "And": (KEYS, f"{HEADS} u=Unsqueeze(m,a12) n=And(u,past) w=Where(n,zero,low) z=Add(s,w) {MIX}", "Masked"),
    "Add": (KEYS, f"{HEADS} u=Unsqueeze(m,a12) n=Where(u,zero,low) w=Add(n,causal2) z=Add(s,w) {MIX}", "Masked"),
    "Min": (KEYS, f"{HEADS} u=Unsqueeze(m,a12) n=Where(u,zero,low) w=Min(n,causal2) z=Add(s,w) {MIX}", "Masked"),
    "one after another": (KEYS, f"{HEADS} u=Unsqueeze(m,a12) d=Where(u,s,low) z=Add(d,causal) {MIX}", "Masked"),
    "Where of a mask": (KEYS, f"{HEADS} u=Unsqueeze(m,a12) w=Where(u,causal,low) z=Add(s,w) {MIX}", "Masked"),
    "flag, m - 1": (
        KEYS,
        f"{HEADS} u=Unsqueeze(m,a12) f=Cast<to=1>(u) r=Sub(f,one) g=Neg(r) w=Mul(g,low) z=Add(s,w) {MIX}",
        "Masked",
    ),
    "flag, expanded": (
        KEYS,
        f"""{HEADS} u=Unsqueeze(m,a12) e=Constant<value_ints=[1,1,{M},1]>() x=Expand(u,e) f=Cast<to=1>(x) r=Sub(one,f)
        w=Mul(r,low) z=Add(s,w) {MIX}""",
        "Masked",
    ),
}  # fmt: skip


def build(inputs: str, body: str, groups: int = H, outputs: str = f"float[{B},{M},{H},{D}] y") -> ir.Model:
    words = set(body.replace("(", " ").replace(",", " ").replace(")", " ").split())
    given = f"float[{B},{M},{H},{D}] q, float[{B},{N},{groups},{D}] k, float[{B},{N},{groups},{D}] v"
    text = f"g ({given}{', ' if inputs else ''}{inputs}) => ({outputs}) {{ {body} }}"
    return graph(text, {k: v for k, v in NUMBERS.items() if k in words})


def feeds(model: ir.Model) -> dict[str, Array]:
    """Random ones; of every row of a mask the first key counts, others by chance."""
    made: dict[str, Array] = {}
    for i, value in enumerate(model.graph.inputs):
        shape = tuple(int(d) for d in value.shape or ())  # type: ignore[arg-type]
        array: Array = random(shape, i, -2, 2)
        if value.dtype != ir.DataType.FLOAT:
            array = array > 0
            array[..., 0] = True
            assert value.dtype is not None
            array = array.astype(value.dtype.numpy())
        made[str(value.name)] = array
    return made


def check_names(model: ir.Model) -> None:
    values = [v.name for n in model.graph for v in n.outputs] + list(model.graph.initializers)
    assert len(set(values)) == len(values)
    assert len({n.name for n in model.graph}) == len(model.graph)


@pytest.mark.parametrize("name", FORMS)
def test_found(name: str) -> None:
    """One node on what the projections write, the scale in it, the mask boolean; the numbers hold in both runners."""
    inputs, body, kind = FORMS[name]
    model = build(inputs, body)
    values = feeds(model)
    if name == "Where, false attends":
        values["m"] = ~values["m"]
    if name == "Not":
        values["m"][:, 0] = False
        values["m"] = ~(~values["m"] | (np.arange(N) == 0))
    Canonicalize()(model)
    step = apply(Fuse(), model, values, CLOSE)
    found = ops(model)
    kind = "MaskedAttention" if kind == "Masked" else kind
    assert found.count(kind) == 1, reasons(step)
    assert {"Softmax", "MatMul", "IsNaN", "Reshape", "Add", "Mul", "Sub"}.isdisjoint(found)
    node = next(n for n in model.graph if n.op_type == kind)
    scaled = any(number in body for number in ("root", "rc", ",c)", "(c,"))
    assert attribute(node, "scale") == pytest.approx(D**-0.5 if scaled else 1.0, rel=1e-6)
    assert [v.name for v in node.inputs[:3] if v is not None] == ["q", "k", "v"]
    assert "Transpose" not in found
    if kind == "MaskedAttention":
        assert node.inputs[3] is not None and node.inputs[3].dtype == ir.DataType.BOOL
    check_names(model)


def test_shared_heads() -> None:
    """Keys and values repeated for the heads of their group: the repeats go."""
    body = f"{Q} {SHARED} kt=Transpose<perm=[0,1,3,2]>(kr) s=MatMul(qt,kt) z=Mul(s,c) {MIX}"
    model = build("", body, groups=2)
    Canonicalize()(model)
    apply(Fuse(), model, feeds(model), CLOSE)
    assert ops(model) == ["Attention"]


@pytest.mark.parametrize("mask", ["", "z=Add(d,causal2)", "z=Where(m,d,low)", "z=Where(m2,d,low)"])
def test_one_head(mask: str) -> None:
    """Three axes: a head is added and taken away again."""
    inputs = [f"float[{B},{M},{D}] q, float[{B},{N},{D}] k, float[{B},{N},{D}] v"]
    inputs += [f"bool[{B},{M},{N}] m"] if "(m," in mask else [f"bool[{M},{N}] m2"] if "(m2," in mask else []
    body = f"""kt=Transpose<perm=[0,2,1]>(k) s=MatMul(q,kt) d=Mul(s,c) {mask or "z=Identity(d)"} p=Softmax(z)
        y=MatMul(p,v)"""
    weights = {k: v for k, v in NUMBERS.items() if f",{k})" in body}
    model = graph(f"g ({', '.join(inputs)}) => (float[{B},{M},{D}] y) {{ {body} }}", weights)
    Canonicalize()(model)
    apply(Fuse(), model, feeds(model), CLOSE)
    assert ops(model).count("MaskedAttention" if mask else "Attention") == 1
    assert "Softmax" not in ops(model)


LEFT: dict[str, tuple[str, str, str, str]] = {
    "bias of positions": ("", f"{HEADS} z=Add(s,bias) {MIX}", "", "'bias' is added to its scores and is no mask"),
    "computed bias": (
        f"float[1,{H},{M},{N}] r",
        f"{HEADS} z=Add(s,r) {MIX}",
        "",
        "'r' is added to its scores and is no mask",
    ),
    "mild mask": (
        KEYS,
        f"{HEADS} u=Unsqueeze(m,a12) f=Cast<to=1>(u) r=Sub(one,f) w=Mul(r,mild) z=Add(s,w) {MIX}",
        "",
        "'w' is added to its scores and is no mask",
    ),
    "mask and bias": (
        KEYS,
        f"{HEADS} u=Unsqueeze(m,a12) w=Where(u,bias,low) z=Add(s,w) {MIX}",
        "",
        "'w' is added to its scores and is no mask",
    ),
    "another axis": (
        "",
        f"{HEADS} p=Softmax<axis=1>(s) o=MatMul(p,vt) y=Transpose<perm=[0,2,1,3]>(o)",
        "",
        "the softmax runs over another axis than the last",
    ),
    "scores read elsewhere": ("", f"{HEADS} z=Mul(s,c) {MIX}", f", float[{B},{H},{M},{N}] s", "one of its two"),
    "shares read elsewhere": ("", f"{HEADS} z=Mul(s,c) {MIX}", f", float[{B},{H},{M},{N}] p", "one of its two"),
    "keys not transposed": (
        f"float[{B},{H},{D},{N}] t",
        f"{Q} {V} z=MatMul(qt,t) {MIX}",
        "",
        "its keys are no transposed matrix",
    ),
    "scale of a head": (
        f"float[1,{H},1,1] t",
        f"{HEADS} z=Mul(s,t) {MIX}",
        "",
        "one of its two products of activations is missing",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LEFT)
def test_left_alone(name: str) -> None:
    """What is no attention stays MatMul, Softmax, MatMul, and the log says what was not recognized."""
    inputs, body, outputs, why = LEFT[name]
    model = build(inputs, body, outputs=f"float[{B},{M},{H},{D}] y{outputs}")
    Canonicalize()(model)
    before = ops(model)
    step = apply(Fuse(), model, feeds(model), CLOSE)
    assert ops(model) == before
    assert why in reasons(step)


def test_nothing_attended() -> None:
    """A row without keys gives 0, in both runners."""
    inputs, body, _ = FORMS["SDPA, mask"]
    model = build(inputs, body)
    values = feeds(model)
    values["m"][1, 0, 2] = False
    apply(Fuse(), model, values, CLOSE)
    for y in (by_ort(model, values)[0], next(iter(Interpreter(model).run(values).values())).numpy()):
        assert not y[1, 2].any()
        assert y[1, 1].any()


def test_two_layers_share_a_mask() -> None:
    """Names stay unique, and the boolean mask is written once after canonicalize."""
    layer = """qt{0}=Transpose<perm=[0,2,1,3]>({1}) s{0}=MatMul(qt{0},kt) d{0}=Mul(s{0},c) z{0}=Add(d{0},w)
        p{0}=Softmax(z{0}) o{0}=MatMul(p{0},vt) {2}=Transpose<perm=[0,2,1,3]>(o{0})"""
    mask = "u=Unsqueeze(m,a12) f=Cast<to=1>(u) r=Sub(one,f) w=Mul(r,big)"
    model = build(f"int64[{B},{N}] m", f"{K} {V} {mask} {layer.format(1, 'q', 'x')} {layer.format(2, 'x', 'y')}")
    Canonicalize()(model)
    apply(Fuse(), model, feeds(model), CLOSE)
    check_names(model)
    assert ops(model).count("MaskedAttention") == 2
    masks = {n.inputs[3] for n in model.graph if n.op_type == "MaskedAttention"}
    assert len(masks) == 1
