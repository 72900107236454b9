"""mulshift: graph passes that turn a trained model into an integer-only artifact, the same bits everywhere.

compiled = mulshift.compile("model.onnx", "calibration.npz", output="artifact")
compiled.run({"x": x})
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from mulshift import kernels as kernels
    from mulshift.assigning import Assigned as Assigned
    from mulshift.assigning import Workers as Workers
    from mulshift.assigning import assign as assign
    from mulshift.backends import TARGETS as TARGETS
    from mulshift.backends import Artifact as Artifact
    from mulshift.backends import lower as lower
    from mulshift.backends.kernel_session import session as session
    from mulshift.checking import verify as verify
    from mulshift.compiler import Compiled as Compiled
    from mulshift.compiler import compile as compile
    from mulshift.image_input import ImageInput as ImageInput
    from mulshift.inspection import diff as diff
    from mulshift.inspection import inspect as inspect
    from mulshift.ir import Interpreter as Interpreter
    from mulshift.ir import MulshiftError as MulshiftError
    from mulshift.ir import load as load
    from mulshift.kernel_profile import profile as profile
    from mulshift.latency import bench as bench
    from mulshift.passes import PASSES as PASSES
    from mulshift.passes.pipeline import Pipeline as Pipeline
    from mulshift.passes.recipe import Recipe as Recipe
    from mulshift.passes.recipe import load_recipe as load_recipe
    from mulshift.replaying import replay as replay

_WHERE = {
    "Artifact": "mulshift.backends",
    "Assigned": "mulshift.assigning",
    "Compiled": "mulshift.compiler",
    "ImageInput": "mulshift.image_input",
    "Interpreter": "mulshift.ir",
    "MulshiftError": "mulshift.ir",
    "PASSES": "mulshift.passes",
    "Pipeline": "mulshift.passes.pipeline",
    "Recipe": "mulshift.passes.recipe",
    "TARGETS": "mulshift.backends",
    "Workers": "mulshift.assigning",
    "assign": "mulshift.assigning",
    "bench": "mulshift.latency",
    "compile": "mulshift.compiler",
    "diff": "mulshift.inspection",
    "inspect": "mulshift.inspection",
    "load": "mulshift.ir",
    "load_recipe": "mulshift.passes.recipe",
    "lower": "mulshift.backends",
    "profile": "mulshift.kernel_profile",
    "replay": "mulshift.replaying",
    "session": "mulshift.backends.kernel_session",
    "verify": "mulshift.checking",
}
"""Public names, loaded when first used: `import mulshift` itself imports nothing heavy."""
_MODULES = ("kernels",)

__all__ = ["__version__", *_MODULES, *sorted(_WHERE)]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"mulshift.{name}")
    if name not in _WHERE:
        raise AttributeError(f"module 'mulshift' has no attribute '{name}'")
    return getattr(importlib.import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULES, *_WHERE])
