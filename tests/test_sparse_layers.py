"""Sparse kernels beside their dense twins: which layers go back to dense, and that a replay times nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from qdq_graphs import graph

import mulshift
from mulshift import compiler, kernel_profile, kernels, sparse_layers
from mulshift.backends import kernel_session
from mulshift.ir import Array, Interpreter, Level, UsageError
from mulshift.layer_twins import twins
from mulshift.passes.kernels.products import DENSE, KERNEL
from mulshift.single_nodes import Form, is_weighted, with_weights_of
from mulshift.sparse_layers import compare
from mulshift.sparse_layers import sparse_layers as layers_of

pytestmark = pytest.mark.skipif(not kernels.is_built(), reason="the kernel library is not built")

NET = """(float[4, 64] x) => (float[4, 16] y) {
    a = MatMul(x, u) r = Relu(a) b = MatMul(r, v) s = Relu(b) y = MatMul(s, w)
}"""
RNG = np.random.default_rng(0)
SAMPLES = [{"x": RNG.standard_normal((4, 64)).astype(np.float32)} for _ in range(3)]
RECIPE = "int8-fast"


def sparse(k: int, n: int) -> Array:
    """Two of four along k."""
    order = RNG.random((k // 4, 4, n)).argsort(axis=1)
    return (RNG.standard_normal((k // 4, 4, n)) * (order < 2)).reshape(k, n).astype(np.float32)


WEIGHTS = {"u": sparse(64, 128), "v": sparse(128, 64), "w": RNG.standard_normal((64, 16)).astype(np.float32)}
U, V = "MatMul_0", "MatMul_2"


def made_up(slow: str) -> Any:
    """Times by the number of weights: the sparse kernel of one layer is slow, all dense ones are equal."""

    def known_times(nodes: Any, *_: Any, **__: Any) -> dict[str, float]:
        return {k: (3e-6 if n.name == slow else 1e-6) if "Sparse" in k else 2e-6 for k, n in nodes.items()}

    return known_times


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With the network and its data; V's sparse kernel is slower than its dense twin."""
    ir.save(graph(NET, WEIGHTS), tmp_path / "net.onnx")
    np.savez(tmp_path / "data.npz", x=np.stack([s["x"] for s in SAMPLES]).reshape(-1, 4, 64)[0])
    monkeypatch.setattr(sparse_layers, "known_times", made_up(V))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def compiled(**options: Any) -> mulshift.Compiled:
    return mulshift.compile(graph(NET, WEIGHTS), SAMPLES, recipe=RECIPE, **options)


def ops(made: mulshift.Compiled) -> dict[str, str]:
    return {str(n.name): n.op_type for n in made.artifact.model.graph if "w_shape" in n.attributes}


def test_slower_layers_are_put_back_and_the_report_says_so(folder: Path) -> None:
    made = compiled(output=folder / "out")
    found = ops(made)
    assert found[U].startswith("GemmPackedSparse") and found[V].startswith("GemmPacked") and "Sparse" not in found[V]
    assert [(c.name, c.slower) for c in made.compared] == [(U, False), (V, True)]
    report = {r["node"]: r for r in json.loads((folder / "out" / "report.json").read_text())["layers"]}
    assert report[V]["put_back"] and not report[U]["put_back"] and report[U]["kernel"] == found[U]
    assert report[V]["sparsity"] == "2:4"
    expected = Interpreter(made.levels[Level.INTEGER]).run(SAMPLES[0])["y"].numpy()
    assert np.array_equal(made.run(SAMPLES[0])["y"], expected)
    kept = compiled(sparse_kernels="all")
    assert kept.compared == () and layers_of(kept.artifact.model.graph).keys() == {U, V}
    assert np.array_equal(kept.run(SAMPLES[0])["y"], expected)


def test_a_replay_gives_the_same_bytes_without_timing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = mulshift.compile("net.onnx", {"x": SAMPLES[0]["x"]}, recipe=RECIPE, output=folder / "out")
    assert made.lock.options["dense"] == [V]
    monkeypatch.setattr(sparse_layers, "known_times", lambda *_, **__: pytest.fail("timed again"))
    assert mulshift.replay(folder / "out", calibration={"x": SAMPLES[0]["x"]}).same


def test_a_model_without_zeros_is_never_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler, "compare", lambda *_, **__: pytest.fail("timed"))
    monkeypatch.setattr(kernel_profile, "time_nodes", lambda *_: pytest.fail("timed"))
    dense = {k: RNG.standard_normal(v.shape).astype(np.float32) for k, v in WEIGHTS.items()}
    made = mulshift.compile(graph(NET, dense), SAMPLES, recipe=RECIPE)
    assert made.lock.options["dense"] is None and made.compared == ()


def test_without_the_library_nothing_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler, "compare", lambda *_, **__: pytest.fail("timed"))
    monkeypatch.setattr(kernels, "is_built", lambda: False)
    assert layers_of(compiled().artifact.model.graph).keys() == {U, V}


@pytest.mark.parametrize(
    ("options", "words"),
    [({"sparse_kernels": "some"}, "use timed or all"), ({"dense": ["nothing"]}, "there is no node 'nothing'")],
)
def test_options_that_cannot_be(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        compiled(**options)


def test_both_sides_are_really_run(tmp_path: Path) -> None:
    integer = compiled(sparse_kernels="all").levels[Level.INTEGER]
    found = compare(integer, SAMPLES[0], seconds=0.001, folder=tmp_path)
    assert [c.name for c in found] == [U, V] and all(0 < t < 1 for c in found for t in (c.sparse, c.dense))


def test_weights_can_be_given_the_pattern() -> None:
    """What a profile times is the sparse kernel."""
    dense = {k: RNG.standard_normal(v.shape).astype(np.float32) for k, v in WEIGHTS.items()}
    integer = mulshift.compile(graph(NET, dense), SAMPLES, recipe=RECIPE).levels[Level.INTEGER]
    for text, name in (("2:4", "Sparse"), ("2:4:shared", "Shared")):
        for bits, suffix in ((8, ""), (4, "Int4")):
            lowered = mulshift.lower(with_weights_of(integer, Form(bits, text)), "onnxruntime").model
            found = [op.removesuffix("Accumulate") for op in layers_of(lowered.graph).values()]
            assert found == [f"GemmPacked{name}{suffix}"] * 3
    same = with_weights_of(integer, {U: Form(8, "2:4")})
    assert layers_of(mulshift.lower(same, "onnxruntime").model.graph).keys() == {U}
    assert len([n for n in same.graph if is_weighted(n)]) == 3


def test_bench_tells_which_kernel_ran(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from mulshift.cli import run_command

    compiled(output=folder / "out")
    capsys.readouterr()
    assert run_command(["bench", "out", "--layers", "--seconds", "0.02", "--json", "-q"]) == 0
    rows = {r["name"]: r for r in json.loads(capsys.readouterr().out)["layers"]["out"]}
    isa = kernels.instruction_set()
    assert (rows[U]["ran"], rows[V]["ran"]) == (f"{isa} k8n16z", f"{isa} k4n16")
    assert not rows[U]["put_back"] and rows[V]["put_back"]
    assert all(rows[U][key] > 0 for key in ("milliseconds", "alone", "twin")) and rows[V]["milliseconds"] > 0
    assert rows[V]["twin"] is None  # its channels were put in another order for the dense kernel
    assert rows["MatMul_4"]["alone"] is None and rows["x.quantize"]["ran"] == "ONNX Runtime"
    assert run_command(["bench", "out", "--layers", "--seconds", "0.02", "-q"]) == 0
    assert "put back dense" in capsys.readouterr().out
    assert run_command(["bench", "net.onnx", "--layers", "-q"]) == 3


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("kind", ["2:4", "2:4:shared"])
def test_the_twin_of_a_twin_is_the_same(bits: int, kind: str) -> None:
    integer = compiled(sparse_kernels="all").levels[Level.INTEGER]
    lowered = mulshift.lower(with_weights_of(integer, Form(bits, kind)), "onnxruntime")
    other, changed = twins(lowered.model)
    assert changed.keys() == {U, V, "MatMul_4"} and not layers_of(other.graph)
    for node in other.graph:
        if node.name in changed:
            node.metadata_props[KERNEL] = DENSE
    again, back = twins(other)
    assert back == layers_of(lowered.model.graph) == layers_of(again.graph)
    made = [kernel_session.session(ir.to_proto(m).SerializeToString()).run(None, SAMPLES[0]) for m in (other, again)]
    assert np.array_equal(made[0][0], made[1][0]) and np.array_equal(made[0][0], lowered.run(SAMPLES[0])["y"])
