"""Online Hadamard transforms in integers: additions and subtractions, or a reason why not."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from float_graphs import by_ort, graph, random

from mulshift.ir import Array, Interpreter, constant, levels
from mulshift.ir.float_functions import domain_of
from mulshift.ir.levels import FLOAT_REASON, float_nodes
from mulshift.passes.calibrate import Calibrate
from mulshift.passes.hadamard import factors, hadamard, orthogonal
from mulshift.passes.insert_fake_quant import InsertFakeQuant
from mulshift.passes.rotate import Rotate
from mulshift.passes.to_integer import ToInteger

SAMPLES = [{"x": random((2, 3, 16), 10 + i, -2, 2)} for i in range(6)]


def _model(channels: int, h: Array | None = None, online: bool = True) -> ir.Model:
    """A Gelu between two products, with a transform behind it: what rotate inserts, or by `h`."""
    weights = {"w": random((16, channels), 1) / 4, "u": random((channels, 16), 2) / 4}
    built = graph("g (float[N,3,16] x) => (float[N,3,16] y) { a = MatMul(x, w) b = Gelu(a) y = MatMul(b, u) }", weights)
    if h is None and online:
        Rotate(residual=False, heads=False, online=True)(built)
        return built
    product = built.graph[2]
    node = ir.node(
        "Hadamard", [product.inputs[0], ir.Value(name="h")], domain=domain_of(built, "Hadamard"), name="turn"
    )
    node.outputs[0].name = "turned"
    node.outputs[0].type, node.outputs[0].shape = product.inputs[0].type, product.inputs[0].shape  # type: ignore
    assert h is not None
    tensor = ir.tensor(h.astype(np.float32), name="h")
    value = ir.Value(name="h", const_value=tensor, type=ir.TensorType(tensor.dtype), shape=ir.Shape(h.shape))
    built.graph.register_initializer(value)
    node.replace_input_with(1, value)
    built.graph.insert_before(product, node)
    product.replace_input_with(0, node.outputs[0])
    return built


def _lowered(built: ir.Model, **options: Any) -> ir.Model:
    made = built.clone()
    Calibrate(samples=SAMPLES)(made)
    InsertFakeQuant(**options)(made)
    ToInteger()(made)
    return made


def _turn(model: ir.Model) -> ir.Node:
    (node,) = [n for n in model.graph if n.op_type == "Hadamard"]
    return node


@pytest.mark.parametrize("channels", [8, 12, 20, 24, 40, 64, 96, 112])
def test_the_torch_row_equals_the_function(channels: int) -> None:
    built = _model(channels)
    assert _turn(built).domain == "mulshift.float"
    run = next(iter(Interpreter(built).run(SAMPLES[0]).values())).numpy()
    np.testing.assert_allclose(run, by_ort(built, SAMPLES[0])[0], rtol=0, atol=1e-5)  # sums of 112 float32 of order 1


@pytest.mark.parametrize("bits", [16, 8])
@pytest.mark.parametrize("channels", [8, 12, 24, 64, 40, 112])
def test_it_is_integer(channels: int, bits: int) -> None:
    """The base is what no Sylvester matrix divides; the output is a few steps off: five values are rounded."""
    built = _model(channels)
    h = constant(_turn(built).inputs[1])
    assert h is not None and channels % len(h) == 0
    order = len(h)
    integer = _lowered(built, residual_bits=bits)
    assert float_nodes(integer) == [] and levels.check(integer) == []
    node = _turn(integer)
    base = constant(node.inputs[1])
    assert node.domain == "mulshift" and base is not None and set(np.unique(base)) <= {-1, 1}
    assert base.shape == (factors(order)[1],) * 2 and node.attributes["block"].as_int() == order  # type: ignore[index]
    assert int(node.metadata_props["mulshift.accumulator_bound"]) < 2**31
    for sample in SAMPLES:
        (wanted,), (got,) = by_ort(built, sample), by_ort(integer, sample)
        assert np.abs(got - wanted).max() < 6 * 2 * np.abs(wanted).max() / 255
        assert np.array_equal(next(iter(Interpreter(integer).run(sample).values())).numpy(), got)


def test_the_kernels_verify_it() -> None:
    """The lowered form gives the integers of the specification."""
    from mulshift.backends import lower
    from mulshift.backends.verify import verify_integer

    integer = _lowered(_model(24))
    verify_integer(lower(integer, "onnxruntime"), integer, SAMPLES[:2])


def test_its_input_is_wide_where_the_recipe_allows() -> None:
    for bits, dtype in ((16, ir.DataType.INT16), (8, ir.DataType.UINT8)):
        x = _turn(_lowered(_model(24), residual_bits=bits)).inputs[0]
        assert x is not None and x.dtype == dtype


def test_any_factor_and_any_signs() -> None:
    """Half the transform, and one with other signs, which is its own base."""
    h = hadamard(16)
    assert h is not None
    signs = np.where(np.arange(16) % 3 == 0, -1, 1)
    for matrix, order in ((h / 2, 1), (h * signs, 16)):
        integer = _lowered(_model(16, matrix))
        base = constant(_turn(integer).inputs[1])
        assert base is not None and base.shape == (order, order)
        for sample in SAMPLES:
            (wanted,), (got,) = by_ort(_model(16, matrix), sample), by_ort(integer, sample)
            assert np.abs(got - wanted).max() < 6 * 2 * np.abs(wanted).max() / 255


@pytest.mark.parametrize(
    ("matrix", "said"),
    [
        (orthogonal(16, 0), "its matrix is not one number times 1 and -1"),
        (np.zeros((16, 16)), "its matrix is not one number times 1 and -1"),
    ],
)
def test_other_matrices_stay_float_and_say_why(matrix: Array, said: str) -> None:
    integer = _lowered(_model(16, matrix))
    node = _turn(integer)
    assert node.domain == "mulshift.float"
    assert said in node.metadata_props[FLOAT_REASON]
