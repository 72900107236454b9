"""What every test shares: where the real models and data are, and repeatable property tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

# Two cores shared with whatever else runs: a second torch thread waits longer than it helps on small networks.
os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parent.parent

settings.register_profile("repeatable", derandomize=True, deadline=None, database=None, max_examples=100)
settings.load_profile("repeatable")


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def fixtures() -> Path:
    """The folder of real models and data; skips the test where there is none."""
    folder = Path(os.environ.get("MULSHIFT_FIXTURES", ROOT.parent / "shared" / "fixtures"))
    if not (folder / "loaders").is_dir():
        pytest.skip(f"no real models and data at {folder} (MULSHIFT_FIXTURES names another folder)")
    return folder
