"""What `make demo` prints last: EfficientNet-Lite0 before and after, on the 20 labelled images, on this machine.

python examples/demo.py ARTIFACT FLOAT      ARTIFACT: folder that `mulshift compile` wrote; FLOAT: .onnx to write
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import efficientnet_lite0 as example
import onnx_ir as ir

import mulshift


def write_float(path: Path) -> None:
    """The network as float ONNX: what would be deployed without mulshift."""
    ir.save(mulshift.load(example.model(), (next(example.samples()),)), path)


def right(path: Path) -> int:
    """Of the 20 images, how many get their label from a model on ONNX Runtime with our kernels."""
    runner = mulshift.session(path)
    (name,) = (i.name for i in runner.get_inputs())
    found = [runner.run(None, {name: image})[0].argmax() for image in example.samples()]
    return int((example.labels() == found).sum())


def main() -> None:
    folder, reference = Path(sys.argv[1]), Path(sys.argv[2])
    write_float(reference)
    models = {"float": reference, "integer": folder / "model.onnx"}
    times = mulshift.bench({name: str(path) for name, path in models.items()})
    print(f"\nEfficientNet-Lite0, {len(example.labels())} images, ONNX Runtime, one thread on this machine")
    for (name, path), time in zip(models.items(), times, strict=True):
        size = path.stat().st_size / 1e6
        top = f"top-1 {right(path)} of {len(example.labels())}"
        by = f"with mulshift's kernels ({time.kernels})" if time.kernels else ""
        print(f"  {name:8} {top}   {size:6.2f} MB   {time.milliseconds:6.2f} ms {by}".rstrip())
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    totals, checked = report["totals"], report["verification"]
    print(f"  {totals['integer_nodes']} of {totals['nodes']} operators integer-only", end="; ")
    compared = checked["elements"] + checked["kernel_elements"]
    print(f"{checked['differences']} differences in {compared:,} integers compared with the specification")
    print(f"  artifact and report: {folder}")


if __name__ == "__main__":
    main()
