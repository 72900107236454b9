"""The kernel library under sanitizers, inside ONNX Runtime: what `make sanitize` runs, for a shorter time."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux") or not shutil.which("g++"), reason="needs g++ on Linux")
def test_nothing_is_reported() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "sanitizer_rows.py"), "--seconds", "30"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-1000:]
    assert done.stdout.count("== 0           ok") == 4
