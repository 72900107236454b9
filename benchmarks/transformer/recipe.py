"""Which recipe the benchmarks compile transformers with, and variations of it."""

from __future__ import annotations

from typing import Any

RECIPE = "int8-transformer"
ACCURATE = "int8-transformer-gptq"
"""Where accuracy is measured, and not speed."""
DECODER = "int8-per-token"
"""For perplexity; accuracy is never measured with REDUCED."""
REDUCED = "-reduce-range"
"""Without VNNI, what int8 is exact and fast with (docs/passes.md): weights within +-64."""


def recipe_name() -> str:
    """The recipe for this machine."""
    from mulshift import kernels

    return RECIPE + ("" if kernels.instruction_set() != "avx2" else REDUCED)


QUICK_OPTIONS: dict[str, dict[str, Any]] = {
    "smooth": {"count": 1, "alphas": [0.5]},
    "calibrate": {"method": "min-max"},
}
"""For speed alone: the same operators, found in less time."""


def varied(
    weight_bits: int = 8,
    rotate: bool = False,
    without: tuple[str, ...] = (),
    rounding: str = "",
    recipe: str = "",
    **options: dict[str, Any],
) -> dict[str, Any]:
    """The recipe with weights of other bits, with `rotate` after `fuse`, without some passes, with other options.

    Args:
        rounding: a pass that learns, before `to-integer`.
        recipe: another one.
        options: pass (underscores for hyphens) -> options that replace the recipe's.
    """
    from mulshift.passes.recipe import load_recipe

    passes: list[dict[str, Any]] = []
    for step in load_recipe(recipe or (recipe_name() if weight_bits == 8 else RECIPE)).passes:
        chosen = {**step.options, **options.get(step.name.replace("-", "_"), {})}
        if step.name == "insert-fake-quant" and weight_bits != 8:
            chosen["weight_bits"] = weight_bits
        if step.name == "to-integer" and rounding:
            passes.append({"pass": rounding})
        if step.name not in without:
            passes.append({"pass": step.name, "options": chosen})
        if step.name == "fuse" and rotate:
            passes.append({"pass": "rotate"})
    return {"name": "varied", "description": RECIPE, "passes": passes}
