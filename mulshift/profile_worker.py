"""The process that times single nodes: `python -m mulshift.profile_worker FOLDER COUNT THREADS SECONDS`.

Prints a JSON list: seconds of the fastest run of each `FOLDER/i.onnx` on `FOLDER/i.npz`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from mulshift.latency_worker import KERNELS, measure

ROUNDS = 3
"""Times that each node gets its turn: what disturbs the machine for a while does not hit one node alone."""


def main(folder: str, count: str, threads: str, seconds: str) -> None:
    """Time all, round by round."""
    best = [float("inf")] * int(count)
    for _ in range(ROUNDS):
        for i in range(len(best)):
            model = Path(folder) / f"{i}.onnx"
            made = measure(model, model.with_suffix(".npz"), int(threads), float(seconds) / ROUNDS, KERNELS)
            best[i] = min(best[i], made["milliseconds"] / 1e3)
    sys.stdout.write(json.dumps(best))


if __name__ == "__main__":
    main(*sys.argv[1:])
