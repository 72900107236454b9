"""Packages whose public names load when first used: the table that finds them says what type checkers are told."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGES = ("mulshift", "mulshift.ir", "mulshift.backends")


def _told(package: str) -> set[tuple[str, str]]:
    """(module, name) of what is imported for type checkers alone."""
    source = Path(str(importlib.import_module(package).__file__)).read_text(encoding="utf-8")
    block = next(n for n in ast.parse(source).body if isinstance(n, ast.If))
    return {(n.module or "", a.name) for n in block.body if isinstance(n, ast.ImportFrom) for a in n.names}


@pytest.mark.parametrize("package", PACKAGES)
def test_the_table_says_what_type_checkers_are_told(package: str) -> None:
    module = importlib.import_module(package)
    listed = {(where, name) for name, where in module._WHERE.items()}
    listed |= {(package, name) for name in getattr(module, "_MODULES", ())}
    assert _told(package) == listed
    assert {name for _, name in listed} <= set(module.__all__) <= set(dir(module))


@pytest.mark.parametrize("package", PACKAGES)
def test_every_name_is_there(package: str) -> None:
    module = importlib.import_module(package)
    for name, where in module._WHERE.items():
        assert getattr(module, name) is getattr(importlib.import_module(where), name)
    with pytest.raises(AttributeError, match=f"'{package}' has no attribute 'nothing'"):
        _ = module.nothing


def test_errors_alone_load_nothing_heavy() -> None:
    code = "import mulshift, sys; mulshift.MulshiftError; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"numpy", "onnx", "onnx_ir", "onnxruntime", "sympy", "torch"} & set(loaded)
