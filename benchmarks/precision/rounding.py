"""One network with 4-bit weights and 8-bit activations, rounded by one method: quality, SQNR, seconds.

python benchmarks/precision/rounding.py MODEL METHOD [--quick]. MODEL: efficientnet-lite0, resnet20, minilm. METHOD: a
row of METHODS. The model is compiled to integers and run by our kernels; top-1 in per cent, or Spearman x 100 (mean of
the years), on data that did not calibrate. Artifacts are kept under build/, keyed by the package's sources; `--quick`
tells what a full run of the same sources found, scores fewer samples where there is only its artifact, and compiles
nothing: what is not kept is left out, and the reason printed.

Prints {"model", "method", "float", "quantized", "loss", "sqnr", "seconds", "samples", "note"}, or {..., "left_out"}.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import here
import numpy as np

sys.path.append(str(here.BENCHMARKS / "transformer"))

METHODS: dict[str, list[dict[str, Any]]] = {
    "nearest": [],
    "gptq": [{"pass": "gptq", "options": {"max_samples": 128}}],
    "adaround": [{"pass": "adaround", "options": {"max_samples": 128}}],
    "flexround": [{"pass": "flexround", "options": {"max_samples": 128}}],
    "decoupleq": [{"pass": "decoupleq", "options": {"max_samples": 128, "turns": 2}}],
    "best": [],
}
"""Passes in the place of those that learn in the recipe; "best" is the recipe as it is."""
LEARNS = ("gptq", "adaround", "flexround", "decoupleq", "tune-scales")
NOT_PLAIN = ("rotate",)
"""What only "best" has: the others are compared on the graph as it came."""


@dataclass(frozen=True)
class Net:
    """A row of NETS.

    Attributes:
        recipe: the best for it.
        export: writes model.onnx to a folder.
        calibration: samples.
        score: (float session, our session, quick) -> (float, quantized, SQNR in dB, samples).
    """

    recipe: str
    export: Callable[[Path], None]
    calibration: Callable[[], Any]
    score: Callable[[Any, Any, bool], tuple[float, float, float, int]]


def image_net(name: str, quick_images: int) -> Net:
    """A row for a classifier of `models.load`."""

    def export(folder: Path) -> None:
        import models
        import torch

        case = models.load(name)
        example = (torch.from_numpy(case.calibration[:2]),)
        options = {"dynamo": True, "external_data": False, "verbose": False}
        shapes = [{0: torch.export.Dim("batch")}]
        torch.onnx.export(case.module, example, folder / "model.onnx", dynamic_shapes=shapes, **options)

    def calibration() -> np.ndarray:
        import models

        return models.load(name).calibration

    def score(floats: Any, ours: Any, quick: bool) -> tuple[float, float, float, int]:
        import models

        case = models.load(name)
        count = quick_images if quick else len(case.scored)
        wanted, got = (outputs(session, case.scored[:count]) for session in (floats, ours))
        top1 = [models.top1(y, case.labels[:count]) for y in (wanted, got)]
        return top1[0], top1[1], models.sqnr_db(wanted, got), count

    return Net("w4a8-cnn", export, calibration, score)


def outputs(session: Any, images: np.ndarray) -> np.ndarray:
    """Of the one output, image by image."""
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: images[i : i + 1]})[0] for i in range(len(images))])


def sentence_net() -> Net:
    """MiniLM's row."""

    def export(folder: Path) -> None:
        import sentences_export

        sentences_export.export(folder)

    def calibration() -> Any:
        import sentences

        return sentences.held_out()

    def score(floats: Any, ours: Any, quick: bool) -> tuple[float, float, float, int]:
        import models
        import sentences
        from nets import loader

        vectors: tuple[list[np.ndarray], list[np.ndarray]] = [], []
        found: tuple[list[float], list[float]] = [], []
        data = [sentences.scored(year, 200 if quick else 0) for year in sentences.YEARS]
        for session, vs, points in zip((floats, ours), vectors, found, strict=True):
            run = sentences.kept(session, vs)
            points += [loader("minilm").evaluate(run, d)["spearman100"] for d in data]
        sqnr = models.sqnr_db(*(np.concatenate(v) for v in vectors))
        return float(np.mean(found[0])), float(np.mean(found[1])), sqnr, sum(len(d["s"]) for d in data)

    return Net("w4a8-transformer", export, calibration, score)


NETS: dict[str, Callable[[], Net]] = {
    "efficientnet-lite0": lambda: image_net("efficientnet-lite0", 200),
    "resnet20": lambda: image_net("resnet20", 1000),
    "minilm": sentence_net,
}


def recipe_of(net: Net, method: str) -> dict[str, Any]:
    """The net's recipe with the method in the place of what learns there."""
    from mulshift.passes.recipe import load_recipe

    loaded = load_recipe(net.recipe)
    steps: list[dict[str, Any]] = []
    for step in loaded.passes:
        if step.name == "to-integer":
            steps += METHODS[method]
        if method == "best" or step.name not in (*LEARNS, *NOT_PLAIN):
            steps.append({"pass": step.name, "options": dict(step.options)})
    return {"name": f"{net.recipe}-{method}", "description": loaded.description, "passes": steps}


def compiled(model: Path, net: Net, recipe: dict[str, Any], folder: Path) -> None:
    """The artifact, and how long it took."""
    import mulshift

    start = time.perf_counter()
    mulshift.compile(str(model), net.calibration(), recipe=recipe, output=folder / "artifact")
    (folder / "seconds.json").write_text(json.dumps(time.perf_counter() - start))


def measure(name: str, method: str, quick: bool) -> dict[str, Any]:
    """The row that is printed."""
    from cache import cached, ours, place, text_of

    net = NETS[name]()
    found: dict[str, Any] = {"model": name, "method": method}
    exported_key = (f"float-{name}", Path(__file__).read_text() + text_of("transformer/sentences_export"))
    recipe = recipe_of(net, method)
    kept = (f"rounding-{name}-{method}", [exported_key, ours(), recipe, text_of("transformer/sentences")])
    if quick and not (place(*kept).is_dir() and place(*exported_key).is_dir()):
        return found | {"left_out": "nothing is kept of these sources: run it without --quick first"}
    model = cached(*exported_key, net.export) / "model.onnx"
    folder = cached(*kept, lambda folder: compiled(model, net, recipe, folder))
    scored = (f"rounded-{name}-{method}", [kept, text_of("transformer/sessions")])
    if quick and not place(*scored).is_dir():
        return found | score(net, model, folder, quick)
    whole = cached(*scored, lambda out: write(out, score(net, model, folder, False)))
    return found | json.loads((whole / "score.json").read_text())


def score(net: Net, model: Path, folder: Path, quick: bool) -> dict[str, Any]:
    """Quality of the artifact in a folder."""
    from sessions import floats, with_kernels

    session, note = with_kernels(folder / "artifact" / "model.onnx")
    wanted, got, sqnr, count = net.score(floats(model), session, quick)
    seconds = json.loads((folder / "seconds.json").read_text())
    numbers = {"float": wanted, "quantized": got, "loss": wanted - got, "sqnr": sqnr, "seconds": seconds}
    return {k: round(v, 2) for k, v in numbers.items()} | {"samples": count, "note": note}


def write(folder: Path, scored: dict[str, Any]) -> None:
    """What a full run found, for later ones."""
    (folder / "score.json").write_text(json.dumps(scored))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=sorted(NETS))
    parser.add_argument("method", choices=list(METHODS))
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    here.quiet()
    sys.stdout.write(json.dumps(measure(options.model, options.method, options.quick)) + "\n")


if __name__ == "__main__":
    main()
