"""fuse: cosines and sines of positions as tables, and rotary embeddings as one node, in the orders exporters write."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from float_graphs import apply, graph, ops, random, reasons

from mulshift.ir import Array
from mulshift.passes.canonicalize import Canonicalize
from mulshift.passes.fuse import Fuse

CLOSE = 1e-5
"""Of outputs of order 1: products with the same cosines, which float32 holds to 6e-8."""
ANGLES = "u=Unsqueeze(p,two) f=Cast<to=1>(u) a=Mul(f,speed) e=Concat<axis=-1>(a,a)"
LIFTED = f"{ANGLES} c=Cos(e) s=Sin(e) cos=Unsqueeze(c,one) sin=Unsqueeze(s,one)"
LIFTED_BEFORE = f"{ANGLES} g=Unsqueeze(e,one) cos=Cos(g) sin=Sin(g)"
HALVES = "x1, x2=Split<axis=-1, num_outputs=2>(x) n=Neg(x2) h=Concat<axis=-1>(n,x1)"
TURN = f"{HALVES} d=Mul(x,cos) b=Mul(h,sin) y=Add(d,b)"
SLICED = "x1=Slice(x,zero,half,last) x2=Slice(x,half,end,last) n=Neg(x2) h=Concat<axis=-1>(n,x1)"
NUMBERS = {
    "two": np.array([2]),
    "one": np.array([1]),
    "zero": np.array([0]),
    "half": np.array([4]),
    "end": np.array([2**63 - 1]),
    "last": np.array([3]),
    "speed": np.array([1, 0.5, 0.25, 0.125], np.float32),
    "wide": random((2, 5, 4), 5),
}
FORMS = {
    "axes after": f"{LIFTED} {TURN}",
    "axes before": f"{LIFTED_BEFORE} {TURN}",
    "slices": f"{LIFTED} {SLICED} d=Mul(cos,x) b=Mul(h,sin) y=Add(b,d)",
}


def built(body: str, position: str = "int64[2,5] p") -> tuple[ir.Model, dict[str, Array]]:
    words = set(body.replace("(", " ").replace(",", " ").replace(")", " ").split())
    weights = {k: v for k, v in NUMBERS.items() if k in words}
    model = graph(f"g (float[2,3,5,8] x, {position}) => (float[2,3,5,8] y) {{ {body} }}", weights)
    places = np.array([[0, 1, 2, 3, 4], [3, 4, 5, 6, 7]])
    Canonicalize()(model)
    return model, {"x": random((2, 3, 5, 8)), "p": places.astype(np.float32) if "float" in position else places}


@pytest.mark.parametrize("name", FORMS)
def test_rotary(name: str) -> None:
    """One node on tables of half the width; nothing of the arithmetic on positions is left."""
    model, feeds = built(FORMS[name])
    apply(Fuse(positions=16), model, feeds, CLOSE)
    found = [op for op in ops(model) if op not in ("Transpose", "Unsqueeze", "Squeeze")]
    assert found == ["Gather", "Gather", "RotaryEmbedding"]


LEFT = {
    "other halves": (
        f"{LIFTED} x1, x2=Split<axis=-1, num_outputs=2>(x) n=Neg(x1) h=Concat<axis=-1>(n,x2) d=Mul(x,cos) b=Mul(h,sin)"
        " y=Add(d,b)",
        "int64[2,5] p",
        "",
    ),
    "float positions": (
        f"{LIFTED.replace('f=Cast<to=1>(u)', 'f=Identity(u)')} {TURN}",
        "float[2,5] p",
        "it is no function of integer positions",
    ),
    "speeds of each position": (
        f"{LIFTED.replace('speed', 'wide')} {TURN}",
        "int64[2,5] p",
        "its constants vary over other axes than the last",
    ),
}


@pytest.mark.parametrize("name", LEFT)
def test_near_misses(name: str) -> None:
    """What is no rotary embedding, or no table, stays."""
    body, position, why = LEFT[name]
    model, feeds = built(body, position)
    step = apply(Fuse(positions=16), model, feeds, CLOSE)
    assert "RotaryEmbedding" not in ops(model)
    assert why in reasons(step)
