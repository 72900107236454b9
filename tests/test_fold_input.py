"""fold-input: uint8 pixels in, one integer Affine (or none), the same function."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
import qdq_graphs as g

import mulshift
from mulshift.image_input import ImageInput
from mulshift.ir import Array, Level, UsageError
from mulshift.ir.text import show
from mulshift.passes.fold_bn import FoldBn
from mulshift.passes.fold_input import FoldInput

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
RECIPE = {"name": "plain", "passes": [{"pass": p} for p in ("calibrate", "insert-fake-quant", "to-integer")]}


def net(pads: int = 1, shape: str = "N, 3, 8, 8", kind: str = "float") -> ir.Model:
    """Conv, Relu, Conv on an image."""
    text = f"""({kind}[{shape}] x) => (float y) {{
      h = Conv<pads=[{pads},{pads},{pads},{pads}]>(x, w, b)
      r = Relu(h)
      y = Conv(r, v)
    }}"""
    constants = {"w": g.normal(8, 3, 3, 3, seed=1), "b": g.normal(8, seed=2), "v": g.normal(4, 8, 3, 3, seed=3)}
    return g.graph(text, constants)


def pixels(count: int = 2, seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(0, 256, (count, 3, 8, 8)).astype(np.uint8)


def real(image: Array, mean: tuple[float, ...] = MEAN, std: tuple[float, ...] = STD) -> Array:
    m, s = (np.asarray(v, np.float64).reshape(1, -1, 1, 1) for v in (mean, std))
    return ((image / 255 - m) / s).astype(np.float32)


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize(("mean", "std"), [(MEAN, STD), ((0.5,), (0.25,)), ((0.0,), (1.0,)), (MEAN, (1.0,))])
def test_same_function_of_pixels(layout: str, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    before, after = net(), net()
    FoldInput(mean, std, layout=layout)(after)
    p = pixels()
    fed = p.transpose(0, 2, 3, 1) if layout == "nhwc" else p
    expected = g.ort_values(before, {"x": real(p, mean, std)})["y"]
    found = g.ort_values(after, {"x": np.ascontiguousarray(fed)})["y"]
    # float32: a * p + b rounds twice where (p * scale - mean) / std rounds three times
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * float(np.abs(expected).max()))


def test_golden() -> None:
    model = net()
    FoldInput(MEAN, STD, layout="nhwc")(model)
    lines = [line.strip() for line in show(model, elide=True, metadata=False).splitlines()]
    assert [line for line in lines if "%x" in line] == [
        'graph "g"(%x: u8[N,8,8,3]) -> (%y) {',
        "%x.mul.constant = f32[1,3,1,1] {numbers}".format(numbers=_numbers(lines, "%x.mul.constant")),
        "%x.add.constant = f32[1,3,1,1] {numbers}".format(numbers=_numbers(lines, "%x.add.constant")),
        "%x.transpose: u8[N,3,8,8] = Transpose(%x) {perm=[0, 3, 1, 2]} // x.transpose",
        "%x.cast: f32[N,3,8,8] = Cast(%x.transpose) {to=1} // x.cast",
        "%x.mul: f32[N,3,8,8] = Mul(%x.cast, %x.mul.constant) // x.mul",
        "%x.add: f32[N,3,8,8] = Add(%x.mul, %x.add.constant) // x.add",
        next(line for line in lines if "Conv(%x.add" in line),
    ]


def _numbers(lines: list[str], name: str) -> str:
    return next(line.split("] ", 1)[1] for line in lines if line.startswith(f"{name} = "))


def test_second_run_changes_nothing() -> None:
    model = net()
    FoldInput(MEAN, STD)(model)
    text, again = show(model), FoldInput(MEAN, STD)
    assert not again(model).modified
    assert show(model) == text
    assert again.log.skipped[0].what == "it takes uint8 already"


def test_neutral_numbers_leave_only_a_cast() -> None:
    model = net()
    FoldInput((0.0,), (1.0,), scale=1.0)(model)
    assert g.operators(model) == ["Cast", "Conv", "Relu", "Conv"]


def test_other_inputs_and_readers_stay() -> None:
    text = "(float[1,3,4,4] a, float[1,3,4,4] x, float[2,3] c) => (float y, float z) { y = Add(a, x) z = Relu(x) }"
    model = g.graph(text)
    with pytest.raises(UsageError, match="several inputs may be the image: a, x"):
        FoldInput()(model)
    FoldInput(input="x")(model)
    assert [(v.name, str(v.dtype)) for v in model.graph.inputs] == [("a", "FLOAT"), ("x", "UINT8"), ("c", "FLOAT")]
    assert {n.op_type: n.inputs[-1 if n.op_type == "Add" else 0].name for n in list(model.graph)[-2:]} == {
        "Add": "x.mul",
        "Relu": "x.mul",
    }


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (net(), {"input": "z"}, "no input 'z'"),
        (net(), {"mean": (0.5, 0.5)}, "has 3 channels, but mean has 2 numbers"),
        (net(), {"std": (1.0,) * 4}, "has 3 channels, but std has 4 numbers"),
        (net(), {"layout": "hwc"}, "layout 'hwc' is not known"),
        (net(), {"std": (0.0,)}, "must be positive"),
        (net(), {"mean": (float("nan"),)}, "must be numbers"),
        (g.graph("(float[3,4] x) => (float y) { y = Relu(x) }"), {}, "no input is a float tensor of rank 4"),
        (g.graph("(float[3,4] x) => (float y) { y = Relu(x) }"), {"input": "x"}, "its rank is 2"),
        (g.graph("(int64[1,3,4,4] x) => (int64 y) { y = Neg(x) }"), {"input": "x"}, "holds INT64, not floats"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(model: ir.Model, options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        FoldInput(**options)(model)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_fold_bn_takes_it_into_a_conv_without_padding() -> None:
    model = net(pads=0)
    FoldInput(MEAN, STD)(model)
    FoldBn()(model)
    assert g.operators(model) == ["Cast", "Conv", "Relu", "Conv"]
    expected = g.ort_values(net(pads=0), {"x": real(pixels())})["y"]
    found = g.ort_values(model, {"x": pixels()})["y"]
    # folding reassociates sums of 27 float32 products of pixels up to 255
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("options", [{}, {"residual_bits": 8}])
def test_compiled_takes_pixels_and_has_no_float_inside(layout: str, options: dict[str, int]) -> None:
    recipe = {**RECIPE, "passes": [dict(step) for step in RECIPE["passes"]]}  # type: ignore[union-attr]
    recipe["passes"][1]["options"] = options  # type: ignore[index]
    data = [{"x": real(pixels(1, seed) // 2)} for seed in range(8)]  # 0..127: a pair on the pixels would show
    made = mulshift.compile(net(), data, recipe=recipe, input_image=ImageInput(MEAN, STD, layout=layout))
    integer = made.levels[Level.INTEGER]
    moved = ["Transpose"] if layout == "nhwc" else []
    products = ["mulshift::Conv", "mulshift::ConvAccumulate", "DequantizeLinear"]
    assert g.operators(integer) == [*moved, "mulshift::Affine", *products]
    assert g.float_tensors(integer) == []
    assert made.report.verification.differences == 0  # ONNX Runtime and Python agree on every tensor
    p = pixels(1, seed=99) // 2
    fed = np.ascontiguousarray(p.transpose(0, 2, 3, 1)) if layout == "nhwc" else p
    found, expected = made.run({"x": fed})["y"], g.ort_values(net(), {"x": real(p)})["y"]
    noise = float(((found - expected) ** 2).mean() / (expected**2).mean())
    assert noise < 1e-3  # 30 dB; two 8-bit layers on noise give about 40


def test_affine_rounds_once() -> None:
    """Every pixel value comes out as the nearest step of `a * p + b`, ties aside."""
    p = np.broadcast_to(np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16), (1, 3, 16, 16)).copy()
    model = g.graph("(float[1,3,16,16] x) => (float y) { y = MaxPool<kernel_shape=[1,1]>(x) }")
    image = ImageInput(MEAN, STD)
    made = mulshift.compile(model, [{"x": real(p)}], recipe=RECIPE, input_image=image)
    integer = made.levels[Level.INTEGER]
    assert "mulshift::Affine" in g.operators(integer)
    border = next(n for n in integer.graph if n.op_type == "DequantizeLinear")
    step = float(mulshift.ir.constant(border.inputs[1]))  # type: ignore[arg-type]
    error = np.abs(made.run({"x": p})["y"] - real(p)) / step
    # half a step, 2^-8 for the bias's fraction bits, 2^-8 for the shortened mantissa, and the ends of the range, whose
    # zero point is rounded
    assert np.quantile(error, 0.98) <= 0.51
    assert error.max() <= 1.0


def test_interchange_form_keeps_the_preprocessing_in_float() -> None:
    recipe = {"name": "qdq", "passes": RECIPE["passes"][:2]}  # type: ignore[index]
    data = [{"x": real(pixels(1, seed))} for seed in range(4)]
    made = mulshift.compile(net(), data, recipe=recipe, target="onnxruntime-qdq", input_image=ImageInput(MEAN, STD))
    assert g.operators(made.levels[Level.QDQ])[:5] == ["Cast", "Mul", "Add", "QuantizeLinear", "DequantizeLinear"]
