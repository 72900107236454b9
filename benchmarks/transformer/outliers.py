"""A residual block in which the norms make a few channels 100 times as large as the others (Wei et al. 2022,
arXiv:2209.13325: gamma is what amplifies outliers), and what reads them makes them small again: all channels matter
alike, but a common 8-bit scale has no steps left for most of them. Rotation takes gamma into the weights.

python benchmarks/transformer/outliers.py prints SQNR of the integer model in dB, {"without", "with"}: W4A8 both.
"""

from __future__ import annotations

import json
import sys

import here
import numpy as np
import torch
from models import sqnr_db
from recipe import varied
from torch import nn
from torch.nn import functional

WIDTH, HIDDEN, TOKENS, OUTPUTS, BLOCKS = 128, 512, 16, 32, 1
OUTLIERS, SIZE = (3, 50, 77, 101), 100.0


class Reader(nn.Module):
    """Norm with planted outliers, then a linear layer that undoes them."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.norm, self.linear = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, outputs)
        with torch.no_grad():
            for channel in OUTLIERS:
                self.norm.weight[channel] *= SIZE
                self.linear.weight[:, channel] /= SIZE

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.linear(self.norm(x))
        return y


class Planted(nn.Module):
    """[1, TOKENS, WIDTH] to [1, TOKENS, OUTPUTS]."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(WIDTH, WIDTH), Reader(OUTPUTS)
        self.up = nn.ModuleList(Reader(HIDDEN) for _ in range(BLOCKS))
        self.down = nn.ModuleList(nn.Linear(HIDDEN, WIDTH) for _ in range(BLOCKS))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embed(x)
        for up, down in zip(self.up, self.down, strict=True):
            x = x + down(functional.gelu(up(x)))
        y: torch.Tensor = self.head(x)
        return y


def planted() -> tuple[nn.Module, list[dict[str, np.ndarray]]]:
    """Seeded; 16 inputs."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    return Planted().eval(), [{"x": rng.normal(size=(1, TOKENS, WIDTH)).astype(np.float32)} for _ in range(16)]


def main() -> None:
    here.quiet()
    import mulshift
    from mulshift.ir import Interpreter, Level
    from mulshift.passes.pipeline import Pipeline

    module, inputs = planted()
    calibration, scored = inputs[:8], inputs[8:]
    with torch.no_grad():
        expected = np.concatenate([module(torch.from_numpy(f["x"])).numpy() for f in scored])
    model, found = mulshift.load(module, example_inputs=(torch.from_numpy(inputs[0]["x"]),)), {}
    name = model.graph.inputs[0].name
    for side, rotate in (("without", False), ("with", True)):
        # smooth, which knows another way around outliers of norms, is left out on both sides
        result = Pipeline(varied(4, rotate, ("smooth",)), checked=0).run(model, [{name: f["x"]} for f in calibration])
        integers = Interpreter(result.levels[Level.INTEGER])
        got = np.concatenate([next(iter(integers.run({name: f["x"]}).values())).numpy() for f in scored])
        found[side] = sqnr_db(expected, got)
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
