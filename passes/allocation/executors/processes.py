"""Tasks in this process (one job), or in processes of their own that talk JSON over pipes."""

from __future__ import annotations

import json
import queue
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mulshift.ir import UsageError
from mulshift.passes.allocation.task import Runner, raised

WORKER = "mulshift.passes.allocation.worker"
TRIES = 2
"""Times that a task is given to a process; after the first death to a new one."""


def on_processes(folder: Path, tasks: Sequence[str], jobs: int, done: Callable[[str, Any], None]) -> None:
    """Run all tasks, `jobs` at a time.

    Raises:
        UsageError: a process died twice with the same task.
        MulshiftError: what a task raised.
    """
    if jobs == 1 or len(tasks) < 2:
        runner = Runner(folder)
        for task in tasks:
            done(task, runner.run(task))
        return
    slots = [_Slot(folder) for _ in range(min(jobs, len(tasks)))]
    idle: queue.SimpleQueue[_Slot] = queue.SimpleQueue()
    for slot in slots:
        idle.put(slot)

    def work(task: str) -> Any:
        slot = idle.get()
        try:
            return slot.ask(task)
        finally:
            idle.put(slot)

    pool = ThreadPoolExecutor(len(slots))
    try:
        futures = {pool.submit(work, task): task for task in tasks}
        for future in as_completed(futures):
            done(futures[future], future.result())
    finally:
        for slot in slots:
            slot.end()
        pool.shutdown(cancel_futures=True)


@dataclass
class _Slot:
    """A process, started when first asked and again after a death."""

    folder: Path
    process: subprocess.Popen[str] | None = None
    ended: bool = False

    def ask(self, task: str) -> Any:
        """The result of a task."""
        for _ in range(TRIES):
            if self.ended:
                break
            if self.process is None:
                command = [sys.executable, "-m", WORKER, str(self.folder)]
                self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            answer = _exchange(self.process, json.dumps(task) + "\n")
            if answer.endswith("\n"):
                found: dict[str, Any] = json.loads(answer)
                if "error" in found:
                    raise raised(found["error"])
                return found["result"]
            self._close()
        cause = f"a process died {TRIES} times with task '{task}'"
        raise UsageError("jobs", cause, "give fewer jobs if memory ran out; what is finished is kept")

    def end(self) -> None:
        """Stop it, at work or not."""
        self.ended = True
        process = self.process
        if process is not None:
            process.terminate()

    def _close(self) -> None:
        process, self.process = self.process, None
        if process is not None:
            process.kill()
            process.communicate()


def _exchange(process: subprocess.Popen[str], line: str) -> str:
    """One line for another; less than a line if the process died."""
    assert process.stdin is not None and process.stdout is not None
    try:
        process.stdin.write(line)
        process.stdin.flush()
    except OSError:
        return ""
    return process.stdout.readline()
