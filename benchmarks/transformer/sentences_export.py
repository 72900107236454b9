"""MiniLM as ONNX with a dynamic batch and sequence, as a sentence encoder is used."""

from __future__ import annotations

from pathlib import Path

from nets import loader

MODEL = "model.onnx"


def export(folder: Path) -> None:
    """model.onnx."""
    import torch

    module, _, _ = loader("minilm").load(n=1)
    shape = {0: torch.export.Dim("batch", max=64), 1: torch.export.Dim("sequence", max=512)}
    example = tuple(torch.ones(2, 64, dtype=torch.int64) for _ in range(2))
    options = {"dynamo": True, "external_data": False, "verbose": False, "input_names": ["ids", "mask"]}
    with torch.no_grad():
        torch.onnx.export(module, example, folder / MODEL, dynamic_shapes=(shape, shape), **options)
