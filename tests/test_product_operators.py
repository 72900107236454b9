"""Products with every epilogue through ONNX Runtime equal the Python reference of their operator, bit for bit.

The tests here run with the instruction set of this process; the last one runs them again with each of the others.
"""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import operator_checks
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_checks import NAME, one_node, open_session
from malformed_nodes import Draft, draft, malformed
from random_nodes import ELEMENTWISE, KERNEL_NAMES, MAIN_PRODUCT_NAMES, ROWS, check_node, random_node

from mulshift import kernels
from mulshift.ir import OPERATORS
from mulshift.ir.operators.packed import PRODUCTS, ROW_PRODUCTS

seeds = st.integers(0, 2**32 - 1)


def _check_seed(op: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    check_node(random_node(op, rng), rng, threads=1 + seed % 2)


@pytest.mark.parametrize("op", MAIN_PRODUCT_NAMES)
@settings(max_examples=4)
@given(seeds)
def test_products(op: str, seed: int) -> None:
    _check_seed(op, seed)


@pytest.mark.parametrize("op", ELEMENTWISE)
@settings(max_examples=4)
@given(seeds)
def test_elementwise_operators_of_any_size(op: str, seed: int) -> None:
    _check_seed(op, seed)


@pytest.mark.parametrize("op", ROWS)
@settings(max_examples=5)
@given(seeds)
def test_attention_softmax_and_products_of_activations(op: str, seed: int) -> None:
    _check_seed(op, seed)


@pytest.mark.slow
@pytest.mark.parametrize("op", KERNEL_NAMES)
@settings(max_examples=60)
@given(seeds)
def test_often(op: str, seed: int) -> None:
    _check_seed(op, seed)


@pytest.mark.parametrize("op", [*MAIN_PRODUCT_NAMES, *ROWS])
@settings(max_examples=1)
@given(seeds)
def test_kernels_equal_the_bodies_on_stock_onnx_runtime(op: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    node = random_node(op, rng)
    fed = node.sized(rng)
    inputs = node.inputs(fed)
    body = operator_checks.one_node(op, inputs, node.attributes, 21)
    stock = ort.InferenceSession(ir.to_proto(body).SerializeToString(), providers=["CPUExecutionProvider"])
    wanted = stock.run(None, {"i0": inputs[0]})
    kernel = open_session(one_node(op, inputs, node.attributes, [y.dtype for y in wanted], node.fed))
    for got, y in zip(kernel.run(None, {f"i{k}": v for k, v in fed.items()}), wanted, strict=True):
        assert np.array_equal(got, y)


@pytest.mark.parametrize(("wrong", "said"), [pytest.param(d, s, id=t) for t, d, s in malformed()])
def test_a_malformed_node_is_named_and_the_next_session_works(wrong: Draft, said: str) -> None:
    with pytest.raises(Exception, match=NAME) as caught:
        open_session(wrong.model()).run(None, wrong.feeds())
    assert said in str(caught.value)
    _run_good()


def _run_good() -> None:
    good = draft("ConvNhwc")
    wanted = OPERATORS[good.op].run(good.attributes, *good.inputs)
    got = open_session(good.model()).run(None, good.feeds())
    assert all(np.array_equal(g, w) for g, w in zip(got, wanted, strict=True))


@pytest.mark.parametrize("base", [*PRODUCTS, *ROW_PRODUCTS.values()])
def test_a_session_that_was_fed_a_wrong_shape_goes_on(base: str) -> None:
    d = draft(base)
    session = open_session(one_node(d.op, d.inputs, d.attributes, d.outputs, d.fed, dynamic=True))
    wrong = d.feeds()
    wrong |= {k: np.zeros(np.add(v.shape, 1), v.dtype) for k, v in wrong.items() if k != "i0"}
    wanted = OPERATORS[d.op].run(d.attributes, *d.inputs)
    for _ in range(2):
        with pytest.raises(Exception, match=NAME):
            session.run(None, wrong)
        for got, y in zip(session.run(None, d.feeds()), wanted, strict=True):
            assert np.array_equal(got, y)


@pytest.mark.skipif("MULSHIFT_ISA" in os.environ, reason="this process was told its instruction set")
@pytest.mark.parametrize("name", kernels.instruction_sets()[1:])
def test_every_other_instruction_set(name: str) -> None:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-x",
        "-p",
        "no:cacheprovider",
        "-k",
        "not malformed and not bodies",
        __file__,
    ]
    done = subprocess.run(command, env={**os.environ, "MULSHIFT_ISA": name}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
