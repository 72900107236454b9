"""The operators of a serialized model, found without `onnx`; other bytes are a ValueError at most."""

from __future__ import annotations

import contextlib
from pathlib import Path

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from mulshift.backends.model_operators import operators_of


def model() -> onnx.ModelProto:
    """Nodes of two domains, in the graph, in the branches of an If and in a function."""

    def node(op: str, domain: str = "mulshift") -> onnx.NodeProto:
        return helper.make_node(op, ["x"], [f"y{op}"], domain=domain, name=op * 40, alpha=[1, 2], beta=3.5)

    branch = helper.make_graph([node("Table"), node("Relu", "")], "branch", [], [])
    chosen = helper.make_node("If", ["x"], ["z"], then_branch=branch, else_branch=branch)
    weights = helper.make_tensor("w", TensorProto.INT8, [300], bytes(300), raw=True)
    x = helper.make_tensor_value_info("x", TensorProto.UINT8, ["N", 4])
    graph = helper.make_graph([node("Add"), chosen, node("Other", "other")], "g", [x], [x], [weights])
    function = helper.make_function("mulshift", "Add", ["x"], ["y"], [node("Requantize")], [])
    opsets = [helper.make_opsetid(name, 1) for name in ("", "mulshift")]
    return helper.make_model(graph, functions=[function], opset_imports=opsets)


def test_finds_those_of_the_domain_everywhere(tmp_path: Path) -> None:
    wanted = {"Add", "Table", "Requantize"}
    assert operators_of(model().SerializeToString(), "mulshift") == wanted
    path = tmp_path / "m.onnx"
    onnx.save(model(), path)
    assert operators_of(path, "mulshift") == operators_of(str(path), "mulshift") == wanted
    assert operators_of(path, "other") == {"Other"}


def test_an_empty_file_has_none(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"")
    assert operators_of(tmp_path / "m.onnx", "mulshift") == frozenset()


def test_a_cut_model_is_an_error() -> None:
    whole = model().SerializeToString()
    with pytest.raises(ValueError, match=r"longer than its message|has no end"):
        operators_of(whole[: len(whole) // 2], "mulshift")


def test_a_model_of_endless_graphs_is_an_error() -> None:
    """Graphs in attributes of nodes of graphs."""

    def field(number: int, data: bytes) -> bytes:
        sizes = [len(data) >> shift for shift in range(0, 35, 7) if shift == 0 or len(data) >> shift]
        length = bytes(size & 127 | (128 if i + 1 < len(sizes) else 0) for i, size in enumerate(sizes))
        return bytes([number << 3 | 2]) + length + data

    data = b""
    for _ in range(100):
        data = field(1, field(5, field(6, data)))
    with pytest.raises(ValueError, match="within each other"):
        operators_of(field(7, data), "mulshift")


@given(st.binary(max_size=200))
def test_other_bytes_are_operators_or_a_value_error(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        operators_of(data, "mulshift")
