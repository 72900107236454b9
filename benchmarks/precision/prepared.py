"""A case measured once: its calibrated graph and its table, kept in build/ for every budget, solver and script."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx_ir as ir
from cache import CACHE, cached, ours
from cases import Case, Run, as_run

from mulshift.assigning import before_quantization, rounding_of
from mulshift.determinism import one_torch_thread
from mulshift.ir import Level, load
from mulshift.passes.allocation.candidates import parse_candidates
from mulshift.passes.allocation.choice import Assignment
from mulshift.passes.allocation.groups import integer_names
from mulshift.passes.allocation.measurements import How, Measurements, measure
from mulshift.passes.allocation.metric import simulated
from mulshift.passes.pipeline import Pipeline
from mulshift.passes.recipe import Recipe, Step, load_recipe

CANDIDATES = ("w8a8", "w4a8")
PROBES = 8
COUNT = {True: 8, False: 16}
GRAPH = "graph.onnx"


def kept(name: str, key: object, make: Callable[[], dict[str, Any]]) -> str:
    """The JSON of `make()`, from build/ if these sources made it before with this key."""

    def write(folder: Path) -> None:
        (folder / "result.json").write_text(json.dumps(make()))

    own = "".join(p.read_text(encoding="utf-8") for p in sorted(Path(__file__).parent.glob("*.py")))
    return (cached(f"precision-{name}", [key, ours(), own], write) / "result.json").read_text()


@dataclass(frozen=True)
class Prepared:
    """Attributes:
    case: the model and its data.
    graph: calibrated FLOAT graph.
    recipe: the whole of it.
    quick: whether fewer samples are used.
    """

    case: Case
    graph: Any
    recipe: Recipe
    quick: bool

    def measured(self, sensitivity: str = "gradient", candidates: Sequence[str] = CANDIDATES) -> Measurements:
        """The table, from build/ if it was measured before."""
        rounding = rounding_of(self.recipe, candidates)
        how = How(sensitivity, COUNT[self.quick], PROBES, workspace=CACHE / "allocation", rounding=rounding)
        with one_torch_thread():
            return measure(self.graph, self.case.calibration, parse_candidates(candidates), how)

    def artifact(self, measured: Measurements, assignment: Assignment) -> Run:
        """The integer model with the assigned bits, on the kernel library.

        Raises:
            SystemExit: insert-fake-quant gave a product more bits than it was assigned.
        """
        import mulshift
        from mulshift.backends.kernel_session import session

        given = {name: str(c) for name, c in assignment.products(measured).items()}
        start = len(before_quantization(self.recipe).passes)
        decide = Step.model_validate({"pass": "assign-precision", "options": {"given": given}})
        rest = self.recipe.model_copy(update={"passes": (decide, *self.recipe.passes[start:])})
        with one_torch_thread():
            made = Pipeline(rest, checked=0).run(self.graph, self.case.calibration).levels[Level.INTEGER]
        _check(made, self.integer_bits(measured, assignment))
        return as_run(session(mulshift.lower(made, "onnxruntime").serialize(), 2))

    def integer_bits(self, measured: Measurements, assignment: Assignment) -> dict[str, int]:
        """Weight bits by node of the INTEGER graph."""
        names = integer_names(self.graph.graph)
        return {names[n]: c.precision.weights for n, c in assignment.products(measured).items()}

    def simulation(self, measured: Measurements, assignment: Assignment | None) -> Run:
        """The float graph with its products rounded, in the interpreter."""
        return simulated(self.graph, measured, assignment)


def prepare(case: Case, quick: bool) -> Prepared:
    """Run the recipe's passes before quantization, or take what they made before."""
    recipe = load_recipe(case.recipe)

    def make() -> ir.Model:
        return Pipeline(before_quantization(recipe), checked=0).run(load(case.path), case.calibration).model

    return Prepared(replace(case), kept_graph(f"calibrated-{case.name}", case, make), recipe, quick)


def kept_graph(name: str, case: Case, make: Callable[[], ir.Model]) -> ir.Model:
    """The graph of `make()`, from build/ if these sources made it of this model before."""

    def write(folder: Path) -> None:
        with one_torch_thread():
            ir.save(make(), folder / GRAPH, external_data=f"{GRAPH}.data")

    return ir.load(cached(f"precision-{name}", [case.path.parent.name, ours()], write) / GRAPH)


def _check(model: Any, bits: dict[str, int]) -> None:
    import numpy as np

    from mulshift.ir import constant
    from mulshift.single_nodes import is_weighted

    for node in model.graph:
        width = bits.get(str(node.name), 8)
        if is_weighted(node) and width < 8:
            w = constant(node.inputs[1])
            if w is not None and np.abs(w.astype(int)).max(initial=0) > 1 << (width - 1):
                raise SystemExit(f"{node.name} was assigned {width} bits and has more: use --simulate")
