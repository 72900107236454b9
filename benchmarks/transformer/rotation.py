"""The largest change of a float model's outputs by `rotate`, relative to the largest output.

python benchmarks/transformer/rotation.py NETWORK; "minilm", "vit-tiny" or "smollm2". Prints {"error", "rotated": how
many regions}.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import here
import numpy as np


def sample(network: str) -> tuple[Path, dict[str, np.ndarray]]:
    """(the float model, one input)."""
    if network == "smollm2":
        from cache import cached, text_of
        from language_export import export

        folder = cached("float-language", text_of("transformer/language_export"), export)
        return folder / "model.onnx", {"ids": np.load(folder / "chunks.npy")[:1]}
    from prepare import Job

    job = Job(network, 1)
    return Path(job.model()), job.calibration()[0]


def main(network: str) -> None:
    here.quiet()
    import torch

    import mulshift
    from mulshift.ir import Interpreter
    from mulshift.passes import PASSES
    from mulshift.passes.pipeline import Pipeline

    path, feeds = sample(network)
    passes = [{"pass": name} for name in ("canonicalize", "fold-bn", "fuse")]
    model = Pipeline({"name": "float", "passes": passes}, checked=0).run(mulshift.load(str(path))).model
    rotate = PASSES["rotate"]()
    with torch.no_grad():
        before = next(iter(Interpreter(model).run(feeds).values())).numpy()
        rotate(model)
        after = next(iter(Interpreter(model).run(feeds).values())).numpy()
    error = float(np.abs(after - before).max() / np.abs(before).max())
    sys.stdout.write(json.dumps({"error": error, "rotated": len(rotate.log.changed)}) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
