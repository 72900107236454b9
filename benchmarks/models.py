"""The real models and labelled data that benchmarks measure on (../shared/fixtures, not part of the product)."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
FIXTURES = Path(os.environ.get("MULSHIFT_FIXTURES", ROOT.parent / "shared" / "fixtures"))


@dataclass(frozen=True)
class Case:
    """One model with its data, all float32, batch first.

    Attributes:
        name: short name, a folder name too.
        module: torch.nn.Module in eval mode.
        calibration: [n, ...] inputs to calibrate on.
        scored: [m, ...] inputs to score on; disjoint from `calibration`.
        labels: [m] classes.
    """

    name: str
    module: Any
    calibration: np.ndarray
    scored: np.ndarray
    labels: np.ndarray


def available() -> str:
    """Empty if the fixtures are there, else the reason why not."""
    return "" if (FIXTURES / "loaders").is_dir() else f"no fixtures at {FIXTURES} (set MULSHIFT_FIXTURES)"


def load(name: str) -> Case:
    """`efficientnet-lite0` (100 calibration, 400 scored) or `resnet20` (500 and 5,000)."""
    sys.path.insert(0, str(FIXTURES / "loaders"))
    return {"efficientnet-lite0": _efficientnet, "resnet20": _resnet20}[name]()


def _efficientnet() -> Case:
    import efflite  # type: ignore[import-not-found]

    module, _, data = efflite.load()
    images = np.stack([efflite.prep(f, size) for f, _, size in data])
    labels = np.array([label for _, label, _ in data])
    calibrate = np.arange(len(data)) % 5 == 0
    return Case("efficientnet-lite0", module, images[calibrate], images[~calibrate], labels[~calibrate])


def _resnet20() -> Case:
    import cifar_resnet  # type: ignore[import-not-found]

    module, _, (images, labels) = cifar_resnet.load()
    raw = np.load(FIXTURES / "cifar10_a.npz")["x_calib"][:500].astype(np.float32) / 255
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    calibration = ((raw - mean) / std).transpose(0, 3, 1, 2).astype(np.float32)
    return Case("resnet20", module, calibration, images, labels)


def sqnr_db(reference: np.ndarray, got: np.ndarray) -> float:
    """10 log10(sum ref^2 / sum (ref - got)^2), in dB over all samples."""
    reference = reference.astype(np.float64)
    noise = ((reference - got) ** 2).sum()
    return float(10 * np.log10((reference**2).sum() / max(noise, 1e-30)))


def top1(logits: np.ndarray, labels: np.ndarray) -> float:
    """Per cent of rows whose largest logit is the label's."""
    return float((logits.argmax(1) == labels).mean() * 100)
