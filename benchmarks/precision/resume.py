"""Kill the process at random moments and let it go on: are the bytes those of one that was not killed?

python benchmarks/precision/resume.py [--quick]. A small seeded network is compiled by `mulshift compile --workspace`
with a recipe that learns its rounding, ended by SIGKILL at random moments until one call is left in peace; the artifact
is compared with that of a call that nothing disturbed. So is the table of `mulshift assign`.

Prints {"compile": {"kills", "equal", "rounds"}, "assign": {...}}.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import here
import numpy as np

ROUNDS = {True: 1, False: 5}
MOST_KILLS = {True: 2, False: 6}
"""In a round, so that it ends on a slow machine too."""
IMAGES, SIDE, LAYERS = 16, 16, 3
SOONEST, LATEST = 0.1, 0.45
"""Of the time of a whole call, to be killed after."""
RECIPE = """
name: learned
passes:
  - {pass: canonicalize}
  - {pass: fold-bn}
  - {pass: fuse}
  - {pass: calibrate, options: {method: min-max}}
  - {pass: insert-fake-quant, options: {weight_bits: 4}}
  - {pass: adaround, options: {iterations: 400}}
  - {pass: decoupleq}
  - {pass: to-integer}
"""


def export(folder: Path) -> tuple[Path, Path]:
    """A network with residuals and depthwise convolutions, and its calibration images."""
    import torch
    from torch import nn

    class Block(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.depthwise = nn.Conv2d(width, width, 3, padding=1, groups=width)
            self.wide, self.narrow = nn.Conv2d(width, 4 * width, 1), nn.Conv2d(4 * width, width, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.narrow(torch.relu(self.wide(torch.relu(self.depthwise(x)))))
            return x + y

    torch.manual_seed(0)
    width = 32
    net = nn.Sequential(
        nn.Conv2d(3, width, 3, stride=2, padding=1),
        *(Block(width) for _ in range(LAYERS)),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(width, 10),
    )
    images = np.random.default_rng(0).normal(size=(IMAGES, 3, SIDE, SIDE)).astype(np.float32)
    model, data = folder / "model.onnx", folder / "images.npy"
    options = {"dynamo": True, "external_data": False, "verbose": False, "input_names": ["x"]}
    torch.onnx.export(net.eval(), (torch.from_numpy(images[:1]),), model, **options)
    np.save(data, images)
    (folder / "recipe.yaml").write_text(RECIPE)
    return model, data


def compiling(model: Path, data: Path, workspace: Path, out: Path) -> list[str]:
    recipe = model.parent / "recipe.yaml"
    command = ["compile", str(model), "--calibration", str(data), "--recipe", str(recipe), "-o", str(out), "--quiet"]
    return [sys.executable, "-m", "mulshift", *command, "--workspace", str(workspace)]


def assigning(model: Path, data: Path, workspace: Path, out: Path) -> list[str]:
    command = ["assign", str(model), "--calibration", str(data), "--budget", "size=0.6", "--sensitivity", "sqnr"]
    return [sys.executable, "-m", "mulshift", *command, "--workspace", str(workspace), "-o", str(out), "--quiet"]


def to_the_end(command: list[str]) -> float:
    """Seconds that it takes."""
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command[2:4])}: {done.stderr.strip().splitlines()[-1]}")
    return time.perf_counter() - start


def killed(command: list[str], after: float) -> bool:
    """Whether SIGKILL after so many seconds found it still at work."""
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        running.wait(after)
        return False
    except subprocess.TimeoutExpired:
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()
        return True


def digest(folder: Path) -> str:
    """Of all files but those that tell times."""
    hashed = hashlib.sha256()
    for file in sorted(p for p in folder.rglob("*") if p.is_file() and p.name != "timing.json"):
        hashed.update(file.name.encode() + file.read_bytes())
    return hashed.hexdigest()


def measure(
    make: Callable[[Path, Path, Path, Path], list[str]], model: Path, data: Path, quick: bool
) -> dict[str, Any]:
    """Kills, and rounds whose bytes are equal."""
    chance, found = random.Random(0), {"kills": 0, "equal": 0, "rounds": ROUNDS[quick]}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        seconds = to_the_end(make(model, data, folder / "plain-work", folder / "plain"))
        wanted = digest(folder / "plain")
        for i in range(ROUNDS[quick]):
            command = make(model, data, folder / f"work-{i}", folder / f"out-{i}")
            for _ in range(MOST_KILLS[quick]):
                if not killed(command, chance.uniform(SOONEST, LATEST) * seconds):
                    break
                found["kills"] += 1
            else:
                to_the_end(command)
            found["equal"] += digest(folder / f"out-{i}") == wanted
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    here.quiet()
    with tempfile.TemporaryDirectory() as name:
        model, data = export(Path(name))
        made = {
            "compile": measure(compiling, model, data, options.quick),
            "assign": measure(assigning, model, data, options.quick),
        }
    sys.stdout.write(json.dumps(made) + "\n")


if __name__ == "__main__":
    main()
