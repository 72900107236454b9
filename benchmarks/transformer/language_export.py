"""SmolLM2-135M as ONNX of the fixed shape [1, 512], and the token chunks to score and to calibrate on."""

from __future__ import annotations

from pathlib import Path

import models
import numpy as np
from nets import loader

MODEL, TOKENS = "model.onnx", 512
SCORED, CALIBRATION = 20, 4


def export(folder: Path) -> None:
    """model.onnx and chunks.npy, [SCORED + CALIBRATION, TOKENS]."""
    import torch

    text = (models.FIXTURES / "wikitext2_valid.txt").read_text(encoding="utf-8")
    module, _, chunks = loader("smollm2").load(n=SCORED + CALIBRATION, text=text)
    example = (torch.ones(1, TOKENS, dtype=torch.int64),)
    with torch.no_grad():
        options = {"dynamo": True, "external_data": False, "verbose": False, "input_names": ["ids"]}
        torch.onnx.export(module, example, folder / MODEL, **options)
    np.save(folder / "chunks.npy", np.concatenate(chunks[: SCORED + CALIBRATION]))
