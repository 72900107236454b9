"""One network with half its weights zero, 2:4, nothing trained again: what each way of choosing the zeros costs.

python benchmarks/sparse/accuracy.py NET METHOD [--quick]. NET: efficientnet-lite0 (top-1 in per cent), minilm
(Spearman x 100), smollm2 (perplexity on wikitext-2; its linear layers but the head, which is the embedding). METHOD: a
row of METHODS, the float model with zeros; or "recipe", the artifact that NET's recipe makes, on our kernels.

Calibration: what benchmarks/precision/cases.py has, and for smollm2 CHUNKS of 512 tokens of the same text, behind those
that are scored. Models with zeros are kept under build/, keyed by the package's sources. `--quick` scores less, and
prunes nothing: what is not kept is left out, and the reason printed; where all was scored before, it prints that.

Prints {"model", "method", "metric", "float", "sparse", "kept", "seconds", "samples"}, or {..., "left_out"}; `kept` is
the share of the squares of the weights that stay before any of them moves, seconds are those of the passes.
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

sys.path[1:1] = [str(here.BENCHMARKS / "precision"), str(here.BENCHMARKS / "transformer")]

from cache import cached, ours, place, text_of  # noqa: E402

SCORED, CHUNKS = 20, 64
"""Chunks of 512 tokens that score SmolLM2, and that calibrate it."""
QUICK = {"efficientnet-lite0": 100, "minilm": 150, "smollm2": 4}
RECIPES = {"efficientnet-lite0": "int8-2x4", "minilm": "int8-2x4-transformer"}
SCORES_FILE = "scores.json"
PREPARED = ("canonicalize", "fold-bn", "fuse")
SCORES = ("magnitude", "wanda", "sparsegpt", "admm")
METHODS: dict[str, list[tuple[str, dict[str, Any]]]] = {
    **{score: [("sparsify", {"score": score})] for score in SCORES},
    **{f"{score}+permutation": [("permute-channels", {}), ("sparsify", {"score": score})] for score in SCORES},
}
SPARSIFY = {"max_samples": 64, "positions": 256, "iterations": 20}


@dataclass(frozen=True)
class Net:
    """What a run needs.

    Attributes:
        path: float ONNX model.
        metric: what `score` gives.
        calibration: feeds.
        score: of a session, in the metric's unit.
        samples: how many are scored.
    """

    path: Path
    metric: str
    calibration: list[Any]
    score: Callable[[Any], float]
    samples: int


def labelled(name: str, quick: bool) -> Net:
    """A net of benchmarks/precision/cases.py."""
    import cases

    case = cases.case(name, QUICK[name] if quick else 0)

    def score(session: Any) -> float:
        return case.score(case.outputs(cases.as_run(session)))

    count = sum(len(next(iter(feeds.values()))) for feeds in case.scored)
    return Net(case.path, case.metric, list(case.calibration), score, count)


def language(quick: bool) -> Net:
    """SmolLM2."""
    import models
    from language_export import MODEL, export
    from nets import loader

    def tokens(folder: Path) -> None:
        text = (models.FIXTURES / "wikitext2_valid.txt").read_text(encoding="utf-8")
        chunks = loader("smollm2").load(n=SCORED + CHUNKS, text=text)[2]
        np.save(folder / "chunks.npy", np.concatenate(chunks[: SCORED + CHUNKS]))

    path = cached("float-language", text_of("transformer/language_export"), export) / MODEL
    chunks = np.load(cached("language-text", [SCORED, CHUNKS], tokens) / "chunks.npy")
    scored = [chunk[None] for chunk in chunks[: QUICK["smollm2"] if quick else SCORED]]

    def score(session: Any) -> float:
        return float(loader("smollm2").evaluate(session, scored)["ppl"])

    return Net(path, "perplexity", [{"ids": c[None]} for c in chunks[SCORED:]], score, len(scored))


def pruned(net: Net, method: str, folder: Path) -> None:
    """model.onnx with zeros, and what is told of it."""
    import onnx_ir as ir

    import mulshift
    from mulshift.passes import PASSES

    model = mulshift.load(str(net.path))
    start = time.perf_counter()
    for name in PREPARED:
        PASSES[name]()(model)
    for name, options in METHODS[method]:
        step = PASSES[name](samples=net.calibration, **options, **(SPARSIFY if name == "sparsify" else {}))  # type: ignore[call-arg]
        step(model)
    told = [float(note.what.split(": ")[1].split(" %")[0]) for note in step.log.changed]
    ir.save(model, folder / "model.onnx")
    facts = {"seconds": round(time.perf_counter() - start), "kept": round(float(np.mean(told)), 2)}
    (folder / "facts.json").write_text(json.dumps(facts))


def compiled(net: Net, recipe: str, folder: Path) -> None:
    """The artifact of a recipe."""
    import mulshift

    start = time.perf_counter()
    mulshift.compile(str(net.path), net.calibration, recipe=recipe, output=folder / "artifact")
    (folder / "facts.json").write_text(json.dumps({"seconds": round(time.perf_counter() - start)}))


def measure(name: str, method: str, quick: bool) -> dict[str, Any]:
    """The row that is printed."""
    from sessions import floats, with_kernels

    whole = (f"sparse-scored-{name}-{method}", scored_key(name, method))
    if place(*whole).is_dir():
        return read_json(place(*whole) / SCORES_FILE)
    net = language(quick) if name == "smollm2" else labelled(name, quick)
    found: dict[str, Any] = {"model": name, "method": method, "metric": net.metric}
    kept = (f"sparse-{name}-{method}", [net.path.parent.name, ours(), steps(name, method)])
    if quick and not place(*kept).is_dir():
        return found | {"left_out": "nothing is kept of these sources: run it without --quick first"}
    if method == "recipe":
        folder = cached(*kept, lambda folder: compiled(net, RECIPES[name], folder))
        session = with_kernels(folder / "artifact" / "model.onnx")[0]
    else:
        folder = cached(*kept, lambda folder: pruned(net, method, folder))
        session = floats(folder / "model.onnx")
    both = {"float": round(net.score(floats(net.path)), 2), "sparse": round(net.score(session), 2)}
    found |= both | read_json(folder / "facts.json") | {"samples": net.samples}
    if not quick:
        cached(*whole, lambda folder: save_json(folder / SCORES_FILE, found))
    return found


def steps(name: str, method: str) -> object:
    """What makes the zeros, as a part of keys."""
    return RECIPES[name] if method == "recipe" else [METHODS[method], SPARSIFY, CHUNKS]


def scored_key(name: str, method: str) -> list[object]:
    """Of a full run's scores, without a look at the model: what makes, exports and scores it."""
    scripts = text_of(
        "transformer/language_export", "transformer/sentences_export", "transformer/sentences", "transformer/sessions"
    )
    cases = (here.BENCHMARKS / "precision" / "cases.py").read_text(encoding="utf-8")
    return [ours(), steps(name, method), SCORED, scripts, cases]


def read_json(path: Path) -> dict[str, Any]:
    """One object."""
    value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return value


def save_json(path: Path, value: Any) -> None:
    """Write it."""
    path.write_text(json.dumps(value))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("net", choices=[*RECIPES, "smollm2"])
    parser.add_argument("method", choices=[*METHODS, "recipe"])
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    if options.method == "recipe" and options.net not in RECIPES:
        parser.error(f"there is no recipe for {options.net}")
    here.quiet()
    sys.stdout.write(json.dumps(measure(options.net, options.method, options.quick)) + "\n")


if __name__ == "__main__":
    main()
