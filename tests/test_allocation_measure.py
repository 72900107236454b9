"""Sensitivities against measured loss; the same table whatever runs it and however often it was killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import qdq_graphs as g
from allocation_graphs import CONSTANTS, SAMPLES, calibrated, chain

from mulshift.ir import DataError, UnsupportedError, UsageError
from mulshift.passes.allocation.candidates import DEFAULT, parse_candidates
from mulshift.passes.allocation.executors import processes
from mulshift.passes.allocation.files import append, read_journal
from mulshift.passes.allocation.measurements import How, Measurements, measure, never_better

CANDIDATES = parse_candidates(DEFAULT)


def table(how: How, **options: object) -> Measurements:
    return measure(chain(), SAMPLES, CANDIDATES, how, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def measured() -> Measurements:
    return table(How("sqnr", count=4))


@pytest.mark.parametrize(("name", "least"), [("gradient", 0.9), ("hessian", 0.9), ("kl", 0.6)])
def test_it_orders_candidates_as_measured_noise_does(name: str, least: float, measured: Measurements) -> None:
    """kl weighs the outputs otherwise: those of small probability hardly count."""
    from scipy.stats import spearmanr

    found = table(How(name, count=4, probes=8))
    pairs = [
        (found.loss[group.name][str(c)], measured.loss[group.name][str(c)])
        for group in measured.groups
        for c in CANDIDATES
    ]
    assert min(a for a, _ in pairs) >= 0
    assert spearmanr(*zip(*pairs, strict=True)).statistic > least


def test_gradient_and_hessian_estimate_the_measured_noise(measured: Measurements) -> None:
    """The same quantity to first order: at 8 bits, where the first order is all, within a factor of 2."""
    for name in ("gradient", "hessian"):
        found = table(How(name, count=4, probes=64))
        for group in measured.groups:
            ratio = found.loss[group.name]["w8a8"] / measured.loss[group.name]["w8a8"]
            assert 0.5 < ratio < 2.0


def test_sqnr_is_the_noise_of_a_linear_layer() -> None:
    """y = x w: the noise of rounding w alone can be computed by hand."""
    from mulshift.passes.allocation.weights import rounded_weights
    from mulshift.passes.calibrate import Calibrate
    from mulshift.passes.precision import Precision

    w, x = g.normal(4, 3, seed=1), np.array([[255.0, 0.0, 17.0, 3.0]], np.float32)  # x is on its grid of step 1
    model = g.graph("(float[1, 4] x) => (float[1, 3] y) { y = MatMul(x, w) }", {"w": w})
    Calibrate(samples=[{"x": x}])(model)
    found = measure(model, [{"x": x}], parse_candidates(["w4a8"]), How("sqnr"))
    change = x.astype(np.float64) @ (rounded_weights(w, 1, Precision(4)).astype(np.float64) - w)
    expected = (change**2).sum() / ((x.astype(np.float64) @ w) ** 2).sum()
    assert found.loss["MatMul_0"]["w4a8"] == pytest.approx(expected, rel=1e-4)  # float32 products


@pytest.mark.parametrize("name", ["gradient", "hessian", "sqnr"])
def test_weights_behind_a_transpose_are_those_weights(name: str) -> None:
    """The same table as for the transposed constant."""
    w, samples = g.normal(3, 4, seed=1), [{"x": g.normal(2, 4, seed=i)} for i in range(3)]
    bodies = {"t = Transpose<perm=[1,0]>(w) y = MatMul(x, t)": w, "y = MatMul(x, w)": w.T.copy()}
    tables = []
    for body, weight in bodies.items():
        model = calibrated(g.graph(f"(float[2, 4] x) => (float[2, 3] y) {{ {body} }}", {"w": weight}), samples)
        (row,) = measure(model, samples, CANDIDATES, How(name)).loss.values()
        tables.append([row[str(c)] for c in CANDIDATES])
    assert tables[0] == pytest.approx(tables[1], rel=1e-4)  # float32 products in another order


def test_shared_weights_are_rounded_for_all_readers_at_once() -> None:
    """The noise of the pair is measured as one, and its size counts once."""
    samples = [{"x": g.normal(2, 4, seed=i)} for i in range(2)]
    body = "{ a = MatMul(x, w) b = Relu(a) y = MatMul(b, w) }"
    model = calibrated(g.graph(f"(float[2, 4] x) => (float[2, 4] y) {body}", {"w": g.normal(4, 4)}), samples)
    found = measure(model, samples, CANDIDATES, How("sqnr"))
    (group,) = found.groups
    assert [p.name for p in group.products] == ["MatMul_0", "MatMul_2"]
    assert found.reference("size") == 16 and found.reference("bops") == 2 * 32 * 64
    assert found.loss["MatMul_0"]["w2a8"] > found.loss["MatMul_0"]["w8a8"] > 0


def test_costs_by_hand(measured: Measurements) -> None:
    first, size = measured.groups[0], CONSTANTS["w1"].size
    assert measured.macs[first.name] == 2 * 8 * 8 * 8 * 3 * 9
    costs = {str(c): [measured.cost(n, first, c) for n in ("size", "bops")] for c in CANDIDATES}
    assert costs["w8a8"] == [size, measured.macs[first.name] * 64]
    assert costs["w4a8"] == [size / 2, measured.macs[first.name] * 32]
    assert costs["w2a4"] == [size / 4, measured.macs[first.name] * 8]
    assert measured.reference("size") == sum(CONSTANTS[w].size for w in ("w1", "w2", "w3"))
    with pytest.raises(UsageError, match="nothing was timed"):
        measured.reference("latency")


def test_fewer_bits_are_never_better() -> None:
    row = {"w8a8": 1.0, "w4a8": 0.5, "w2a8": 3.0, "w8a4": 2.0, "w4a4": 0.1, "w2a4": 2.5}
    found = never_better({"g": row}, CANDIDATES)["g"]
    assert found == {"w8a8": 1.0, "w4a8": 1.0, "w2a8": 3.0, "w8a4": 2.0, "w4a4": 2.0, "w2a4": 3.0}


def test_text_and_back(measured: Measurements) -> None:
    assert Measurements.parse(measured.text()) == measured


def test_two_processes_give_the_same_table() -> None:
    assert table(How(count=3, jobs=2)).text() == table(How(count=3)).text()


@pytest.mark.slow
def test_a_ray_cluster_of_two_workers_gives_the_same_table() -> None:
    pytest.importorskip("ray", reason="Ray is not installed (pip install 'mulshift[ray]')")
    assert table(How(count=3, jobs=2, executor="ray")).text() == table(How(count=3)).text()


def test_without_ray_the_error_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match="Ray is not installed; pip install"):
        table(How(count=2, executor="ray"))


KILLED = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from test_allocation_measure import *
import mulshift.passes.allocation.measurements as m
plain, count = m.append, 0
def slow(path, key, result):
    global count
    plain(path, key, result)
    count += 1
    print(count, flush=True)
    if count == 2:
        import time; time.sleep(60)
m.append = slow
table(How("sqnr", count=2, workspace=Path({folder!r})))
"""


def test_a_killed_run_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = KILLED.format(tests=str(Path(__file__).parent), folder=str(tmp_path))
    killed = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert killed.stdout is not None
    while killed.stdout.readline().strip() != "2":
        assert killed.poll() is None
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    (folder,) = tmp_path.iterdir()
    with (folder / "results.jsonl").open("a") as file:
        file.write('["half a li')  # as a kill in the middle of a write leaves it
    asked: list[tuple[int, int | None]] = []
    again = table(How("sqnr", count=2, workspace=tmp_path), progress=lambda done, total: asked.append((done, total)))
    assert asked == [(2, 3), (3, 3)]
    assert again.text() == table(How("sqnr", count=2)).text()
    assert [p.name for p in folder.iterdir()] == ["measurements.json"]
    monkeypatch.setattr("mulshift.passes.allocation.measurements.save_job", lambda *_: pytest.fail("measured again"))
    assert table(How("sqnr", count=2, workspace=tmp_path)).text() == again.text()


def test_another_seed_or_model_is_measured_anew(tmp_path: Path) -> None:
    table(How(count=1, workspace=tmp_path))
    table(How(count=1, seed=1, workspace=tmp_path))
    assert len(list(tmp_path.iterdir())) == 2


def test_a_journal_drops_the_line_that_a_kill_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    append(path, "a", {"x": 0.1})
    with path.open("a") as file:
        file.write('["b", {"x"')
    assert read_journal(path) == {"a": {"x": 0.1}}
    append(path, "b", 2)
    assert read_journal(path) == {"a": {"x": 0.1}, "b": 2}
    assert [json.loads(line)[0] for line in path.read_text().splitlines()] == ["a", "b"]


DIES_ONCE = """
import os, sys
from pathlib import Path
from mulshift.passes.allocation import worker
mark = Path(sys.argv[1]) / ".died"
if not mark.exists() or {always}:
    mark.touch()
    sys.stdin.readline()
    os.kill(os.getpid(), 9)
worker.main(sys.argv[1])
"""


@pytest.mark.parametrize("always", [pytest.param(False, marks=pytest.mark.slow), True])
def test_a_worker_that_dies(always: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once: its task is given to another. Twice with one task: an error that says so."""
    (tmp_path / "dying.py").write_text(DIES_ONCE.format(always=always))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setattr(processes, "WORKER", "dying")
    how = How("sqnr", count=1, jobs=2, workspace=tmp_path / "work")
    if always:
        with pytest.raises(UsageError, match="a process died 2 times with task"):
            table(how)
    else:
        assert table(how).text() == table(How("sqnr", count=1)).text()


@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_an_error_of_a_task_is_the_error(jobs: int) -> None:
    """In a process of its own too: Det runs on ONNX Runtime and has no gradient."""
    samples = [{"x": g.normal(4, 4, seed=i)} for i in range(2)]
    constants = {"w": g.normal(4, 4), "n": np.array([1, 1])}
    body = "{ a = MatMul(x, w) b = Det(a) y = Reshape(b, n) }"
    model = calibrated(g.graph(f"(float[4, 4] x) => (float[1, 1] y) {body}", constants), samples)
    with pytest.raises(UnsupportedError, match=r"\(Det\): has no gradient"):
        measure(model, samples, CANDIDATES, How(jobs=jobs))


def test_what_cannot_be_measured() -> None:
    with pytest.raises(DataError, match="needs samples"):
        measure(chain(), [], CANDIDATES, How())
    with pytest.raises(UsageError, match="run calibrate first"):
        measure(
            g.graph("(float[1, 4] x) => (y) { y = MatMul(x, w) }", {"w": g.normal(4, 4)}), SAMPLES, CANDIDATES, How()
        )
    with pytest.raises(UsageError, match="no product"):
        measure(chain(), SAMPLES, CANDIDATES, How(), skip=["*"])
    with pytest.raises(UsageError, match="there is no 'guess'"):
        How("guess")
    with pytest.raises(UsageError, match="jobs is 0"):
        How(jobs=0)
