"""Rows with a power of two each: the operator, its float form, and MatMul of them at both levels."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import qdq_graphs as g
from hypothesis import given, settings
from hypothesis import strategies as st
from operator_checks import check
from random_nodes import check_node, random_node

from mulshift.ir import Interpreter
from mulshift.ir.operators import OPERATORS
from mulshift.passes.calibrate import Calibrate
from mulshift.passes.insert_fake_quant import InsertFakeQuant
from mulshift.passes.to_integer import ToInteger

S16, U8, S8 = np.int16, np.uint8, np.int8


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([U8, S8, S16]), st.integers(1, 40), st.integers(0, 15))
def test_body_and_reference(seed: int, dtype: Any, n: int, bits: int) -> None:
    rng = np.random.default_rng(seed)
    info = np.iinfo(dtype)
    span = min(2**bits, info.max)
    x = rng.integers(max(-span, info.min), span + 1, (3, n)).astype(dtype)
    check("RowQuantize", [x], {"x_zero_point": int(rng.integers(info.min, info.max + 1))})


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 2]))
def test_the_kernel_is_the_reference(seed: int, threads: int) -> None:
    rng = np.random.default_rng(seed)
    check_node(random_node("RowQuantize", rng), rng, threads)


def test_error_is_at_most_half_a_step_of_its_row() -> None:
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((200, 64)) * 2 ** rng.uniform(0, 13, (200, 1))).clip(-32768, 32767).astype(S16)
    q, k = OPERATORS["RowQuantize"].run({"x_zero_point": 0}, x)
    wrong = np.abs((q.astype(np.int64) - 128) * (1 << k) - x)
    top = q == 255  # 127.5 and more round to 128, which is clamped: a whole step at most
    assert (wrong <= np.where(top, 1 << k, (1 << k) / 2)).all()
    assert (np.abs(q.astype(int) - 128).max(axis=1) >= 64)[k[:, 0] > 0].all(), "no row wastes a bit"


def _model() -> ir.Model:
    body = "a = MatMul(x, w) b = MatMul(x, v) m = Add(a, b) h = MatMul(m, u) i = MatMul(m, t) y = Add(h, i)"
    text = f"(float[2,3,16] x) => (float[2,3,8] y) {{ {body} }}"
    return g.graph(
        text,
        {
            "w": g.normal(16, 12),
            "v": g.normal(16, 12, seed=1),
            "u": g.normal(12, 8, seed=2),
            "t": g.normal(12, 8, seed=3),
        },
    )


def _samples() -> list[dict[str, Any]]:
    """One token a hundred times as large as the others."""
    x = np.random.default_rng(5).standard_normal((2, 3, 16)).astype(np.float32)
    x[:, 0] *= 100
    return [{"x": x}]


def _noise(activations: str) -> tuple[float, ir.Model]:
    model = _model()
    exact = Interpreter(model).run(_samples()[0])["y"].numpy()[:, 1:]
    Calibrate(samples=_samples())(model)
    InsertFakeQuant(activations=activations)(model)
    got = Interpreter(model).run(_samples()[0])["y"].numpy()[:, 1:]
    return float(np.linalg.norm(got - exact) / np.linalg.norm(exact)), model


def test_small_tokens_beside_a_large_one() -> None:
    static, _ = _noise("static")
    rows, model = _noise("per-token")
    assert rows < static / 10, (rows, static)  # seen: 0.015 against 0.85
    assert [n.op_type for n in model.graph].count("RowQuantize") == 2, "one for w and v, one for u"


def test_integers_equal_the_simulation() -> None:
    _, model = _noise("per-token")
    simulated = Interpreter(model).run(_samples()[0])["y"].numpy()
    ToInteger(float_islands="forbid")(model)
    assert [n.op_type for n in model.graph].count("RowQuantize") == 2
    got = Interpreter(model).run(_samples()[0])["y"].numpy()
    step = np.abs(simulated).max() * 2 / 32767  # 16-bit steps of y, twice the range seen
    assert np.abs(got - simulated).max() <= 4 * step  # roundings of m, h and y at 16 bits, at most one step each


@pytest.mark.parametrize("text", ["a = MatMul(x, w) y = Add(a, o)", "y = MatMul(x, w)"])
def test_bias_and_graph_output_stay_static(text: str) -> None:
    constants = {"w": g.normal(16, 12), "o": g.normal(12)}
    model = g.graph(f"(float[2,3,16] x) => (float[2,3,12] y) {{ {text} }}", constants)
    Calibrate(samples=_samples())(model)
    InsertFakeQuant(activations="per-token")(model)
    assert "RowQuantize" not in [n.op_type for n in model.graph]
