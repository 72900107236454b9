"""SmolLM2-135M: perplexity on wikitext-2, in float and in integers.

python benchmarks/transformer/language.py WHAT CHUNKS; WHAT is a row of COMPILED, or "float". Prints {"perplexity",
"float_nodes", "note"} over the first CHUNKS of 512 tokens. CALIBRATION chunks of the same text, behind the last that
any run scores, calibrate; LEARNING where GPTQ learns. The export and what was compiled stay in build/.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import here
import models
import numpy as np
from cache import cached, ours, text_of
from language_export import MODEL, SCORED, export
from nets import loader
from recipe import DECODER, varied

CALIBRATION, LEARNING = 4, 16
"""Chunks for ranges, and for GPTQ: 2048 tokens do not tell the second moments of 1536 channels."""
COMPILED: dict[str, dict[str, Any]] = {
    "W8A8": {"recipe": DECODER},
    "W4A8": {"recipe": DECODER, "weight_bits": 4, "without": ("rotate",)},
    "W4A8 rotated": {"recipe": DECODER, "weight_bits": 4},
    "W4A8 GPTQ": {"recipe": DECODER, "weight_bits": 4, "without": ("rotate",), "rounding": "gptq"},
    "W4A8 GPTQ rotated": {"recipe": DECODER, "weight_bits": 4, "rounding": "gptq"},
}
"""Variations of the recipe."""


def calibration(folder: Path) -> None:
    """chunks.npy, [LEARNING, TOKENS]."""
    text = (models.FIXTURES / "wikitext2_valid.txt").read_text(encoding="utf-8")
    chunks = loader("smollm2").load(n=SCORED + LEARNING, text=text)[2]
    np.save(folder / "chunks.npy", np.concatenate(chunks[SCORED : SCORED + LEARNING]))


def count(what: str) -> int:
    """Chunks that calibrate a row of COMPILED."""
    return LEARNING if "rounding" in COMPILED[what] else CALIBRATION


def integers(what: str, exported: Path, folder: Path) -> None:
    """Compile, and note which nodes are float."""
    import mulshift
    from mulshift.ir import Level, levels
    from mulshift.passes.pipeline import Pipeline

    text = cached("language-calibration", [exported.name, LEARNING], calibration)
    samples = [{"ids": chunk[None]} for chunk in np.load(text / "chunks.npy")[: count(what)]]
    result = Pipeline(varied(**COMPILED[what]), checked=0).run(mulshift.load(str(exported / MODEL)), samples)
    made = result.levels[Level.INTEGER]
    names = [f"{node.name} ({node.op_type})" for node in levels.float_nodes(made)]
    (folder / "float_nodes.json").write_text(json.dumps(names))
    mulshift.lower(made, "onnxruntime").save(folder)


def main(what: str, chunks: str) -> None:
    here.quiet()
    from sessions import floats, with_kernels

    exported = cached("float-language", text_of("transformer/language_export"), export)
    found: dict[str, Any] = {"float_nodes": [], "note": ""}
    if what == "float":
        session = floats(exported / MODEL)
    else:
        key = [exported.name, ours(), count(what), varied(**COMPILED[what])]
        name = f"ours-language-{what.replace(' ', '-').lower()}"
        compiled = cached(name, key, lambda folder: integers(what, exported, folder))
        session, found["note"] = with_kernels(compiled / MODEL)
        found["float_nodes"] = json.loads((compiled / "float_nodes.json").read_text())
    scored = [chunk[None] for chunk in np.load(exported / "chunks.npy")[: int(chunks)]]
    found["perplexity"] = loader("smollm2").evaluate(session, scored)["ppl"]
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
