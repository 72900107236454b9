"""LayerNorm in integers beside ONNX Runtime's in float, one thread: `python benchmarks/norm.py [--seconds S]`.

s16 to s16, shapes of BERT-base and smaller. Both run in turns in this process and the best run of each counts, the call
of the session included. Our node has no function body here, so what runs is the kernel.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

import mulshift
from mulshift.ir import OPERATORS
from mulshift.ir.operators.norm_constants import norm_constants

SHAPES = ((128, 384), (128, 768), (1024, 384), (16, 4096))
EPSILON, X_SCALE, Y_SCALE = 1e-12, 2.0**-11, 8 / 32768
OUTPUT = {"zero_point": 0, "qmin": -32768, "qmax": 32767, "dtype": int(TensorProto.INT16)}


def model(op: str, domain: str, x: np.ndarray, y: np.ndarray, constants: list[np.ndarray], **a: Any) -> bytes:
    """One node."""
    names = ["x", *(f"c{i}" for i in range(len(constants)))]
    values = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape)
        for name, v in (("x", x), ("y", y))
    ]
    graph = helper.make_graph(
        [helper.make_node(op, names, ["y"], domain=domain, **a)],
        "one",
        values[:1],
        values[1:],
        [numpy_helper.from_array(c, name) for c, name in zip(constants, names[1:], strict=True)],
    )
    imports = [helper.make_opsetid("", 21), helper.make_opsetid("mulshift", 1)]
    made: onnx.ModelProto = helper.make_model(graph, opset_imports=imports, ir_version=10)
    return bytes(made.SerializeToString())


def best(sides: dict[str, tuple[ort.InferenceSession, np.ndarray]], seconds: float) -> dict[str, float]:
    """Seconds of the fastest run of each side."""
    found, end = dict.fromkeys(sides, float("inf")), time.perf_counter() + seconds
    while time.perf_counter() < end:
        for who, (session, x) in sides.items():
            start = time.perf_counter()
            session.run(None, {"x": x})
            found[who] = min(found[who], time.perf_counter() - start)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0)
    seconds = parser.parse_args().seconds
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    print(f"{'LayerNorm, 1 thread, ns an element':<36} {'float':>8} {'ours':>8} {'ratio':>8}")
    for rows, n in SHAPES:
        rng = np.random.default_rng(0)
        gamma, beta = rng.normal(1, 0.2, n), rng.normal(0, 0.2, n)
        x = np.clip(rng.normal(0, 2000, (rows, n)), -32768, 32767).astype(np.int16)
        c = norm_constants(gamma, beta, EPSILON, X_SCALE, Y_SCALE, 32768)
        a = {"x_zero_point": 0, "epsilon": c.epsilon, "fraction": c.fraction, "shift": c.shift, **OUTPUT}
        real = x.astype(np.float32) * np.float32(X_SCALE)
        plain = [v.astype(np.float32) for v in (gamma, beta)]
        sides = {
            "float": (
                ort.InferenceSession(
                    model("LayerNormalization", "", real, real, plain, axis=-1, epsilon=EPSILON),
                    options,
                    providers=["CPUExecutionProvider"],
                ),
                real,
            ),
            "ours": (mulshift.session(model("LayerNorm", "mulshift", x, x, [c.w, c.bias], **a), 1), x),
        }
        if not np.array_equal(
            sides["ours"][0].run(None, {"x": x})[0], OPERATORS["LayerNorm"].run(a, x, c.w, c.bias)[0]
        ):
            raise SystemExit("the kernel is not equal to its reference")
        times = best(sides, seconds)
        each = {who: t * 1e9 / x.size for who, t in times.items()}
        ratio = times["float"] / times["ours"]
        print(f"  {f'{rows} x {n}':<34} {each['float']:>8.2f} {each['ours']:>8.2f} {ratio:>8.2f}", flush=True)


if __name__ == "__main__":
    main()
