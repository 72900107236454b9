"""The layer borders of docs/architecture.md, and the imports and calls that are never allowed."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MAY_IMPORT: dict[str, frozenset[str]] = {
    "ir": frozenset({"ir"}),
    "passes": frozenset({"ir", "passes"}),
    "kernels": frozenset({"kernels"}),
    "backends": frozenset({"ir", "passes", "kernels", "backends"}),
    "mulshift": frozenset({"ir", "passes", "kernels", "backends", "mulshift"}),
}
LAYERS = ("ir", "passes", "kernels", "backends")
UNSAFE_MODULES = frozenset({"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal"})
BROAD = frozenset({"Exception", "BaseException"})

Check = Callable[[str, ast.AST], Iterator[str]]


def _imported(node: ast.AST) -> Iterator[str]:
    """Full dotted names that an import statement asks for; a relative one starts with a dot."""
    if isinstance(node, ast.Import):
        yield from (a.name for a in node.names)
    if isinstance(node, ast.ImportFrom):
        module = "." * node.level + (node.module or "")
        yield from (f"{module}.{a.name}" for a in node.names)


def _layer(module: str) -> str:
    """The layer of a full name below `mulshift`; the face of the package where it is none of the four."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in LAYERS else "mulshift"


def borders(layer: str, node: ast.AST) -> Iterator[str]:
    for name in _imported(node):
        if name.split(".")[0] == "mulshift" and _layer(name) not in MAY_IMPORT[layer]:
            yield f"{layer} must not import {name}"


def full_names(_: str, node: ast.AST) -> Iterator[str]:
    for name in _imported(node):
        if name.startswith("."):
            yield f"relative import {name}"
        if name.endswith("*"):
            yield f"star import {name}"
        if name.split(".")[0] in LAYERS:
            yield f"{name}: say mulshift.{name}"


def no_pickle(_: str, node: ast.AST) -> Iterator[str]:
    yield from (f"{n} loads code" for n in _imported(node) if n.split(".")[0] in UNSAFE_MODULES)
    if isinstance(node, ast.Call):
        options = {k.arg: k.value for k in node.keywords}
        called = ast.unparse(node.func)
        if called == "torch.load" and not _is(options.get("weights_only"), True):
            yield "torch.load without weights_only=True"
        if not _is(options.get("allow_pickle", ast.Constant(False)), False):
            yield f"{called} with allow_pickle"


def no_broad_except(_: str, node: ast.AST) -> Iterator[str]:
    """Everything may be caught only to be raised again with more words (a user's own function failed)."""
    if isinstance(node, ast.ExceptHandler) and not isinstance(node.body[-1], ast.Raise):
        caught = {n.id for n in ast.walk(node.type) if isinstance(n, ast.Name)} if node.type else BROAD
        if caught & BROAD:
            yield "broad except"


def _is(node: ast.expr | None, value: bool) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


CHECKS: dict[str, Check] = {c.__name__: c for c in (borders, full_names, no_pickle, no_broad_except)}


def broken(check: Check, layer: str, source: str) -> list[str]:
    """`line: complaint` for everything in a source that a check refuses."""
    tree = ast.parse(source)
    return [f"{getattr(node, 'lineno', 0)}: {c}" for node in ast.walk(tree) for c in check(layer, node)]


def _sources() -> Iterator[tuple[str, Path]]:
    """(layer, file); `mulshift` is read without its links."""
    for layer in LAYERS:
        yield from ((layer, p) for p in sorted((ROOT / layer).rglob("*.py")))
    face = (
        p for p in sorted((ROOT / "mulshift").rglob("*.py")) if p.relative_to(ROOT / "mulshift").parts[0] not in LAYERS
    )
    yield from (("mulshift", p) for p in face)


@pytest.mark.parametrize("check", CHECKS)
def test_every_source_passes(check: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{complaint}"
        for layer, path in _sources()
        for complaint in broken(CHECKS[check], layer, path.read_text(encoding="utf-8"))
    ]
    assert found == []


def test_all_five_layers_are_read() -> None:
    assert {layer for layer, _ in _sources()} == set(MAY_IMPORT)


@pytest.mark.parametrize(
    ("check", "layer", "source"),
    [
        ("borders", "ir", "from mulshift.passes import Pass"),
        ("borders", "ir", "from mulshift import passes"),
        ("borders", "ir", "import mulshift.backends.onnxruntime"),
        ("borders", "passes", "from mulshift.kernels import library_path"),
        ("borders", "passes", "def f():\n    from mulshift.compiler import compile"),
        ("borders", "kernels", "from mulshift.ir import dyadic"),
        ("borders", "backends", "import mulshift.cli"),
        ("full_names", "ir", "from . import types"),
        ("full_names", "ir", "from .types import Dyadic"),
        ("full_names", "ir", "from mulshift.ir.types import *"),
        ("full_names", "passes", "from ir import Dyadic"),
        ("full_names", "passes", "import ir.types"),
        ("no_pickle", "ir", "import pickle"),
        ("no_pickle", "ir", "from pickle import load"),
        ("no_pickle", "ir", "torch.load(path)"),
        ("no_pickle", "ir", "torch.load(path, weights_only=False)"),
        ("no_pickle", "mulshift", "np.load(path, allow_pickle=True)"),
        ("no_broad_except", "ir", "try:\n    f()\nexcept Exception:\n    pass"),
        ("no_broad_except", "ir", "try:\n    f()\nexcept (ValueError, BaseException) as e:\n    pass"),
        ("no_broad_except", "ir", "try:\n    f()\nexcept:\n    pass"),
        ("no_broad_except", "ir", "try:\n    f()\nexcept Exception:\n    raise ValueError\n    pass"),
    ],
)
def test_a_breach_is_seen(check: str, layer: str, source: str) -> None:
    assert len(broken(CHECKS[check], layer, source)) == 1


@pytest.mark.parametrize("check", CHECKS)
def test_clean_code_is_left_alone(check: str) -> None:
    source = """
import onnx_ir as ir
from mulshift.ir import Dyadic
from mulshift.passes import Pass
import mulshift.ir.types
try:
    torch.load(path, weights_only=True)
    np.load(path, allow_pickle=False)
except (ValueError, OSError) as e:
    log(e)
except Exception as e:
    raise DataError("here") from e
"""
    assert broken(CHECKS[check], "backends", source) == []
