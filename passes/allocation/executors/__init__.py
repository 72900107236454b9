"""Where tasks run: one row each. The results are the same everywhere, and come as they are finished."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from mulshift.ir import UsageError
from mulshift.passes.allocation.executors.cluster import on_ray
from mulshift.passes.allocation.executors.processes import on_processes

Executor: TypeAlias = Callable[[Path, Sequence[str], int, Callable[[str, Any], None]], None]
"""`run(folder, tasks, jobs, done)`: calls `done(task, result)` for each, from one thread at a time."""

EXECUTORS: dict[str, Executor] = {"local": on_processes, "ray": on_ray}


def find_executor(name: str) -> Executor:
    """A row by its name.

    Raises:
        UsageError: there is none of that name.
    """
    if name not in EXECUTORS:
        raise UsageError("executor", f"there is no '{name}'", f"use one of {', '.join(EXECUTORS)}")
    return EXECUTORS[name]


__all__ = ["EXECUTORS", "Executor", "find_executor"]
