"""fuse: every way to write an activation, a normalization or a softmax that exporters use, and their near misses."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from float_graphs import apply, graph, ops, random, reasons
from torch import Tensor, nn

from mulshift.ir import Array, attribute, load, origin
from mulshift.passes.canonicalize import Canonicalize
from mulshift.passes.fuse import Fuse

X = random((2, 3, 8), 1, -6, 6)


def _number(x: float) -> Array:
    return np.asarray(x, np.float32)


C = {
    "half": 0.5, "one": 1.0, "two": 2.0, "three": 3.0, "six": 6.0, "zero": 0.0, "root2": 1.41421356, "inv": 0.70710678,
    "k": 0.7978845608, "c": 0.044715, "q": 1.702, "sixth": 1 / 6, "tenth": 0.1, "minus": -1.0, "hundred": 100.0,
}  # fmt: skip

FORMS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "gelu, torch": ("a=Div(x,root2) b=Erf(a) d=Add(b,one) e=Mul(x,d) y=Mul(e,half)", "Gelu", {}),
    "gelu, half first": ("h=Mul(half,x) a=Mul(x,inv) b=Erf(a) d=Add(one,b) y=Mul(d,h)", "Gelu", {}),
    "gelu, tanh, Pow": (
        "p=Pow(x,three) a=Mul(p,c) b=Add(x,a) d=Mul(b,k) t=Tanh(d) u=Add(t,one) h=Mul(x,half) y=Mul(h,u)",
        "Gelu",
        {"approximate": "tanh"},
    ),
    "gelu, tanh, products": (
        "s=Mul(x,x) p=Mul(s,x) a=Mul(c,p) b=Add(a,x) d=Mul(k,b) t=Tanh(d) u=Add(one,t) v=Mul(x,u) y=Mul(half,v)",
        "Gelu",
        {"approximate": "tanh"},
    ),
    "silu": ("s=Sigmoid(x) y=Mul(x,s)", "Swish", {"alpha": 1.0}),
    "silu, exp": ("n=Neg(x) e=Exp(n) d=Add(one,e) y=Div(x,d)", "Swish", {"alpha": 1.0}),
    "quick gelu": ("m=Mul(x,q) s=Sigmoid(m) y=Mul(s,x)", "Swish", {"alpha": 1.702}),
    "hard swish": ("a=Add(x,three) b=Clip(a,zero,six) d=Mul(x,b) y=Div(d,six)", "HardSwish", {}),
    "hard swish, sixth": ("a=Add(three,x) b=Clip(a,zero,six) d=Mul(b,sixth) y=Mul(d,x)", "HardSwish", {}),
    "hard swish, gate": ("b=HardSigmoid<alpha=0.16666667>(x) y=Mul(x,b)", "HardSwish", {}),
    "hard sigmoid": (
        "a=Add(x,three) b=Relu(a) d=Min(b,six) y=Div(d,six)",
        "HardSigmoid",
        {"alpha": 1 / 6, "beta": 0.5},
    ),
    "mish": ("s=Softplus(x) t=Tanh(s) y=Mul(x,t)", "Mish", {}),
    "mish, log": ("e=Exp(x) a=Add(e,one) l=Log(a) t=Tanh(l) y=Mul(x,t)", "Mish", {}),
    "sigmoid": ("n=Mul(x,minus) e=Exp(n) d=Add(e,one) y=Reciprocal(d)", "Sigmoid", {}),
    "softplus": ("e=Exp(x) a=Add(e,one) y=Log(a)", "Softplus", {}),
    "leaky": ("m=Mul(x,tenth) y=Max(x,m)", "LeakyRelu", {"alpha": 0.1}),
    "leaky, where": ("g=Greater(x,zero) m=Mul(x,tenth) y=Where(g,x,m)", "LeakyRelu", {"alpha": 0.1}),
    "elu": ("g=Greater(x,zero) e=Exp(x) d=Sub(e,one) y=Where(g,x,d)", "Elu", {"alpha": 1.0}),
    "relu": ("y=Max(x,zero)", "Relu", {}),
    "relu, clip": ("y=Clip(x,zero)", "Relu", {}),
    "relu6": ("r=Relu(x) y=Min(r,six)", "Clip", {}),
    "relu6, max": ("r=Min(x,six) y=Max(r,zero)", "Clip", {}),
    "clip of clip": ("r=Clip(x,zero,hundred) y=Clip(r,minus,six)", "Clip", {}),
}


@pytest.mark.parametrize("name", FORMS)
def test_activations_are_found(name: str) -> None:
    """One node, its parameters, the origins of all; the numbers hold in both runners."""
    body, op, attributes = FORMS[name]
    weights = {
        k: _number(v) for k, v in C.items() if k in body.replace("(", " ").replace(",", " ").replace(")", " ").split()
    }
    model = graph(f"g (float[N,3,8] x) => (float[N,3,8] y) {{ {body} }}", weights)
    names = {n for node in model.graph for n in origin(node)}
    apply(Fuse(), model, {"x": X}, tolerance=2e-5)  # the recognizer's own limit: constants are given to 8 digits
    assert ops(model) == [op]
    node = model.graph.node(0)
    for key, value in attributes.items():
        assert attribute(node, key) == (value if isinstance(value, str) else pytest.approx(value, rel=1e-5))
    assert set(origin(node)) == names
    assert set(model.graph.initializers) == ({"y.min", "y.max"} if op == "Clip" else set())


NEAR = {
    "another constant": "a=Div(x,two) b=Erf(a) d=Add(b,one) e=Mul(x,d) y=Mul(e,half)",
    "two tensors": "s=Sigmoid(x) r=Tanh(x) t=Transpose(r) u=Transpose(t) y=Mul(u,s)",
    "clip at 100": "y=Clip(x,zero,hundred)",
    "scaled relu": "r=Relu(x) y=Mul(r,half)",
    "affine and clip": "m=Mul(x,tenth) a=Add(m,half) y=Clip(a,zero,one)",
}


@pytest.mark.parametrize("name", NEAR)
def test_near_misses_are_left(name: str) -> None:
    """What is almost a function is not that function."""
    weights = {k: _number(v) for k, v in C.items() if f",{k})" in NEAR[name] or f",{k}," in NEAR[name]}
    model = graph(f"g (float[N,3,8] x) => (float[N,3,8] y) {{ {NEAR[name]} }}", weights)
    before = ops(model)
    apply(Fuse(), model, {"x": X})
    assert ops(model) == [op.replace("Div", "Mul") for op in before]


def test_read_inside() -> None:
    """A gate that something else reads stays, and the log says so."""
    model = graph("g (float[N,3,8] x) => (float[N,3,8] y, float[N,3,8] s) { s=Sigmoid(x) y=Mul(x,s) }")
    step = apply(Fuse(), model, {"x": X})
    assert ops(model) == ["Sigmoid", "Mul"]
    assert "'s' inside it is read elsewhere" in reasons(step)


def test_broadcast_constant_is_no_activation() -> None:
    """A constant that adds an axis is not elementwise."""
    model = graph("g (float[8] x) => (float[1,8] y) { y=Max(x,z) }", {"z": np.zeros((1, 1), np.float32)})
    apply(Fuse(), model, {"x": X[0, 0]})
    assert ops(model) == ["Max"]


W = {
    "w": random((8,), 2, 0.5, 1.5),
    "b": random((8,), 3),
    "eps": _number(1e-5),
    "two": _number(2.0),
    "ax": np.array([-1]),
}
MEAN = "m=ReduceMean(x,ax) d=Sub(x,m)"
NORMS: dict[str, tuple[str, list[str]]] = {
    "layer norm, torch": (
        f"{MEAN} p=Pow(d,two) v=ReduceMean(p,ax) e=Add(v,eps) s=Sqrt(e) n=Div(d,s) k=Mul(n,w) y=Add(k,b)",
        ["LayerNormalization"],
    ),
    "layer norm, reciprocal": (
        f"{MEAN} p=Mul(d,d) v=ReduceMean(p,ax) e=Add(eps,v) s=Sqrt(e) r=Reciprocal(s) n=Mul(r,d) k=Mul(w,n) y=Add(b,k)",
        ["LayerNormalization"],
    ),
    "layer norm, plain": (
        f"{MEAN} p=Mul(d,d) v=ReduceMean(p,ax) e=Add(v,eps) s=Sqrt(e) y=Div(d,s)",
        ["LayerNormalization"],
    ),
    "rms norm": (
        "p=Pow(x,two) v=ReduceMean(p,ax) e=Add(v,eps) s=Sqrt(e) r=Reciprocal(s) n=Mul(x,r) y=Mul(w,n)",
        ["RMSNormalization"],
    ),
    "softmax": ("m=ReduceMax(x,ax) d=Sub(x,m) e=Exp(d) s=ReduceSum(e,ax) y=Div(e,s)", ["Softmax"]),
    "softmax, no maximum": ("e=Exp(x) s=ReduceSum(e,ax) y=Div(e,s)", ["Softmax"]),
    "sums over two axes": ("e=Exp(x) s=ReduceSum(e) y=Div(e,s)", ["Exp", "ReduceSum", "Reciprocal", "Mul"]),
    "another axis": (
        "m=ReduceMean(x,ax) d=Sub(x,m) p=Mul(d,d) v=ReduceMean(p,first) e=Add(v,eps) s=Sqrt(e) y=Div(d,s)",
        ["ReduceMean", "Sub", "Mul", "ReduceMean", "Add", "Sqrt", "Div"],
    ),
    "more axes": (
        "m=ReduceMean(x,ax) d=Sub(x,m) p=Mul(d,d) v=ReduceMean(p,both) e=Add(v,eps) s=Sqrt(e) y=Div(d,s)",
        ["ReduceMean", "Sub", "Mul", "ReduceMean", "Add", "Sqrt", "Reciprocal", "Mul"],
    ),
}


@pytest.mark.parametrize("opset", [21, 23])
@pytest.mark.parametrize("name", NORMS)
def test_normalizations_and_softmax(name: str, opset: int) -> None:
    """Found with their scale and bias; means over other axes are declined."""
    body, expected = NORMS[name]
    words = body.replace("(", " ").replace(",", " ").replace(")", " ").split()
    weights = {k: v for k, v in (W | {"first": np.array([1]), "both": np.array([1, 2])}).items() if k in words}
    model = graph(f"g (float[N,3,8] x) => (float[N,3,8] y) {{ {body} }}", weights, opset)
    step = apply(Fuse(), model, {"x": X})
    assert ops(model) == expected
    if name in ("sums over two axes", "another axis", "more axes"):
        assert reasons(step)


def test_products() -> None:
    """Division by a constant and the square."""
    weights = {"c": random((8,), 2, 0.5, 2), "two": _number(2.0)}
    model = graph("g (float[N,3,8] x) => (float[N,3,8] y) { d=Div(x,c) y=Pow(d,two) }", weights)
    apply(Fuse(), model, {"x": X})
    assert ops(model) == ["Mul", "Mul"]


def test_no_division_by_zero() -> None:
    """Infinity is the model's business."""
    model = graph("g (float[N,3,8] x) => (float[N,3,8] y) { y=Div(x,c) }", {"c": np.zeros(8, np.float32)})
    step = Fuse()
    step(model)
    assert ops(model) == ["Div"]
    assert "divides by 0" in reasons(step)


class Block(nn.Module):
    """Attention with a mask, RMS norm and SwiGLU, written out."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(8, 8) for _ in range(3))
        self.up, self.gate, self.down = nn.Linear(8, 16), nn.Linear(8, 16), nn.Linear(16, 8)
        self.weight = nn.Parameter(torch.linspace(0.5, 1.5, 8))

    def forward(self, x: Tensor) -> Tensor:
        n = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.weight
        scores = self.q(n) @ self.k(n).transpose(-1, -2) / 8**0.5
        scores = scores + torch.full(scores.shape[-2:], -1e4).triu(1)
        x = x + scores.softmax(-1) @ self.v(n)
        return x + self.down(self.up(x) * nn.functional.silu(self.gate(x)))


def test_transformer_block() -> None:
    """What a torch exporter writes: norm, attention and SiLU are found; Sequential works."""
    torch.manual_seed(0)
    module, x = Block().eval(), torch.randn(2, 5, 8)
    model = load(module, (x,))
    result = ir.passes.Sequential(Canonicalize(), Fuse())(model)
    assert result.modified
    found = ops(model)
    assert found.count("Swish") == 1
    assert found.count("RMSNormalization") == 1
    assert {"Sqrt", "Pow", "Sigmoid", "Reciprocal"}.isdisjoint(found)
    assert found.count("MaskedAttention") == 1
    assert "Softmax" not in found
    apply(Fuse(), model, {str(model.graph.inputs[0].name): x.numpy()})
    expected = module(x).detach().numpy()
    from mulshift.ir import Interpreter

    got = next(iter(Interpreter(model).run({str(model.graph.inputs[0].name): x.numpy()}).values())).numpy()
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5)  # values of order 1, a few float32 sums of 16
