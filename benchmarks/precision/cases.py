"""The models whose mixed precision is measured: exported, with data to calibrate on and labelled data to score on.

`here.py` and `cache.py` are those of benchmarks/transformer; scripts of this folder are run by themselves.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

BENCHMARKS = Path(__file__).resolve().parent.parent
sys.path[1:1] = [str(BENCHMARKS / "transformer")]

import here  # noqa: E402
import models  # noqa: E402
from cache import cached  # noqa: E402

Feeds = Mapping[str, np.ndarray]
Run = Callable[[Feeds], dict[str, np.ndarray]]
CALIBRATION, ROWS = 64, 20
QUICK = {"efficientnet-lite0": 100, "resnet20": 1000, "minilm": 150}
"""Images or pairs of sentences that quick mode scores."""


@dataclass(frozen=True)
class Case:
    """One model.

    Attributes:
        name: as typed.
        path: float ONNX model.
        recipe: that quantizes it.
        calibration: feeds.
        scored: feeds with labelled data.
        metric: name of the metric.
        score: its value, in points, from the first output on all of `scored`.
        loss: mean loss from the same, on labels.
        divergence: what rounding changes of what the score is made from, label-free: mean KL divergence, or mean
            squared change of the similarities.
    """

    name: str
    path: Path
    recipe: str
    calibration: list[Feeds]
    scored: list[Feeds]
    metric: str
    score: Callable[[list[np.ndarray]], float]
    loss: Callable[[list[np.ndarray]], float]
    divergence: Callable[[list[np.ndarray], list[np.ndarray]], float]

    def outputs(self, run: Run) -> list[np.ndarray]:
        """The first output on each of `scored`."""
        return [next(iter(run(feeds).values())) for feeds in self.scored]


def case(name: str, count: int = 0) -> Case:
    """`efficientnet-lite0`, `resnet20` or `minilm`, with so many labelled images or pairs; 0 for all."""
    here.quiet()
    return _minilm(count) if name == "minilm" else _classifier(name, count)


def _classifier(name: str, count: int) -> Case:
    data = models.load(name)

    def export(folder: Path) -> None:
        import torch

        example = (torch.from_numpy(data.calibration[:2]),)
        options = {"dynamo": True, "external_data": False, "verbose": False, "input_names": ["x"]}
        with torch.no_grad():
            shapes = [{0: torch.export.Dim("batch")}]
            torch.onnx.export(data.module, example, folder / "model.onnx", dynamic_shapes=shapes, **options)

    path = cached(f"float-classifier-{name}", name, export) / "model.onnx"
    count = count or len(data.labels)
    images, labels = data.scored[:count], data.labels[:count]
    scored = [{"x": images[i : i + ROWS]} for i in range(0, count, ROWS)]
    calibration = [{"x": image[None]} for image in data.calibration[:CALIBRATION]]

    def score(outputs: list[np.ndarray]) -> float:
        return models.top1(np.concatenate(outputs), labels)

    def log_softmax(outputs: list[np.ndarray]) -> np.ndarray:
        logits = np.concatenate(outputs).astype(np.float64)
        logits -= logits.max(axis=1, keepdims=True)
        return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))

    def loss(outputs: list[np.ndarray]) -> float:
        return float(-log_softmax(outputs)[np.arange(len(labels)), labels].mean())

    def divergence(expected: list[np.ndarray], got: list[np.ndarray]) -> float:
        p, q = log_softmax(expected), log_softmax(got)
        return float((np.exp(p) * (p - q)).sum(axis=1).mean())

    return Case(name, path, "int8", calibration, scored, "top-1", score, loss, divergence)


def _minilm(count: int) -> Case:
    from scipy.stats import spearmanr
    from sentences import TOKENS, held_out, scored
    from sentences_export import MODEL, export

    path = cached("float-sentences-pairs", "1", export) / MODEL
    data = scored("2013", count)
    order = sorted(range(len(data["s"])), key=lambda i: len(data["a"][i]) + len(data["b"][i]))
    batches = [order[i : i + ROWS] for i in range(0, len(order), ROWS)]
    feeds: list[Feeds] = []
    for batch in batches:
        texts = [data["a"][i] for i in batch] + [data["b"][i] for i in batch]
        found = data["tok"](texts, padding=True, truncation=True, max_length=TOKENS, return_tensors="np")
        feeds.append({"ids": found["input_ids"].astype(np.int64), "mask": found["attention_mask"].astype(np.int64)})
    human = np.array([data["s"][i] for batch in batches for i in batch])

    def similarity(outputs: list[np.ndarray]) -> np.ndarray:
        halves = [(v[: len(v) // 2], v[len(v) // 2 :]) for v in outputs]
        return np.concatenate([(a * b).sum(axis=1) for a, b in halves])

    def score(outputs: list[np.ndarray]) -> float:
        return 100 * float(spearmanr(similarity(outputs), human).statistic)

    def loss(outputs: list[np.ndarray]) -> float:
        return float(((similarity(outputs) - human / 5) ** 2).mean())

    def divergence(expected: list[np.ndarray], got: list[np.ndarray]) -> float:
        return float(((similarity(expected) - similarity(got)) ** 2).mean())

    return Case("minilm", path, "int8-transformer", held_out(), feeds, "Spearman x 100", score, loss, divergence)


def sqnr(expected: list[np.ndarray], got: list[np.ndarray]) -> float:
    """dB over all outputs."""
    return models.sqnr_db(np.concatenate(expected), np.concatenate(got))


def float_run(path: Path) -> Run:
    """The float model on ONNX Runtime."""
    from sessions import floats

    return as_run(floats(path))


def as_run(session: Any) -> Run:
    """A session as a function of feeds."""
    names = [o.name for o in session.get_outputs()]
    return lambda feeds: dict(zip(names, session.run(names, dict(feeds)), strict=True))
