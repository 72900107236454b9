"""The passes: one row each. A new pass is one file beside this one and one row."""

from __future__ import annotations

from mulshift.passes.base import Contract, Log, Note, Pass

PASSES: dict[str, type[Pass]] = {}

__all__ = ["PASSES", "Contract", "Log", "Note", "Pass"]
