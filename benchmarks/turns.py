"""Rotary embeddings, Hadamard transforms, tables and embedding rows beside ONNX Runtime's float, one thread.

`python benchmarks/turns.py [--seconds S]`. Ours are s16 to s16 (rows: s8 to s16, b computed). Float is what an
exporter writes: the rotary embedding taken apart, a MatMul by H, a Sigmoid, a Mul by each row's scale. Both sides run
in turns in this process and the best run of each counts, the call of the session included.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

import mulshift
from mulshift.ir import OPERATORS
from mulshift.passes.hadamard import factors, signs

OUT = "zero_point = 0, qmin = -32768, qmax = 32767, dtype = 5"
NUMBERS = {"zero_point": 0, "qmin": -32768, "qmax": 32767, "dtype": 5, "x_zero_point": 0}
S16 = np.int16
ROTARY = """
  a, b = Split<axis = -1, num_outputs = 2>(x) n = Neg(b) r = Concat<axis = -1>(n, a)
  xc = Mul(x, cos) rs = Mul(r, sin) y = Add(xc, rs)
"""
Feeds = dict[str, np.ndarray]
Side = tuple[ort.InferenceSession, Feeds]


def model(body: str, feeds: Feeds, constants: Feeds, y: str) -> bytes:
    """A graph of one output of the shape of x."""
    names = {
        np.dtype(k): v for k, v in ((np.float32, "float"), (np.int16, "int16"), (np.int8, "int8"), (np.int32, "int32"))
    }
    inputs = ", ".join(f"{names[v.dtype]}[{','.join(map(str, v.shape))}] {k}" for k, v in feeds.items())
    shape = ",".join(map(str, feeds["x"].shape))
    text = f'<ir_version: 10, opset_import: ["" : 21, "mulshift" : 1]> g ({inputs}) => ({y}[{shape}] y) {{ {body} }}'
    made = onnx.parser.parse_model(text)
    made.graph.initializer.extend(onnx.numpy_helper.from_array(v, k) for k, v in constants.items())
    return bytes(made.SerializeToString())


def best(sides: dict[str, Side], seconds: float) -> dict[str, float]:
    """Seconds of the fastest run of each side."""
    found, end = dict.fromkeys(sides, float("inf")), time.perf_counter() + seconds
    while time.perf_counter() < end:
        for who, (session, feeds) in sides.items():
            start = time.perf_counter()
            session.run(None, feeds)
            found[who] = min(found[who], time.perf_counter() - start)
    return found


def compare(
    title: str, floats: tuple[str, Feeds, Feeds], ours: tuple[str, str, Feeds, Feeds, dict[str, Any]], seconds: float
) -> None:
    """One line; ours: operator, its attributes in text, feeds, constants, what the reference takes besides."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    op, text, feeds, constants, attributes = ours
    body = f"y = mulshift.{op} {f'<{text}>' if text else ''} ({', '.join([*feeds, *constants])})"
    session = mulshift.session(model(body, feeds, constants, "int16"), 1)
    wanted = OPERATORS[op].run(attributes, *feeds.values(), *constants.values())[0]
    if not np.array_equal(session.run(None, feeds)[0], wanted):
        raise SystemExit(f"{op}: the kernel is not equal to its reference")
    plain = ort.InferenceSession(model(floats[0], floats[1], floats[2], "float"), options, ["CPUExecutionProvider"])
    times = best({"float": (plain, floats[1]), "ours": (session, feeds)}, seconds)
    each = {who: t * 1e9 / feeds["x"].size for who, t in times.items()}
    print(
        f"  {title:<42} {each['float']:>8.2f} {each['ours']:>8.2f} {times['float'] / times['ours']:>8.2f}", flush=True
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0)
    seconds = parser.parse_args().seconds
    rng = np.random.default_rng(0)
    print(f"{'1 thread, ns an element':<44} {'float':>8} {'ours':>8} {'ratio':>8}")
    turn, numbers = f"x_zero_point = 0, multiplier = 1073741824, shift = 44, {OUT}", {"multiplier": 2**30, "shift": 44}
    for rows, heads, width in ((128, 12, 64), (1024, 32, 128), (1, 32, 128)):
        x = rng.integers(-20000, 20000, (1, rows, heads, width)).astype(S16)
        angles = [rng.integers(-(2**14), 2**14, (1, rows, 1, width // 2)).astype(S16) for _ in range(2)]
        real = {
            "x": x.astype(np.float32),
            **{k: np.tile(a.astype(np.float32), 2) for k, a in zip(("cos", "sin"), angles, strict=True)},
        }
        given = {"x": x, "cos": angles[0], "sin": angles[1]}
        compare(
            f"RotaryEmbedding {rows} x {heads} x {width}",
            (ROTARY, real, {}),
            ("RotaryEmbedding", turn, given, {}, NUMBERS | numbers),
            seconds,
        )
    for rows, order in ((128, 128), (128, 512), (128, 768), (128, 896), (1, 4096)):
        h, m = signs(order), (factors(order) or (1, 1))[1]
        assert h is not None
        x = rng.integers(-20000, 20000, (rows, order)).astype(S16)
        text = turn.replace("44", "38") + f", block = {order}"
        compare(
            f"Hadamard {rows} x {order} = {order // m} x {m}",
            ("y = MatMul(x, h)", {"x": x.astype(np.float32)}, {"h": h.astype(np.float32)}),
            (
                "Hadamard",
                text,
                {"x": x},
                {"base": h[:m, :m].copy()},
                NUMBERS | {"block": order, "multiplier": 2**30, "shift": 38},
            ),
            seconds,
        )
    x = rng.integers(-32768, 32768, (128, 1536)).astype(S16)
    table = rng.integers(-32768, 32768, 65536).astype(S16)
    compare(
        "Table of 65536, 128 x 1536, beside Sigmoid",
        ("y = Sigmoid(x)", {"x": x.astype(np.float32) / 8192}, {}),
        ("Table", "", {"x": x}, {"table": table}, {}),
        seconds,
    )
    x8, b = rng.integers(-127, 128, (128, 384)).astype(np.int8), rng.integers(1, 2**23, (128, 1)).astype(np.int32)
    given = {"x": x8, "b": b}
    compare(
        "Requantize of rows 128 x 384",
        ("y = Mul(x, b)", {"x": x8.astype(np.float32), "b": b.astype(np.float32)}, {}),
        ("Requantize", f"x_zero_point = 0, {OUT}", given, {"c": np.asarray(16, np.int32)}, NUMBERS),
        seconds,
    )


if __name__ == "__main__":
    main()
