"""Recipes: the shipped ones, YAML and Python forms, and one clear line for each mistake."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import onnx_ir as ir
import pytest

from mulshift.ir import Samples, UsageError
from mulshift.passes import PASSES, Contract, Pass
from mulshift.passes.recipe import Recipe, Step, load_recipe, make_pass, options_of, recipe_names


@dataclass
class Fake(Pass):
    name: ClassVar[str] = "fake-pass"
    contract: ClassVar[Contract] = Contract.EXACT
    bits: int = 8
    axes: tuple[int, ...] = ()
    method: str = "plain"
    samples: Samples = ()
    progress: Callable[[int, int | None], None] | None = None

    def __post_init__(self) -> None:
        if self.bits > 8:
            raise ValueError(f"{self.bits} bits are too many")

    def rewrite(self, model: ir.Model) -> None:
        """Nothing."""


@pytest.fixture(autouse=True)
def _fake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PASSES, Fake.name, Fake)


def recipe(**options: object) -> dict[str, object]:
    return {"name": "r", "passes": [{"pass": "fake-pass", "options": options}]}


@pytest.mark.parametrize("name", recipe_names())
def test_shipped_recipes_load_and_end_in_integers(name: str) -> None:
    loaded = load_recipe(name)
    assert loaded.name == name and loaded.description
    assert loaded.passes[-1].name == "to-integer"
    assert all(make_pass(step, {"samples": [], "seed": 0, "target": "integer"}) for step in loaded.passes)


def test_default_recipes_are_there() -> None:
    assert {"int8", "int8-fast", "int8-transformer"} <= set(recipe_names())


@pytest.mark.parametrize("name", sorted(PASSES))
def test_every_pass_can_be_named_in_a_recipe(name: str) -> None:
    """Options of all passes resolve, so that a mistake in one is found when it is typed, not when it runs."""
    cls = PASSES[name]
    assert cls.name == name
    simple = {f.name: f.default for f in dataclasses.fields(cls) if isinstance(f.default, str | int | float)}
    assert options_of(Step.model_validate({"pass": name, "options": simple})) == simple


def test_yaml_and_python_are_the_same(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("name: r\npasses:\n  - pass: fake-pass\n    options: {bits: 4, axes: [0, 1]}\n")
    assert load_recipe(file) == load_recipe(str(file)) == load_recipe(recipe(bits=4, axes=[0, 1]))
    made = make_pass(load_recipe(file).passes[0], {"samples": [1], "seed": 3})
    assert isinstance(made, Fake)
    assert (made.bits, made.axes, made.samples) == (4, (0, 1), [1])


def test_text_reads_back(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    for source in (recipe(bits=4, method="ü"), "int8-fast" if "to-integer" in PASSES else recipe()):
        loaded = load_recipe(source)  # type: ignore[arg-type]
        file.write_text(loaded.text(), encoding="utf-8")
        assert load_recipe(file) == loaded
        assert load_recipe(file).text() == loaded.text()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("int9", "recipe 'int9': no such recipe or file; did you mean 'int8'"),
        ({"name": "r", "passes": [{"pass": "fake-pas"}]}, "pass 'fake-pas': no such pass; did you mean 'fake-pass'"),
        (recipe(bit=3), "pass 'fake-pass', option 'bit': no such option; did you mean 'bits'"),
        (recipe(bits="many"), "pass 'fake-pass', option 'bits': 'many': Input should be a valid integer"),
        (recipe(log=1), "option 'log': no such option"),
        ({"name": "r"}, "recipe: passes: Field required"),
        ({"name": "r", "passes": [{"pass": "fake-pass", "option": {}}]}, "recipe: passes.0.option: Extra inputs"),
    ],
)
def test_mistakes_are_one_line(source: str | dict[str, object], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_recipe(source)
    assert str(caught.value).startswith(message) or message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_value_that_the_pass_refuses() -> None:
    with pytest.raises(UsageError, match=r"^pass 'fake-pass': 9 bits are too many$"):
        make_pass(load_recipe(recipe(bits=9)).passes[0], {})


def test_damaged_yaml(tmp_path: Path) -> None:
    for text in ("name: [", "\xff", "3"):
        file = tmp_path / "bad.yaml"
        file.write_bytes(text.encode("latin-1"))
        with pytest.raises(UsageError, match=r"bad\.yaml"):
            load_recipe(file)


def test_a_recipe_is_frozen() -> None:
    loaded = load_recipe(recipe())
    assert isinstance(loaded, Recipe)
    with pytest.raises(ValueError, match="frozen"):
        loaded.name = "other"  # type: ignore[misc]
