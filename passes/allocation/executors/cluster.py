"""Tasks on a Ray cluster: `pip install mulshift[ray]`. Only text and bytes travel."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from mulshift.ir import MulshiftError, UsageError
from mulshift.passes.allocation.task import Runner, raised, told

RETRIES = 1
"""Times that Ray gives a task to another worker after one died."""


def on_ray(folder: Path, tasks: Sequence[str], jobs: int, done: Callable[[str, Any], None]) -> None:
    """Run all tasks on the cluster of `RAY_ADDRESS`, or on a local one of `jobs` workers.

    The folder travels as bytes, and a worker that sees it by the same path reads it there.

    Raises:
        UsageError: Ray is not installed, or a worker died again and again.
        MulshiftError: what a task raised.
    """
    if not tasks:
        return
    ray = _ray()
    started = not ray.is_initialized()
    if started:
        local = {} if _has_address() else {"num_cpus": jobs}
        ray.init(log_to_driver=False, include_dashboard=False, logging_level="error", **local)
    try:
        files = ray.put(_read(folder))
        remote = ray.remote(num_cpus=1, max_retries=RETRIES)(_task)
        waiting = {remote.remote(str(folder), folder.name, files, task): task for task in tasks}
        while waiting:
            ready, _ = ray.wait(list(waiting), num_returns=1)
            for reference in ready:
                answer = json.loads(_fetched(ray, reference, waiting[reference]))
                if "error" in answer:
                    raise raised(answer["error"])
                done(waiting.pop(reference), answer["result"])
    finally:
        if started:
            ray.shutdown()


def _ray() -> Any:
    try:
        import ray  # type: ignore[import-not-found, unused-ignore]
    except ImportError as e:
        raise UsageError("executor 'ray'", "Ray is not installed", "pip install 'mulshift[ray]'") from e
    return ray


def _has_address() -> bool:
    return bool(os.environ.get("RAY_ADDRESS"))


def _fetched(ray: Any, reference: Any, task: str) -> str:
    try:
        return str(ray.get(reference))
    except ray.exceptions.RayError as e:
        first = str(e).strip().splitlines()[0][:200]
        raise UsageError("executor 'ray'", f"task '{task}' failed ({first})", "what is finished is kept") from e


def _read(folder: Path) -> dict[str, bytes]:
    """Every file of the job, by its path in the folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def _task(path: str, key: str, files: dict[str, bytes], task: str) -> str:
    """In a worker of the cluster: a task's result or error as JSON."""
    folder = Path(path) if Path(path).is_dir() else _unpacked(key, files)
    try:
        return json.dumps({"result": _runner(folder).run(task)}, allow_nan=False)
    except MulshiftError as e:
        return json.dumps({"error": told(e)})


_FOLDERS: dict[str, Path] = {}


def _unpacked(key: str, files: dict[str, bytes]) -> Path:
    """The files in a folder of this process, written when first asked."""
    if key not in _FOLDERS:
        folder = Path(tempfile.mkdtemp(prefix="mulshift-job-"))
        for name, data in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
        _FOLDERS[key] = folder
    return _FOLDERS[key]


@lru_cache(maxsize=2)
def _runner(folder: Path) -> Runner:
    return Runner(folder)
