"""What `inspect` and `diff` look at: an artifact's folder, a model file, or what a function makes."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def inspectable(text: str) -> Any:
    """The path, or the imported graph of `module:function` (with the example inputs that it returned).

    Raises:
        ModelError, UsageError: it cannot be made.
    """
    from mulshift.ir import load
    from mulshift.sources import model_source

    if Path(text).exists():
        return text
    source = model_source(text)
    return load(source.source, source.example_inputs)
