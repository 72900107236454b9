"""Integer Softmax, LayerNorm, RMSNorm and GELU against the real functions of the same integers, in steps of 8 bits.

python benchmarks/transformer/operators.py CASES. Prints {operator: [largest error, mean excess over the rounding]} over
CASES drawn cases for each kind of row: random, constant, one-hot, extreme (ARITHMETIC.md, section 4).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator

import here
import numpy as np
from scipy.special import erf

from mulshift.ir import OPERATORS, Level
from mulshift.ir.operators.norm_constants import norm_constants
from mulshift.ir.operators.softmax import softmax_dyadics

KINDS = ("random", "constant", "one-hot", "extreme")
SIZES = (2, 16, 128, 197, 384, 768)
ROWS = 4
U8 = {"qmin": 0, "qmax": 255, "dtype": 2}


def rows(rng: np.random.Generator, kind: str, dtype: type[np.integer], n: int) -> np.ndarray:
    """[ROWS, n] of that type, over its range."""
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    x = rng.integers(low, high, (ROWS, n), endpoint=True)
    if kind == "constant":
        x[:] = x[:, :1]
    elif kind == "one-hot":
        x[:] = low
        x[np.arange(ROWS), rng.integers(0, n, ROWS)] = high
    elif kind == "extreme":
        x = rng.choice([low, high], (ROWS, n))
    elif rng.random() < 0.5:  # far from the ends, as activations mostly are
        x = np.clip(np.round(rng.normal(0, (high - low) * 2.0 ** -rng.integers(2, 10), (ROWS, n))), low, high)
    return x.astype(dtype)


def softmax(rng: np.random.Generator, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """(integers, real values in steps) of one node with int32 or int16 scores."""
    dtype = (np.int16, np.int8)[int(rng.integers(2))]
    x = rows(rng, kind, dtype, int(rng.choice(SIZES)))
    scale = float(rng.uniform(0.05, 40)) / np.iinfo(dtype).max
    score, out = softmax_dyadics(scale, 256)
    a = {"score_multiplier": score.b, "score_shift": score.c, "multiplier": out.b, "shift": out.c, "zero_point": 0}
    real = np.exp((x - x.max(-1, keepdims=True).astype(np.float64)) * scale)
    return OPERATORS["Softmax"].run(a | U8, x)[0], real / real.sum(-1, keepdims=True) * 256


def norm(name: str) -> Callable[[np.random.Generator, str], tuple[np.ndarray, np.ndarray]]:
    """LayerNorm or RmsNorm of int16, as transformers have them."""

    def run(rng: np.random.Generator, kind: str) -> tuple[np.ndarray, np.ndarray]:
        x = rows(rng, kind, np.int16, n := int(rng.choice(SIZES)))
        gamma, beta, epsilon = rng.normal(1, 0.3, n), rng.normal(0, 0.3, n), float(rng.choice([1e-12, 1e-6, 1e-5]))
        x_scale, zero = float(rng.uniform(0.5, 4)) * 2.0**-12, int(rng.integers(96, 160))
        y_scale = float(np.abs(gamma).max() * rng.uniform(4, 12)) / 128
        c = norm_constants(gamma, beta, epsilon, x_scale, y_scale, max(zero, 255 - zero))
        a = {"x_zero_point": 0, "epsilon": c.epsilon, "fraction": c.fraction, "shift": c.shift, "zero_point": zero}
        got = OPERATORS[name].run(a | U8, x, c.w, c.bias)[0]
        wide = x.astype(np.int64)
        away = n * wide - (wide.sum(-1, keepdims=True) if name == "LayerNorm" else 0)  # exact: a constant row gives 0
        far = away * (x_scale / n)
        unit = far / np.sqrt((far * far).mean(-1, keepdims=True) + epsilon)
        return got, (unit * gamma + beta) / y_scale + zero

    return run


def gelu() -> Callable[[np.random.Generator, str], tuple[np.ndarray, np.ndarray]]:
    """GELUs in front of a product, which takes 8 bits, compiled for several ranges: their Tables."""
    tables = [_table(reach) for reach in (0.5, 2.0, 6.0, 20.0)]

    def run(rng: np.random.Generator, kind: str) -> tuple[np.ndarray, np.ndarray]:
        table, x_scale, x_zero, y_scale, y_zero = tables[int(rng.integers(len(tables)))]
        x = rows(rng, kind, np.uint8, 256).astype(np.int64)
        real = (x - x_zero) * x_scale
        return table[x], real * 0.5 * (1 + erf(real / np.sqrt(2))) / y_scale + y_zero

    return run


def _table(reach: float) -> tuple[np.ndarray, float, int, float, int]:
    """(entries, x's scale and zero point, y's), for x from -reach to reach."""
    import onnx
    import onnx_ir as ir

    from mulshift.ir import constant
    from mulshift.passes.pipeline import Pipeline

    graph = "g (float[1, 16] x) => (float[1, 16] y) {z = Gelu(x) y = MatMul(z, w)}"
    proto = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 21]> {graph}')
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.eye(16, dtype=np.float32), "w"))
    steps = ["canonicalize", "fuse", "calibrate", "insert-fake-quant", "to-integer"]
    recipe = {"name": "gelu", "description": "", "passes": [{"pass": step} for step in steps]}
    sample = {"x": np.linspace(-reach, reach, 16, dtype=np.float32)[None]}
    levels = Pipeline(recipe).run(ir.from_proto(proto), [sample]).levels
    (table,) = (node.inputs[1] for node in levels[Level.INTEGER].graph if node.op_type == "Table")
    around = [n for n in levels[Level.QDQ].graph if n.op_type == "QuantizeLinear"][:2]  # before and after
    (x_scale, x_zero), (y_scale, y_zero) = ((constant(n.inputs[1]), constant(n.inputs[2])) for n in around)
    return np.asarray(constant(table)), float(x_scale), int(x_zero), float(y_scale), int(y_zero)


def errors(draw: Callable[[np.random.Generator, str], tuple[np.ndarray, np.ndarray]], cases: int) -> list[float]:
    """Largest error and mean excess, in steps; real values outside the 8 bits are clamped as integers are."""
    worst, excess, rng = 0.0, list[float](), np.random.default_rng(0)
    for kind in _kinds(cases):
        got, real = draw(rng, kind)
        real = np.clip(real, 0, 255)
        error = np.abs(got - real)
        worst = max(worst, float(error.max()))
        excess.append(float(np.maximum(error - np.abs(np.round(real) - real), 0).mean()))
    return [worst, float(np.mean(excess))]


def _kinds(cases: int) -> Iterator[str]:
    for kind in KINDS:
        yield from [kind] * cases


def main(cases: str) -> None:
    here.quiet()
    draws = {"Softmax": softmax, "LayerNorm": norm("LayerNorm"), "RMSNorm": norm("RmsNorm"), "GELU": gelu()}
    sys.stdout.write(json.dumps({name: errors(draw, int(cases)) for name, draw in draws.items()}) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
