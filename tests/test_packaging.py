"""What is installed: versions, pins, links, and the contents of a wheel that is built here and imported on its own."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import mulshift

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
COMES_WITH = {"yaml": "pyyaml", "google": "onnx", "ml_dtypes": "onnx-ir", "click": "typer", "PIL": "pillow"}
"""Names of imports that are not names of a dependency of ours."""
OPTIONAL = {"pillow", "ray"}
"""Imported only where it is needed, with a message that says how to install it."""
MADE = ("demo", "test", "peers")
"""Extras that make installs."""


def _pins() -> dict[str, Version]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): Version(version) for name, version in pairs}


def test_one_version() -> None:
    assert mulshift.__version__ == PROJECT["version"]


@pytest.mark.parametrize("layer", ["ir", "passes", "kernels", "backends"])
def test_layers_are_relative_links(layer: str) -> None:
    assert (ROOT / "mulshift" / layer).readlink() == Path("..") / layer


@pytest.mark.parametrize(
    "line", [*PROJECT["dependencies"], *(r for extra in MADE for r in PROJECT["optional-dependencies"][extra])]
)
def test_every_requirement_is_pinned_inside_its_range(line: str) -> None:
    requirement = Requirement(line)
    assert _pins()[canonicalize_name(requirement.name)] in requirement.specifier


def _imports() -> Iterator[str]:
    """Top-level names that the package imports anywhere, inside functions too."""
    for layer in ("ir", "passes", "kernels", "backends", "mulshift"):
        for path in (ROOT / layer).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
                names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                yield from (name.split(".")[0] for name in names)


def test_every_import_is_a_declared_dependency() -> None:
    declared = {canonicalize_name(Requirement(line).name) for line in PROJECT["dependencies"]}
    used = {name for name in _imports() if name not in sys.stdlib_module_names} - {"mulshift"}
    assert {COMES_WITH.get(name, canonicalize_name(name)) for name in used} - declared - OPTIONAL == set()


def _build(what: str, folder: Path) -> Path:
    """A `wheel` or `sdist` made by the build backend, without pip and without touching the checkout."""
    pytest.importorskip("scikit_build_core", reason="the build backend is not installed; make test installs it")
    settings = {"build-dir": str(folder / "build")}
    code = f"from scikit_build_core.build import build_{what} as build; print(build({str(folder)!r}, {settings}))"
    made = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stdout[-2000:] + made.stderr[-2000:]
    return folder / made.stdout.strip().splitlines()[-1]


def test_wheel_stands_alone(tmp_path: Path) -> None:
    wheel = _build("wheel", tmp_path)
    assert re.fullmatch(rf"mulshift-{re.escape(mulshift.__version__)}-py3-none-(?!any)\w+\.whl", wheel.name)
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
        file.extractall(tmp_path / "site")
    recipes = {f"mulshift/passes/recipes/{p.name}" for p in (ROOT / "passes" / "recipes").glob("*.yaml")}
    assert recipes
    assert names >= recipes | {
        "mulshift/py.typed",
        "mulshift/ir/types.py",
        "mulshift/kernels/include/mulshift/kernels.h",
    }
    assert not [n for n in names if n.endswith((".cpp", "CMakeLists.txt")) or n.startswith(("ir/", "tests/"))]
    _imports_alone(tmp_path / "site", tmp_path)


def _imports_alone(site: Path, folder: Path) -> None:
    """-I -S: neither the checkout nor an editable install of it is on the path, only what is named here."""
    code = f"""
import sys
sys.path[:0] = [{str(site)!r}, {sysconfig.get_path("purelib")!r}, {sysconfig.get_path("platlib")!r}]
import numpy, mulshift.kernels
print(mulshift.kernels.library_path())
print(mulshift.kernels.requantize(numpy.array([10]), 1, 2, 0, 0, 255).tolist())
"""
    ran = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], cwd=folder, capture_output=True, text=True, check=True
    )
    path, number = ran.stdout.splitlines()
    assert Path(path).parent == site.resolve() / "mulshift" / "kernels"
    assert number == "[3]"


def test_sdist_has_what_a_build_needs(tmp_path: Path) -> None:
    with tarfile.open(_build("sdist", tmp_path)) as file:
        names = {n.split("/", 1)[1] for n in file.getnames() if "/" in n}
    wanted = {"pyproject.toml", "LICENSE", "README.md", "kernels/CMakeLists.txt", "kernels/src/requantize.cpp"}
    assert names >= wanted | {"mulshift/ir/types.py", "mulshift/py.typed"}
    assert not [n for n in names if n.endswith((".so", ".dylib", ".dll"))]
