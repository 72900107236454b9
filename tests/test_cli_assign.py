"""assign, profile and compile with budgets, on the command line and in Python."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from allocation_graphs import CHAIN, CONSTANTS, SAMPLES
from cli_net import RECIPE, good
from qdq_graphs import graph

from mulshift import Workers, kernel_profile, kernels
from mulshift import compile as compile_model
from mulshift.backends import lower
from mulshift.cli import run_command
from mulshift.ir import Level
from mulshift.kernel_profile import profile, quick_recipe
from mulshift.passes.allocation.groups import integer_names
from mulshift.passes.pipeline import Pipeline
from mulshift.passes.precision import precision_of
from mulshift.replaying import replay
from mulshift.single_nodes import Form, is_weighted, single_nodes, with_weights_of

METRICS = """
import numpy as np
def top1(run):
    return {"top1": float(np.ptp(run({"x": np.load("data.npz")["x"][:1]})["y"]))}
def broken(run):
    return 1
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    good(tmp_path)
    (tmp_path / "metrics.py").write_text(METRICS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("MULSHIFT_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture
def ask(folder: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    def run(*arguments: str, code: int = 0) -> Any:
        capsys.readouterr()
        quiet = [] if arguments[0] == "inspect" else ["-q"]
        assert run_command([*arguments, *quiet]) == code, capsys.readouterr().err
        out, err = capsys.readouterr()
        return json.loads(out) if "--json" in arguments else out + err

    return run


ASSIGN = ("assign", "net.onnx", "-c", "data.npz", "-r", "recipe.yaml")


def test_assign_tells_people_and_machines(ask: Any) -> None:
    shown = ask(*ASSIGN, "--budget", "size=0.6", "-o", "table.json", "--plot", "front.svg")
    for words in ("conv", "w4a8", "size, share of all w8a8", "predicted loss (gradient)"):
        assert words in shown
    made = ask(*ASSIGN, "--budget", "size=0.6", "--json")
    assert made == json.loads(Path("table.json").read_text())
    assert made["products"] == {"conv": "w4a8"} and made["shares"]["size"] == 0.5
    assert [p["share"] for p in made["front"]["points"]] == [14 / 54, 0.5, 1.0]  # bytes are whole
    assert Path("front.svg").read_text().startswith("<svg")


def test_other_budgets_are_solved_without_measuring(ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ask(*ASSIGN, "--budget", "size=0.6")
    monkeypatch.setattr("mulshift.passes.allocation.measurements.save_job", lambda *_: pytest.fail("measured again"))
    assert ask(*ASSIGN, "--budget", "size=0.3", "--json")["products"] == {"conv": "w2a8"}


def test_what_cannot_be_met_is_one_line(ask: Any) -> None:
    told = ask(*ASSIGN, "--budget", "size=0.2", code=2)
    assert told.startswith("mulshift: error: budgets: infeasible because size=0.2 cannot be met: the least is 0.26")
    assert len(told.splitlines()) == 1


def test_metrics_are_the_users_function(ask: Any) -> None:
    assert ask(*ASSIGN, "--budget", "top1=-100", "--metrics", "metrics.py:top1", "--json")["products"]["conv"] == "w2a8"
    assert "returned a int" in ask(*ASSIGN, "--budget", "top1=-1", "--metrics", "metrics.py:broken", code=4)
    assert "no 'nothing'" in ask(*ASSIGN, "--budget", "top1=-1", "--metrics", "metrics.py:nothing", code=2)


def test_compile_records_the_decision_and_replay_measures_nothing(ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ask("compile", "net.onnx", "-c", "data.npz", "-r", "recipe.yaml", "-o", "out", "--budget", "size=0.6")
    lock = json.loads(Path("out/lock.json").read_text())
    assert "given:\n      conv: w4a8" in lock["recipe"]
    layers = {r["node"]: r["precision"] for r in json.loads(Path("out/report.json").read_text())["layers"]}
    assert layers["conv"] == "w4a8" and set(layers.values()) == {"w4a8", None}
    assert "w4a8" in ask("inspect", "out")
    monkeypatch.setattr("mulshift.passes.assign_precision.measure", lambda *_: pytest.fail("measured again"))
    assert replay("out").same


def test_who_measures_is_not_recorded(folder: Path) -> None:
    """The same lock, whatever the workers; the second finds what the first measured."""
    options = {"recipe": "recipe.yaml", "budgets": ["size=0.6"]}
    locks = [
        compile_model("net.onnx", "data.npz", **options, workers=workers).lock  # type: ignore[arg-type]
        for workers in (None, Workers(jobs=2, workspace=folder / "cache" / "allocation"))
    ]
    assert locks[0] == locks[1]


# Profile -------------------------------------------------------------------------------------------------------------

needs_kernels = pytest.mark.skipif(not kernels.is_built(), reason="the kernel library is not built")


@needs_kernels
def test_profile_times_each_product_once(ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made = ask("profile", "net.onnx", "-c", "data.npz", "-r", "recipe.yaml", "--seconds", "0.01", "--json")
    (product,) = made["products"]
    assert product["name"] == "conv" and set(product["seconds"]) == {str(f) for f in kernel_profile.FORMS}
    assert all(0 < s < 1 for s in product["seconds"].values()) and 0 < made["model"] < 1
    monkeypatch.setattr(kernel_profile, "time_nodes", lambda *_: pytest.fail("timed again"))
    assert ask("profile", "net.onnx", "-c", "data.npz", "-r", "recipe.yaml", "--json") == made
    shown = ask("profile", "net.onnx", "-c", "data.npz", "-r", "recipe.yaml")
    assert "us, 4 bits" in shown and "2:4:shared" in shown and made["machine"] in shown


@needs_kernels
def test_a_budget_on_latency_takes_the_profile(ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Times are made up, so that the test does not depend on the machine: 4 bits cost half."""
    monkeypatch.setattr(kernel_profile, "time_model", lambda *_: 100e-6)
    monkeypatch.setattr(kernel_profile, "time_nodes", lambda nodes, *_: dict.fromkeys(nodes, 80e-6))
    ask("profile", "net.onnx", "-c", "data.npz", "-r", "recipe.yaml")
    monkeypatch.setattr(kernel_profile.Profile, "latencies", halved)
    assert ask(*ASSIGN, "--budget", "latency=0.7", "--json")["products"] == {"conv": "w4a8"}
    assert "infeasible because latency=0.5" in ask(*ASSIGN, "--budget", "latency=0.5", code=2)
    made = compile_model("net.onnx", "data.npz", recipe="recipe.yaml", budgets=["latency=0.7"])
    assert "conv: w4a8" in made.lock.recipe and "model_latency" not in made.lock.recipe


def halved(self: kernel_profile.Profile, candidates: Any) -> Any:
    from mulshift.passes.allocation.costs import Latencies

    seconds = {p.name: {str(c): 1e-5 * c.precision.weights for c in candidates} for p in self.products}
    return Latencies({k: {**row, "w2a8": 5e-5, "w2a4": 5e-5} for k, row in seconds.items()}, self.model)


@needs_kernels
def test_every_product_of_a_graph_is_found_and_narrow_weights_are_narrow(tmp_path: Path) -> None:
    model = graph(CHAIN, CONSTANTS)
    found = profile(model, SAMPLES, "int8-fast", seconds=0.001, folder=tmp_path)
    assert [p.name for p in found.products] == ["Conv_0", "Conv_2", "Gemm_6"]
    integer = Pipeline("int8-fast", checked=0).run(model, SAMPLES).levels[Level.INTEGER]
    for bits, limit in ((8, 127), (4, 7), (2, 1)):
        nodes = [n for n in with_weights_of(integer, Form(bits)).graph if is_weighted(n)]
        largest = [int(np.abs(n.inputs[1].const_value.numpy()).max()) for n in nodes]  # type: ignore[union-attr]
        assert len(nodes) == 3 and max(largest) == limit


@needs_kernels
def test_nodes_of_one_shape_share_a_time_only_if_their_weights_are_equally_fast() -> None:
    """A block of 8-bit weights whose pairs do not fit 16 bits is slower without VNNI than one whose pairs do."""
    integer = Pipeline("int8-fast", checked=0).run(graph(CHAIN, CONSTANTS), SAMPLES).levels[Level.INTEGER]
    names = {str(n.name) for n in integer.graph if is_weighted(n)}
    keys = [
        {
            n.name: n.key
            for n in single_nodes(lower(with_weights_of(integer, Form(bits)), "onnxruntime").model, names, feeds)
        }
        for bits, feeds in ((8, SAMPLES[0]), (8, SAMPLES[1]), (4, SAMPLES[0]))
    ]
    assert keys[0] == keys[1]
    assert all(keys[0][name] != keys[2][name] for name in names)


@needs_kernels
def test_a_product_with_a_bias_behind_it_keeps_its_name(tmp_path: Path) -> None:
    """A MatMul and the Add of its bias are one node in integers, which is called after the Add."""
    body = "{ a = MatMul(x, w) b = Add(a, c) y = MatMul(b, w) }"
    constants = {"w": CONSTANTS["w3"][:, :5].copy(), "c": CONSTANTS["b3"]}
    model = graph(f"(float[2, 5] x) => (float[2, 5] y) {body}", constants)
    assert integer_names(model.graph) == {"MatMul_0": "Add_1", "MatMul_2": "MatMul_2"}
    samples = [{"x": CONSTANTS["w3"][:2, 1:].copy()}]
    found = profile(model, samples, "int8-fast", seconds=0.001, folder=tmp_path)
    assert [p.name for p in found.products] == ["MatMul_0", "MatMul_2"]


def test_a_recipe_is_profiled_without_what_tunes_it(tmp_path: Path) -> None:
    names = [step.name for step in quick_recipe("int8").passes]
    assert names == ["canonicalize", "fold-bn", "fuse", "calibrate", "insert-fake-quant", "narrow-scales", "to-integer"]
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    assert quick_recipe(tmp_path / "recipe.yaml").name == "short"


def test_precisions_reach_the_last_float_graph(folder: Path) -> None:
    made = compile_model("net.onnx", "data.npz", recipe="recipe.yaml", budgets=["size=0.6"])
    found = {str(n.name): str(precision_of(n)) for n in made.levels[Level.FLOAT].graph if precision_of(n)}
    assert found == {"conv": "w4a8"}
