"""What a user types for a model or for data: a path, or `module:function` (also `path/to/file.py:function`).

The user's code runs in this process with its own folder (or the current one) importable, as `python file.py` would.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from mulshift.ir import ModelError, MulshiftError

_FUNCTION = re.compile(r"(?P<module>.+):(?P<function>[^\W\d]\w*(\.[^\W\d]\w*)*)")
_MODULE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")


def is_function_name(text: str) -> bool:
    """Whether the text has the form `module:function` or `file.py:function` and is not itself a file."""
    match = _FUNCTION.fullmatch(text)
    if match is None or Path(text).exists():
        return False
    return match["module"].endswith(".py") or _MODULE.fullmatch(match["module"]) is not None


@dataclass(frozen=True)
class ModelSource:
    """What a user named as a model.

    Attributes:
        text: as typed.
        source: what `mulshift.ir.load` takes: a path, a module, an exported program or an ONNX model.
        example_inputs: that came with a module, else None.
    """

    text: str
    source: Any
    example_inputs: Any = None

    @property
    def path(self) -> Path | None:
        """The model's file."""
        return self.source if isinstance(self.source, Path) else None

    @property
    def is_module(self) -> bool:
        """Whether it is a torch module, which must be exported with example inputs."""
        torch = sys.modules.get("torch")
        return torch is not None and isinstance(self.source, torch.nn.Module)


def model_source(text: str) -> ModelSource:
    """The model that a path or a `module:function` stands for; a path is not opened yet.

    A function may return an nn.Module, (module, example_inputs), an ExportedProgram, a GraphModule, an ONNX model or
    the path of a model file.

    Raises:
        ModelError: no such file or function, or the function raised or returned nothing.
    """
    if not is_function_name(text):
        return ModelSource(text, _checked_path(text, text))
    made = call(text, ModelError)
    if made is None:
        raise ModelError(text, "returned None", "return the model")
    if isinstance(made, (str, Path)):
        return ModelSource(text, _checked_path(str(made), text))
    if isinstance(made, tuple):
        if len(made) != 2:
            raise ModelError(text, f"returned {len(made)} things", "return the model, or (model, example_inputs)")
        return ModelSource(text, made[0], made[1])
    return ModelSource(text, made)


def _checked_path(path: str, where: str) -> Path:
    if not Path(path).exists():
        told = "no such file" if path == where else f"returned '{path}', which does not exist"
        raise ModelError(where, told, "give an .onnx or .pt2 file or module:function")
    return Path(path)


def call(text: str, error: type[MulshiftError]) -> Any:
    """Import the module (or .py file), call the function without arguments, and return what it returns.

    Args:
        text: `module:function` or `path/to/file.py:function`; the function may be dotted (`Class.method`).
        error: class of the error raised if anything fails.
    """
    function = find_function(text, error)
    with user_code(text, error):
        return function()


def find_function(text: str, error: type[MulshiftError]) -> Callable[..., Any]:
    """Import the module (or .py file) of `module:function` and return the function; arguments as `call`."""
    match = _FUNCTION.fullmatch(text)
    if match is None:
        raise error(text, "is not module:function", "separate the module and the function with ':'")
    function = _find(_module(match["module"], text, error), match["function"], text, error)
    if not callable(function):
        raise error(text, f"is a {type(function).__name__}, not a function", "name a function")
    return function


def _module(name: str, text: str, error: type[MulshiftError]) -> ModuleType:
    if name.endswith(".py"):
        return _module_of_file(Path(name), text, error)
    _importable(Path.cwd())
    with user_code(text, error):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as e:
            if e.name is None or not (name == e.name or name.startswith(f"{e.name}.")):
                raise  # found, but an import inside it failed: tell that one
            raise error(text, f"no module named '{e.name}'", "check the name and the current folder") from e


def _module_of_file(path: Path, text: str, error: type[MulshiftError]) -> ModuleType:
    if not path.is_file():
        raise error(text, f"no such file '{path}'", "check the path")
    _importable(path.resolve().parent)
    spec = importlib.util.spec_from_file_location(f"mulshift_user_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise error(text, f"'{path}' cannot be imported", "give a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    with user_code(text, error):
        spec.loader.exec_module(module)
    return module


def _find(module: ModuleType, dotted: str, text: str, error: type[MulshiftError]) -> Callable[..., Any]:
    found: Any = module
    for part in dotted.split("."):
        if not hasattr(found, part):
            public = sorted(n for n, v in vars(module).items() if callable(v) and not n.startswith("_"))[:8]
            raise error(text, f"the module has no '{dotted}'", f"it has {', '.join(public)}" if public else "define it")
        found = getattr(found, part)
    return found  # type: ignore[no-any-return]


def _importable(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


@contextmanager
def user_code(where: str, error: type[MulshiftError]) -> Iterator[None]:
    """Turn an exception of the user's own code into one line with its message and place; ours pass unchanged."""
    try:
        yield
    except MulshiftError:
        raise
    except Exception as e:
        frames = [f for f in traceback.extract_tb(e.__traceback__) if f.filename != __file__]
        own = [f for f in frames if "importlib" not in f.filename]
        place = f" at {Path(own[-1].filename).name}:{own[-1].lineno}" if own else ""
        raise error(where, f"raised {type(e).__name__}: {e}{place}", "correct the function") from e
