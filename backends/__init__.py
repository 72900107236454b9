"""From our graph to a runtime: a target is one row, a backend is `lower(model, target) -> Artifact`.

Names load when first used: whoever only runs an artifact imports `mulshift.backends.kernel_session` and nothing heavy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_WHERE = {
    "Artifact": "mulshift.backends.artifact",
    "DEFAULT_TARGET": "mulshift.backends.targets",
    "TARGETS": "mulshift.backends.targets",
    "find_target": "mulshift.backends.targets",
    "lower": "mulshift.backends.targets",
}

if TYPE_CHECKING:
    from mulshift.backends.artifact import Artifact as Artifact
    from mulshift.backends.targets import DEFAULT_TARGET as DEFAULT_TARGET
    from mulshift.backends.targets import TARGETS as TARGETS
    from mulshift.backends.targets import find_target as find_target
    from mulshift.backends.targets import lower as lower
else:

    def __getattr__(name: str) -> Any:
        if name not in _WHERE:
            raise AttributeError(f"module 'mulshift.backends' has no attribute '{name}'")
        return getattr(importlib.import_module(_WHERE[name]), name)


__all__ = sorted(_WHERE)


def __dir__() -> list[str]:
    return sorted([*globals(), *_WHERE])
