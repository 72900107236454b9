"""Attention in integers beside ONNX Runtime's float MultiHeadAttention, one thread: `python benchmarks/attention.py`.

Both run in this process in turns, and the best round of each counts; the ratio is float over integers.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime as ort

from mulshift import kernels
from mulshift.ir.operators.attention import attention_dyadics

ROUNDS, SECONDS = 12, 0.05


@dataclass(frozen=True)
class Case:
    """One shape: [1, rows, heads, depth] of q against [1, keys, heads, depth] of k and v."""

    name: str
    rows: int
    keys: int
    heads: int
    depth: int
    causal: bool = False

    def scores(self) -> int:
        """How many there are."""
        return self.rows * self.keys * self.heads


CASES = (
    Case("BERT 128x128, 12 heads of 32", 128, 128, 12, 32),
    Case("the same, causal", 128, 128, 12, 32, causal=True),
    Case("BERT 128x128, 12 heads of 64", 128, 128, 12, 64),
    Case("ViT 197x197, 3 heads of 64", 197, 197, 3, 64),
    Case("512x512, 8 heads of 64", 512, 512, 8, 64),
    Case("decoding 1x1024, 12 heads of 64", 1, 1024, 12, 64),
)


def _session(text: str, kernel: bool) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    if kernel:
        options.register_custom_ops_library(str(kernels.library_path()))
    return ort.InferenceSession(onnx.parser.parse_model(text).SerializeToString(), options, ["CPUExecutionProvider"])


def _integers(case: Case) -> Callable[[], object]:
    score, value = attention_dyadics(3 / (80 * 80 * case.depth**0.5), 0.5)
    zero = "q_zero_point = 128, k_zero_point = 0, v_zero_point = 0, zero_point = 128, qmin = 0, qmax = 255, dtype = 2"
    ratios = f"score_multiplier = {score.b}, score_shift = {score.c}, multiplier = {value.b}, shift = {value.c}"
    mask, name = (", mask", "MaskedAttention") if case.causal else ("", "Attention")
    given = f"bool[1, 1, {case.rows}, {case.keys}] mask, " if case.causal else ""
    shapes = [f"[1, {n}, {case.heads}, {case.depth}]" for n in (case.rows, case.keys)]
    session = _session(
        f"""<ir_version: 10, opset_import: ["" : 21, "mulshift" : 1]>
g ({given}uint8{shapes[0]} q, int8{shapes[1]} k, int8{shapes[1]} v) => (uint8{shapes[0]} y) {{
  y = mulshift.{name} <{zero}, {ratios}> (q, k, v{mask})
}}""",
        kernel=True,
    )
    rng = np.random.default_rng(0)
    feeds = {"q": rng.integers(0, 256, (1, case.rows, case.heads, case.depth)).astype(np.uint8)}
    feeds |= {n: rng.integers(-128, 128, (1, case.keys, case.heads, case.depth)).astype(np.int8) for n in "kv"}
    if case.causal:
        feeds["mask"] = np.tri(case.rows, case.keys, dtype=bool)[None, None]
    return lambda: session.run(None, feeds)


def _floats(case: Case) -> Callable[[], object]:
    width = case.heads * case.depth
    shapes = [f"[1, {n}, {width}]" for n in (case.rows, case.keys)]
    causal = ", unidirectional = 1" if case.causal else ""
    session = _session(
        f"""<ir_version: 10, opset_import: ["" : 21, "com.microsoft" : 1]>
g (float{shapes[0]} q, float{shapes[1]} k, float{shapes[1]} v) => (float{shapes[0]} y) {{
  y = com.microsoft.MultiHeadAttention <num_heads = {case.heads}{causal}> (q, k, v)
}}""",
        kernel=False,
    )
    rng = np.random.default_rng(0)
    feeds = {n: rng.normal(0, 1, (1, s, width)).astype(np.float32) for n, s in zip("qkv", _sizes(case), strict=True)}
    return lambda: session.run(None, feeds)


def _sizes(case: Case) -> tuple[int, int, int]:
    return case.rows, case.keys, case.keys


def _once(run: Callable[[], object]) -> float:
    """Seconds of processor time a call."""
    start, calls = time.process_time(), 0
    while time.process_time() - start < SECONDS:
        run()
        calls += 1
    return (time.process_time() - start) / calls


def main() -> None:
    """A line a shape."""
    for case in CASES:
        sides = [_integers(case), _floats(case)]
        best = [min(times) for times in zip(*([_once(run) for run in sides] for _ in range(ROUNDS)), strict=True)]
        ours, theirs = best
        each = ours * 1e9 / case.scores()
        line = f"{ours * 1e3:8.3f} ms {each:7.2f} ns a score, float {theirs * 1e3:8.3f} ms, {theirs / ours:5.2f}x"
        sys.stdout.write(f"{case.name:34}{line}\n")


if __name__ == "__main__":
    main()
