"""MiniLM in float and in integers on the sentence pairs of STS 2012 to 2014.

python benchmarks/transformer/sentences.py PAIRS; PAIRS of each year, 0 for all. Prints {"float", "ours": {year:
Spearman x 100}, "sqnr": dB over all sentence vectors, "float_nodes", "note"}. Every 10th pair of 2014 calibrates, and
is not scored.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import here
import numpy as np
from cache import cached, ours, text_of
from models import sqnr_db
from nets import loader
from recipe import ACCURATE
from sentences_export import MODEL, export

YEARS, EVERY, HELD = ("2012", "2013", "2014"), 10, "2014"
BATCH, TOKENS = 16, 128
CALIBRATION_BATCHES = 8
"""Of 16 sentences, spread over the held out ones by length."""


def held_out() -> list[dict[str, np.ndarray]]:
    """Batches to calibrate on."""
    _, _, data = loader("minilm").load(year=HELD)
    texts = sorted(data["a"][::EVERY] + data["b"][::EVERY], key=len)
    batches = []
    for start in np.linspace(0, len(texts) - BATCH, CALIBRATION_BATCHES).astype(int):
        batch = texts[start : start + BATCH]
        found = data["tok"](batch, padding=True, truncation=True, max_length=TOKENS, return_tensors="np")
        keys = {"ids": "input_ids", "mask": "attention_mask"}
        batches.append({k: found[key].astype(np.int64) for k, key in keys.items()})
    return batches


def integers(model: str, folder: Path) -> None:
    """Compile, and note how many nodes are float."""
    import mulshift
    from mulshift.ir import Level, levels
    from mulshift.passes.pipeline import Pipeline

    result = Pipeline(ACCURATE, checked=0).run(mulshift.load(model), held_out())
    made = result.levels[Level.INTEGER]
    names = [f"{node.name} ({node.op_type})" for node in levels.float_nodes(made)]
    (folder / "float_nodes.json").write_text(json.dumps(names))
    mulshift.lower(made, "onnxruntime").save(folder)


def scored(year: str, pairs: int) -> dict[str, Any]:
    """The loader's data without what calibrates; evenly spread `pairs` of it."""
    _, _, data = loader("minilm").load(year=year)
    rows = [i for i in range(len(data["s"])) if year != HELD or i % EVERY]
    rows = rows if not pairs else rows[:: max(1, len(rows) // pairs)][:pairs]
    return data | {k: [data[k][i] for i in rows] for k in ("s", "a", "b")}


def kept(session: Any, vectors: list[np.ndarray]) -> Callable[..., list[np.ndarray]]:
    """What the loader's evaluate runs; all outputs go to `vectors`."""
    names = [i.name for i in session.get_inputs()]

    def run(*arrays: np.ndarray) -> list[np.ndarray]:
        outputs: list[np.ndarray] = session.run(None, dict(zip(names, arrays, strict=True)))
        vectors.append(outputs[0])
        return outputs

    return run


def main(pairs: str) -> None:
    here.quiet()
    from sessions import floats, with_kernels

    exported = cached("float-sentences", text_of("transformer/sentences_export"), export) / MODEL
    key = [exported.parent.name, text_of("transformer/sentences"), ours(), ACCURATE]
    compiled = cached("ours-sentences", key, lambda folder: integers(str(exported), folder))
    ours_session, note = with_kernels(compiled / MODEL)
    vectors: tuple[list[np.ndarray], list[np.ndarray]] = [], []
    runs = {"float": kept(floats(exported), vectors[0]), "ours": kept(ours_session, vectors[1])}
    found: dict[str, Any] = {"float": {}, "ours": {}, "note": note}
    for year in YEARS:
        data = scored(year, int(pairs))
        for side, run in runs.items():
            found[side][year] = loader("minilm").evaluate(run, data)["spearman100"]
    found["sqnr"] = sqnr_db(*(np.concatenate(v) for v in vectors))
    found["float_nodes"] = json.loads((compiled / "float_nodes.json").read_text())
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
