"""round-weights: smaller output errors on the same grid, from rows that equal what the layer multiplies."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
import torch
from float_graphs import graph, random

from mulshift.ir import Array, DataError, Feeds, Interpreter, UsageError, constant
from mulshift.passes import round_weights
from mulshift.passes.calibrate import Calibrate
from mulshift.passes.insert_fake_quant import InsertFakeQuant
from mulshift.passes.lattice import Grid, order_columns, output_error, round_to_grid
from mulshift.passes.patches import patches
from mulshift.passes.round_weights import RoundWeights


def correlated(shape: tuple[int, ...], seed: int = 0) -> Array:
    """Channels (axis 1) that share most of their signal, as activations behind a ReLU do."""
    rng = np.random.default_rng(seed)
    common = rng.uniform(0, 1, (shape[0], 1, *shape[2:]))
    return np.asarray(common + 0.1 * rng.uniform(0, 1, shape), np.float32)


FORMS = {
    "conv": ("[N,8,7,7] x) => (float[N,6,k,m] y) { y = Conv (x, w) }", (6, 8, 3, 3), (2, 8, 7, 7)),
    "strided, padded": (
        "[N,8,7,7] x) => (float[N,6,k,m] y)"
        " { y = Conv <pads = [0, 1, 2, 1], strides = [2, 1], dilations = [1, 2]> (x, w) }",
        (6, 8, 3, 3),
        (2, 8, 7, 7),
    ),
    "same": (
        '[N,8,7,7] x) => (float[N,6,k,m] y) { y = Conv <auto_pad = "SAME_LOWER", strides = [2, 2]> (x, w) }',
        (6, 8, 2, 3),
        (2, 8, 7, 7),
    ),
    "depthwise": ("[N,8,7,7] x) => (float[N,16,k,m] y) { y = Conv <group = 8> (x, w) }", (16, 1, 3, 3), (2, 8, 7, 7)),
    "grouped": ("[N,8,7,7] x) => (float[N,6,k,m] y) { y = Conv <group = 2> (x, w) }", (6, 4, 3, 3), (2, 8, 7, 7)),
    "1-d": ("[N,8,9] x) => (float[N,6,k] y) { y = Conv <pads = [1, 0]> (x, w) }", (6, 8, 3), (2, 8, 9)),
    "3-d": ("[N,4,5,5,5] x) => (float[N,6,k,m,n] y) { y = Conv (x, w) }", (6, 4, 2, 2, 2), (2, 4, 5, 5, 5)),
    "gemm": ("[N,8] x) => (float[N,6] y) { y = Gemm (x, w) }", (8, 6), (40, 8)),
    "gemm, transposed": ("[N,8] x) => (float[N,6] y) { y = Gemm <transB = 1> (x, w) }", (6, 8), (40, 8)),
    "matmul": ("[N,3,8] x) => (float[N,3,6] y) { y = MatMul (x, w) }", (8, 6), (20, 3, 8)),
}


def build(form: str, bits: int = 4) -> tuple[ir.Model, list[Feeds]]:
    text, weight, shape = FORMS[form]
    m = graph("g (float" + text, {"w": random(weight, 3)})
    if form == "matmul":
        data = [{"x": np.swapaxes(correlated((20, 8, 3), k), 1, 2).copy()} for k in range(4)]
    else:
        data = [{"x": correlated(shape, k)} for k in range(4)]
    Calibrate(samples=data)(m)
    InsertFakeQuant(weight_bits=bits, weight_range="max")(m)  # scales that do not fit these few weights already
    return m, data


def error(m: ir.Model, text: str, weight: Array, data: list[Feeds]) -> float:
    """Squared error of the outputs from weights alone: both sides read the quantized input."""
    quantizer = next(n for n in m.graph if n.op_type == "DequantizeLinear")
    name = str(quantizer.outputs[0].name)
    total = 0.0
    exact = Interpreter(graph("g (float" + text, {"w": weight}))
    for feeds in data:
        x = Interpreter(m).run(feeds, outputs=[name])[name]
        total += float(((Interpreter(m).run(feeds)["y"] - exact.run({"x": x})["y"]) ** 2).sum())
    return total


@pytest.mark.parametrize("form", sorted(FORMS))
def test_outputs_are_closer_and_weights_are_on_the_old_grid(form: str) -> None:
    m, data = build(form)
    text, shape, _ = FORMS[form]
    weight = random(shape, 3)
    scale = constant(m.graph.initializers["w.scale"])
    before = error(m, text, weight, data)
    step = RoundWeights(samples=data, positions=10_000)
    assert step(m).modified
    # the inputs are nearly of rank one: most of the error can be moved where they have no energy
    assert error(m, text, weight, data) < 0.7 * before
    rounded = constant(m.graph.initializers["w.rounded"])
    assert rounded is not None
    assert scale is not None
    np.testing.assert_array_equal(constant(m.graph.initializers["w.scale"]), scale)
    axis = next(n for n in m.graph if n.inputs[0].name == "w.rounded").attributes["axis"].value  # type: ignore[union-attr]
    steps = np.moveaxis(rounded, axis, -1) / scale
    assert np.abs(steps - np.rint(steps)).max() < 1e-5  # one float32 product of an integer and a scale
    assert np.abs(np.rint(steps)).max() <= 7
    assert not RoundWeights(samples=data, positions=10_000)(m).modified


@pytest.mark.parametrize("form", sorted(FORMS))
def test_rows_times_weights_are_the_layer(form: str) -> None:
    text, shape, _ = FORMS[form]
    weight = random(shape, 3)
    m = graph("g (float" + text, {"w": weight})
    _, data = build(form)
    node = next(iter(m.graph))
    rows = patches(node, torch.from_numpy(data[0]["x"]), shape[2:] if node.op_type == "Conv" else (), 10**9)
    matrix = weight.T if node.op_type == "MatMul" or form == "gemm" else weight
    groups = rows.shape[0]
    w = torch.from_numpy(matrix.reshape(groups, len(matrix) // groups, -1).copy())
    y = Interpreter(m).run(data[0])["y"]
    expected = y.movedim(1, 0) if node.op_type == "Conv" else y.movedim(-1, 0)
    got = (w @ rows.transpose(1, 2)).reshape(len(matrix), -1)
    # float32 sums of up to 72 products in another order
    torch.testing.assert_close(got, expected.reshape(len(matrix), -1), rtol=0, atol=1e-5)


def test_rows_are_limited() -> None:
    m, _ = build("conv")
    node = next(n for n in m.graph if n.op_type == "Conv")
    rows = patches(node, torch.zeros(2, 8, 66, 66), (3, 3), 100)
    assert 25 <= rows.shape[1] <= 100


def test_blocks_of_inputs_are_rounded_on_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(round_weights, "BLOCK", 20)
    m, data = build("conv")
    before = error(m, FORMS["conv"][0], random((6, 8, 3, 3), 3), data)
    RoundWeights(samples=data)(m)
    assert error(m, FORMS["conv"][0], random((6, 8, 3, 3), 3), data) < before


def test_it_stops_when_it_has_seen_enough() -> None:
    m, data = build("conv")
    seen: list[int] = []
    RoundWeights(samples=data, max_samples=3, progress=lambda done, total: seen.append(done))(m)
    assert seen == [1, 2]  # two rows of the batch axis each


def test_a_layer_with_float_weights_is_left_alone() -> None:
    m = graph("g (float[2,8] x) => (float[2,6] y) { y = Gemm (x, w) }", {"w": random((8, 6))})
    assert not RoundWeights()(m).modified


def test_transposed_convolutions_keep_their_rounding() -> None:
    m = graph("g (float[1,4,5,5] x) => (float[1,6,7,7] y) { y = ConvTranspose (x, w) }", {"w": random((4, 6, 3, 3))})
    data = [{"x": random((1, 4, 5, 5))}]
    Calibrate(samples=data)(m)
    InsertFakeQuant()(m)
    assert not RoundWeights(samples=data)(m).modified


def test_weights_shared_by_two_layers_serve_both() -> None:
    text = "g (float[N,8] x) => (float[N,8] y) { h = Gemm (x, w) r = Relu (h) y = Gemm (r, w) }"
    m = graph(text, {"w": random((8, 8), 3)})
    data = [{"x": correlated((40, 8))}]
    Calibrate(samples=data)(m)
    InsertFakeQuant(weight_bits=4)(m)
    step = RoundWeights(samples=data)
    step(m)
    assert len(step.log.changed) == 1
    assert len([n for n in m.graph if n.op_type == "QuantizeLinear" and n.inputs[0].name == "w.rounded"]) == 1  # type: ignore[union-attr]


def test_an_input_that_is_always_zero_costs_nothing() -> None:
    m, _ = build("depthwise")
    data = [{"x": correlated((2, 8, 7, 7)) * (np.arange(8) != 3).astype(np.float32)[:, None, None]}]
    RoundWeights(samples=data)(m)
    assert np.isfinite(constant(m.graph.initializers["w.rounded"])).all()  # type: ignore[arg-type]


def test_bad_samples_and_options_get_one_line() -> None:
    with pytest.raises(DataError, match="holds no sample"):
        RoundWeights()(build("conv")[0])
    with pytest.raises(DataError, match="'x' has type"):
        RoundWeights(samples=[{"x": np.zeros((2, 8, 7, 7))}])(build("conv")[0])
    with pytest.raises(UsageError):
        RoundWeights(max_samples=0)(build("conv")[0])


def test_it_is_close_to_the_best_of_all_roundings() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        w = torch.from_numpy(rng.uniform(-3, 3, (1, 1, 4)))
        x = rng.uniform(0, 1, (4, 1)) + 0.2 * rng.uniform(0, 1, (4, 50))
        energy = torch.from_numpy(x @ x.T)[None]
        order = order_columns(energy, 1e-6)
        assert order is not None
        found = round_to_grid(w, order, torch.ones(1, 1, dtype=torch.float64), Grid(-7, 7))
        corners = torch.cartesian_prod(*(torch.arange(-2.0, 3.0, dtype=torch.float64) for _ in range(4)))
        every = (w.round() + corners[None]).clamp(-7, 7)
        best = float(output_error(w - every, energy).min())
        nearest = float(output_error(w - w.round(), energy))
        assert float(output_error(w - found, energy)) <= max(nearest, 4 * best + 1e-9)


def test_without_correlation_it_is_rounding_to_nearest() -> None:
    w = torch.from_numpy(np.random.default_rng(0).uniform(-3, 3, (2, 5, 6)))
    eye = torch.eye(6, dtype=torch.float64).expand(2, 6, 6)
    order = order_columns(eye, 0.01)
    assert order is not None
    assert torch.equal(round_to_grid(w, order, torch.ones(2, 5, dtype=torch.float64), Grid(-7, 7)), w.round())


def test_an_energy_without_data_is_refused() -> None:
    assert order_columns(torch.zeros(1, 3, 3, dtype=torch.float64), 0.01) is None
