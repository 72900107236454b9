"""Precisions: text and back, and what there is not."""

import onnx_ir as ir
import pytest

from mulshift.ir import UsageError
from mulshift.passes.precision import Precision, precision_of, set_precision


@pytest.mark.parametrize("text", ["w8a8", "w4a8", "w4g32a8", "w3a4", "w1a8"])
def test_text_and_back(text: str) -> None:
    assert str(Precision.parse(text)) == text


@pytest.mark.parametrize("text", ["", "w4", "w5a8", "w4a2", "a8w4", "w4a8x"])
def test_what_there_is_not(text: str) -> None:
    with pytest.raises(UsageError):
        Precision.parse(text)


def test_a_node_carries_it() -> None:
    node = ir.node("MatMul", [ir.Value(name="x"), ir.Value(name="w")])
    assert precision_of(node) is None
    set_precision(node, Precision(4, 8, 32))
    assert precision_of(node) == Precision(4, 8, 32)
