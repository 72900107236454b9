"""The user's cache folder: profiles of this machine, measurements that other budgets are solved from."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """`MULSHIFT_CACHE`, else `mulshift` below `XDG_CACHE_HOME` or `~/.cache`; made by whoever writes there."""
    own = os.environ.get("MULSHIFT_CACHE")
    return Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mulshift"
