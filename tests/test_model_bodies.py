"""Function bodies that a session with kernels never runs are left out of its model; what is needed stays."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel_checks import S32, U8, one_node, output
from onnx import TensorProto, helper

import mulshift
from mulshift.backends import kernel_session
from mulshift.backends.model_bodies import without_bodies

OPSETS = [helper.make_opsetid("", 21), helper.make_opsetid("mulshift", 1), helper.make_opsetid("other", 1)]


def node(op: str, x: str, y: str, domain: str = "mulshift") -> onnx.NodeProto:
    return helper.make_node(op, [x], [y], domain=domain)


def function(name: str, *calls: str, domain: str = "mulshift") -> onnx.FunctionProto:
    """A chain of its calls, or Identity."""
    names = ["x", *(f"v{i}" for i in range(1, len(calls))), "y"]
    nodes = [node(op, names[i], names[i + 1]) for i, op in enumerate(calls)] or [node("Identity", "x", "y", "")]
    return helper.make_function(domain, name, ["x"], ["y"], nodes, OPSETS)


def model(calls: list[tuple[str, str]], functions: list[onnx.FunctionProto]) -> onnx.ModelProto:
    nodes = [node(op, f"v{i}", f"v{i + 1}", domain) for i, (domain, op) in enumerate(calls)]
    x, y = (helper.make_tensor_value_info(n, TensorProto.UINT8, [2]) for n in ("v0", f"v{len(calls)}"))
    graph = helper.make_graph(nodes, "g", [x], [y])
    return helper.make_model(graph, functions=functions, opset_imports=OPSETS, ir_version=10)


def left(whole: onnx.ModelProto, has_kernel: Callable[[str], bool]) -> list[str]:
    cut = onnx.load_from_string(without_bodies(whole.SerializeToString(), "mulshift", has_kernel))
    kept = [f.name for f in cut.functions]
    del cut.functions[:]
    bare = onnx.ModelProto()
    bare.CopyFrom(whole)
    del bare.functions[:]
    assert cut == bare
    return kept


def test_what_kernels_replace_goes_and_what_they_lack_stays() -> None:
    functions = [
        function("Kernel", "Part"),
        function("Part"),
        function("Lacking", "Kernel", "Deeper"),
        function("Deeper"),
        function("Unused", "Deeper"),
        function("Kernel", domain="other"),
        function("Outer", "Inner", domain="other"),
        function("Inner"),
    ]
    whole = model([("mulshift", "Kernel"), ("mulshift", "Lacking"), ("other", "Outer")], functions)
    assert left(whole, lambda name: name == "Kernel") == ["Lacking", "Deeper", "Kernel", "Outer", "Inner"]
    assert left(whole, lambda _: True) == ["Kernel", "Outer"]  # of the other domain
    assert left(whole, lambda _: False) == ["Kernel", "Part", "Lacking", "Deeper", "Kernel", "Outer", "Inner"]


def test_a_model_without_functions_is_as_it_was() -> None:
    data = model([("mulshift", "Kernel")], []).SerializeToString()
    assert without_bodies(data, "mulshift", lambda _: True) == data


@given(st.binary(max_size=200))
def test_other_bytes_are_bytes_or_a_value_error(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        without_bodies(data, "mulshift", lambda _: True)


def test_nodes_that_the_library_lacks_run_their_bodies(tmp_path: Path) -> None:
    """ONNX Runtime takes the body of an operator that it was not given a kernel for."""
    twice = helper.make_function(
        "mulshift", "NotInTheLibrary", ["x"], ["y"], [helper.make_node("Add", ["x", "x"], ["y"])], OPSETS
    )
    whole = model([("mulshift", "NotInTheLibrary")], [twice, function("Add")])
    onnx.save(whole, tmp_path / "m.onnx")
    x = np.array([3, 100], np.uint8)
    for source in (whole.SerializeToString(), tmp_path / "m.onnx", str(tmp_path / "m.onnx")):
        assert mulshift.session(source).run(None, {"v0": x})[0].tolist() == [6, 200]


def test_weights_in_other_files_are_found(tmp_path: Path) -> None:
    x = np.arange(6, dtype=np.uint8).reshape(2, 3)
    attributes = {"x_zero_point": 0, **output(U8, 0, 255, 0)}
    whole = one_node("Requantize", [x, S32([3, 4, 5]), S32([2])], attributes, [U8])
    expected = mulshift.session(whole.SerializeToString()).run(None, {"i0": x})[0]
    onnx.save(whole, tmp_path / "m.onnx", save_as_external_data=True, size_threshold=0)
    assert (tmp_path / "m.onnx").read_bytes().count(kernel_session.EXTERNAL)
    assert np.array_equal(mulshift.session(tmp_path / "m.onnx").run(None, {"i0": x})[0], expected)


@pytest.mark.parametrize("limit", [0, 2**20])
def test_large_models_run_as_they_are(monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    monkeypatch.setattr(kernel_session, "SMALL", limit)
    x = np.arange(6, dtype=np.uint8).reshape(2, 3)
    attributes = {"x_zero_point": 0, **output(U8, 0, 255, 0)}
    data = one_node("Requantize", [x, S32([4]), S32([2])], attributes, [U8]).SerializeToString()
    assert np.array_equal(mulshift.session(data).run(None, {"i0": x})[0], x)
