"""What `make demo` prints last: EfficientNet-Lite0 before and after, on the 20 labelled images, on this machine.

python examples/demo.py FOLDER      FOLDER holds the artifact that `mulshift compile` wrote
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import efficientnet_lite0 as example
import numpy as np
import onnx_ir as ir

from mulshift.backends.onnxruntime import session
from mulshift.ir.frontend import load

RUNS = 50


def float_model() -> bytes:
    """The network as float ONNX: what would be deployed without mulshift."""
    model = load(example.model(), (next(example.samples()),))
    return bytes(ir.serde.serialize_model(model).SerializeToString())


def measure(model: bytes, images: list[np.ndarray], labels: np.ndarray) -> tuple[str, str, str]:
    """Top-1 over the images, size, and latency of one image: minimum of RUNS, one thread."""
    runner = session(model, threads=1)
    (name,) = (i.name for i in runner.get_inputs())
    found = np.array([runner.run(None, {name: image})[0].argmax() for image in images])
    seconds = min(_seconds(runner, {name: images[0]}) for _ in range(RUNS))
    right = int((found == labels).sum())
    return f"{right} of {len(labels)}", f"{len(model) / 1e6:.2f} MB", f"{seconds * 1000:.1f} ms"


def _seconds(runner: Any, feeds: dict[str, np.ndarray]) -> float:
    start = time.perf_counter()
    runner.run(None, feeds)
    return time.perf_counter() - start


def main() -> None:
    folder = Path(sys.argv[1])
    report = json.loads((folder / "report.json").read_text())
    images, labels = list(example.samples()), example.labels()
    before = measure(float_model(), images, labels)
    after = measure((folder / "model.onnx").read_bytes(), images, labels)
    print("\nEfficientNet-Lite0 on stock ONNX Runtime   float         integer")
    for what, old, new in zip(("top-1", "size", "latency, 1 thread"), before, after, strict=True):
        print(f"  {what:40} {old:13} {new}")
    totals, checked = report["totals"], report["verification"]
    print(f"\n{totals['integer_nodes']} of {totals['nodes']} operators integer-only; output SQNR in dB", end=" ")
    print(", ".join(f"{name}: {db}" for name, db in totals["output_sqnr_db"].items()))
    print(f"{checked['elements']:,} integers compared with the specification, {checked['differences']} differences")
    print(f"{folder}: {', '.join(sorted(p.name for p in folder.iterdir()))}")


if __name__ == "__main__":
    main()
