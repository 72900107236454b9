"""The examples run as a newcomer runs them, and print what the docs say that they print."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from mulshift.passes import PASSES, Pass

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


def _printed(name: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    return capsys.readouterr().out.splitlines()


def test_custom_pass(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PASSES, "drop-double-neg", Pass)  # so that the example's own row is gone after the test
    lines = _printed("custom_pass.py", capsys)
    assert [line.split(":")[1].strip() for line in lines] == ["changed", "left alone", "Relu, Neg, Neg"]


def test_plug_into_export(capsys: pytest.CaptureFixture[str]) -> None:
    lines = _printed("plug_into_export.py", capsys)
    (operators,) = (line.split(": ", 1)[1].split(", ") for line in lines if line.startswith("operators"))
    (sqnr,) = (float(line.split()[1]) for line in lines if line.startswith("SQNR"))
    assert operators[0] == "QuantizeLinear"
    assert operators[-1] == "DequantizeLinear"
    assert {"mulshift::Conv", "mulshift::ReduceMean", "mulshift::GemmAccumulate"} <= set(operators)
    assert sqnr > 40  # 8 bits: about 6 dB a bit, one network of three layers
