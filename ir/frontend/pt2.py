"""Read a .pt2 file without running what may hide in it.

`torch.export.load` unpickles: tensor subclasses and custom objects always, example inputs when the safe way fails; it
hands symbolic expressions to sympy, which evaluates them; and it loads compiled libraries. A program that
`torch.export.save` wrote for an ordinary model needs none of that, so archives that ask for it are refused first.
"""

from __future__ import annotations

import io
import json
import os
import re
import zipfile
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from mulshift.ir.errors import ModelError
from mulshift.ir.frontend.files import pickled
from mulshift.ir.frontend.quiet import quiet

if TYPE_CHECKING:
    import torch

_EXPRESSION = re.compile(
    r"(?:[suz]f?\d+|'[suz]f?\d+'|[A-Z][A-Za-z]*|[a-z]+=(?:True|False)|\d+(?:\.\d+)?|[-+*/(), <>=&|~])*"
)
"""Symbols `s77` and `Symbol('s77', integer=True)`, functions like `Max`, numbers, operators; nothing else."""

_OBJECTS = ("custom_obj_", "opaque_obj_")


def read_program(path: str) -> torch.export.ExportedProgram:
    """The program in a .pt2 file.

    Raises:
        ModelError: not such a file, from another version of torch, or one that could run code.
    """
    import torch

    try:
        with zipfile.ZipFile(path) as archive:
            _check(archive, path)
    except (zipfile.BadZipFile, UnicodeDecodeError, json.JSONDecodeError) as e:
        raise ModelError(path, f"is a broken archive ({e})", "export or copy it again") from e
    try:
        with quiet():
            return torch.export.load(path)
    except Exception as e:  # anything at all can be wrong in a file
        reason = f"{type(e).__name__}: {str(e).strip().splitlines()[0] if str(e).strip() else ''}"
        raise ModelError(path, f"torch cannot read it ({reason})", "write it with this version of torch") from e


def _check(archive: zipfile.ZipFile, path: str) -> None:
    names = archive.namelist()
    if len(set(names)) < len(names):
        raise ModelError(path, "is an archive with two members of one name", "write it with torch.export.save")
    programs = [n for n in names if "/models/" in n or n == "serialized_exported_program.json"]
    if not programs:
        raise ModelError(path, "is an archive, but not of torch.export.save", "give an .onnx or .pt2 file")
    if any("/aotinductor/" in n for n in names):
        raise ModelError(path, "holds compiled code, which is never loaded", "write it with torch.export.save")
    for name in names:
        if name.endswith("_config.json") and ("/weights/" in name or "/constants/" in name):
            _check_payloads(json.loads(archive.read(name)), path)
        elif name.endswith(".pt"):
            _check_tensors(archive.read(name), path)
    for name in programs:
        for expression in _expressions(json.loads(archive.read(name))):
            if not _EXPRESSION.fullmatch(expression):
                raise ModelError(path, f"holds the suspicious size expression '{expression[:60]}'", "export it again")


def _check_payloads(config: Any, path: str) -> None:
    for payload in config.get("config", {}).values():
        file = os.path.basename(str(payload.get("path_name", "")))
        if payload.get("use_pickle") or file.startswith(_OBJECTS):
            raise pickled(path)


def _check_tensors(data: bytes, path: str) -> None:
    """Example inputs and old weight files must be plain tensors: torch falls back to full unpickling otherwise."""
    import torch

    if not data:
        return
    try:
        torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
    except Exception as e:  # whatever the reason, torch.export.load would go on to unpickle it all
        raise pickled(path) from e


def _expressions(tree: Any) -> Iterator[str]:
    """Every string that torch would hand to sympy: the values of `expr_str`, and names of symbols."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            if key == "expr_str" and isinstance(value, str):
                yield value
            elif key == "range_constraints" and isinstance(value, dict):
                yield from value
            yield from _expressions(value)
    elif isinstance(tree, list):
        for item in tree:
            yield from _expressions(item)
