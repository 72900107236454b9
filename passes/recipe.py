"""A recipe: which passes run, in which order, with which options. YAML or Python; named ones ship in `recipes/`."""

from __future__ import annotations

import dataclasses
import difflib
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import pydantic
import yaml

from mulshift.ir import UsageError
from mulshift.passes import PASSES, Pass

RECIPES = Path(__file__).parent / "recipes"
INJECTED = ("samples", "progress", "target", "seed", "resume")
"""Fields of a pass that the pipeline fills, unless the recipe names them."""


class Step(pydantic.BaseModel):
    """One pass and its options.

    Attributes:
        name: row of `mulshift.passes.PASSES`; spelled `pass` in YAML.
        options: fields of that pass.
    """

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", populate_by_name=True)
    name: str = pydantic.Field(alias="pass")
    options: dict[str, Any] = pydantic.Field(default_factory=dict)


class Recipe(pydantic.BaseModel):
    """An ordered list of steps."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")
    name: str
    description: str = ""
    passes: tuple[Step, ...]

    def text(self) -> str:
        """The recipe as canonical YAML: the same text for the same recipe, and `load_recipe` reads it back."""
        steps = [{"pass": s.name, **({"options": s.options} if s.options else {})} for s in self.passes]
        plain = {"name": self.name, "description": self.description, "passes": steps}
        return str(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=120))


RecipeSource: TypeAlias = str | Path | Mapping[str, Any] | Recipe


def recipe_names() -> list[str]:
    """The recipes that ship with the package."""
    return sorted(p.stem for p in RECIPES.glob("*.yaml"))


def load_recipe(source: RecipeSource) -> Recipe:
    """A recipe by name, by path of a YAML file, or from Python; passes and options are checked.

    Raises:
        UsageError: no such recipe or file, not valid YAML, unknown pass or option, an option of the wrong type.
    """
    recipe = source if isinstance(source, Recipe) else _parse(source)
    for step in recipe.passes:
        options_of(step)
    return recipe


def _parse(source: str | Path | Mapping[str, Any]) -> Recipe:
    if isinstance(source, Mapping):
        where, data = "recipe", dict(source)
    else:
        path = _find(source)
        where = f"recipe '{path}'"
        try:
            data = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as e:
            raise UsageError(where, f"cannot be read ({_first_line(e)})") from e
    try:
        return Recipe.model_validate(data)
    except pydantic.ValidationError as e:
        first = e.errors()[0]
        place = ".".join(str(p) for p in first["loc"])
        raise UsageError(where, f"{place}: {first['msg']}", "a recipe has name, description and passes") from e


def _find(source: str | Path) -> Path:
    named = RECIPES / f"{source}.yaml"
    if str(source) in recipe_names():
        return named
    path = Path(source)
    if path.is_file():
        return path
    raise UsageError(f"recipe '{source}'", "no such recipe or file", suggest(str(source), recipe_names()))


def suggest(word: str, known: Iterable[str]) -> str:
    """`did you mean 'x'?`, or the list of what there is."""
    names = sorted(known)
    close = difflib.get_close_matches(word, names, 1)
    return f"did you mean '{close[0]}'?" if close else f"there is {', '.join(names) or 'none'}"


def pass_type(name: str) -> type[Pass]:
    """The class of a pass by its name; UsageError with the closest name if there is none."""
    if name not in PASSES:
        raise UsageError(f"pass '{name}'", "no such pass", suggest(name, PASSES))
    return PASSES[name]


def options_of(step: Step) -> dict[str, Any]:
    """The step's options, converted to the types of the pass's fields (a YAML list becomes a tuple, and so on)."""
    cls = pass_type(step.name)
    hints = typing.get_type_hints(cls)
    known = [f.name for f in dataclasses.fields(cls) if f.init]
    config = pydantic.ConfigDict(arbitrary_types_allowed=True)
    converted = {}
    for key, value in step.options.items():
        where = f"pass '{step.name}', option '{key}'"
        if key not in known:
            offered = [name for name in known if name not in INJECTED]
            raise UsageError(where, "no such option", suggest(key, offered))
        hint = hints[key]
        try:
            adapter = pydantic.TypeAdapter(hint) if _has_own_config(hint) else pydantic.TypeAdapter(hint, config=config)
            converted[key] = adapter.validate_python(value)
        except pydantic.ValidationError as e:
            raise UsageError(where, f"{value!r}: {e.errors()[0]['msg']}") from e
    return converted


def make_pass(step: Step, given: Mapping[str, Any]) -> Pass:
    """An instance of the step's pass; `given` fills the fields of INJECTED that it has and the recipe leaves open.

    Raises:
        UsageError: as `options_of`, or the pass refuses the values.
    """
    cls = pass_type(step.name)
    fields = {f.name for f in dataclasses.fields(cls) if f.init}
    options = {k: v for k, v in given.items() if k in fields} | options_of(step)
    try:
        return cls(**options)
    except (TypeError, ValueError) as e:
        raise UsageError(f"pass '{step.name}'", _first_line(e)) from e


def _has_own_config(hint: Any) -> bool:
    """Pydantic lets models and dataclasses bring their own configuration only."""
    return isinstance(hint, type) and (dataclasses.is_dataclass(hint) or issubclass(hint, pydantic.BaseModel))


def _first_line(e: Exception) -> str:
    return str(e).strip().split("\n")[0]
