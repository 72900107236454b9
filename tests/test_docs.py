"""The documents against the code: what they list is what there is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pydantic
import pytest
import typer

import mulshift
from mulshift.cli import make_app
from mulshift.lock import Lock, Sources
from mulshift.output_folder import FILES
from mulshift.passes import PASSES
from mulshift.passes.recipe import load_recipe, recipe_names
from mulshift.report import Layer, PassRow, Report, Totals, Verification

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
NAMES = [str(p.relative_to(ROOT)) for p in PAGES]


def _text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def _rows(text: str) -> dict[str, str]:
    """First cell of each table row (without backticks) -> the rest."""
    cells = (line.strip("| ").split(" | ", 1) for line in text.splitlines() if line.startswith("| "))
    return {c[0].strip("`"): c[1] for c in cells if len(c) == 2}


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_somewhere(name: str) -> None:
    broken = []
    prose = re.sub(r"```.*?```", "", _text(name), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)]+)\)", prose):
        path, _, anchor = target.partition("#")
        file = ((ROOT / name).parent / path) if path else ROOT / name
        if "://" not in target and not (file.exists() and (not anchor or anchor in _anchors(file))):
            broken.append(target)
    assert broken == []


def _anchors(file: Path) -> list[str]:
    headings = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.MULTILINE)
    return [re.sub(r"[^\w -]", "", h).strip().lower().replace(" ", "-") for h in headings]


def test_every_pass_is_listed_with_its_contract() -> None:
    listed = {name: rest.split(" | ")[0] for name, rest in _rows(_text("docs/passes.md")).items() if name != "pass"}
    assert listed == {name: str(cls.contract) for name, cls in PASSES.items()}


def test_every_recipe_is_listed_with_its_description() -> None:
    listed = dict(re.findall(r"^- `([\w-]+)`: (.*)$", _text("docs/passes.md"), re.MULTILINE))
    assert listed == {name: load_recipe(name).description for name in recipe_names()}


def test_the_recipe_shown_is_one(tmp_path: Path) -> None:
    yaml, *pieces = re.findall(r"```yaml\n(.*?)```", _text("docs/passes.md"), re.DOTALL)
    for piece in pieces:
        text = f"name: piece\ndescription: of a recipe\npasses:\n{piece}"
        (tmp_path / "piece.yaml").write_text(text, encoding="utf-8")
        assert load_recipe(tmp_path / "piece.yaml").passes
    (tmp_path / "mine.yaml").write_text(yaml, encoding="utf-8")
    assert load_recipe(tmp_path / "mine.yaml").name == "mine"


@pytest.mark.parametrize("model", [Report, Totals, Verification, Layer, PassRow, Lock, Sources])
def test_every_field_is_explained(model: type[pydantic.BaseModel]) -> None:
    words = set(re.findall(r"\w+", " ".join(re.findall(r"`([^`]+)`", _text("docs/artifact.md")))))
    assert set(model.model_fields) - words == set()


def test_every_file_is_explained() -> None:
    text = _text("docs/artifact.md")
    assert [f for f in FILES if f"`{f}`" not in text] == []


def _commands() -> Iterator[tuple[str, str]]:
    """(page, line) of every `mulshift ...` in a code block or in backticks."""
    for name in NAMES:
        for line in re.findall(r"(?:^|`)(?: {4})?(mulshift [a-z][^`\n#]*)", _text(name), re.MULTILINE):
            yield name, line.strip()


def test_commands_and_options_exist() -> None:
    group = typer.main.get_command(make_app())
    found = list(_commands())
    assert len(found) > 10
    unknown = []
    for page, line in found:
        words = line.split()
        command = group.commands.get(words[1])  # type: ignore[attr-defined]
        options = {o for p in command.params for o in p.opts} if command is not None else set()
        given = {w for w in words[2:] if w.startswith("-")}
        if command is None or not given <= options | {"--help"}:
            unknown.append(f"{page}: {line}")
    assert unknown == []


def test_names_of_the_package_exist() -> None:
    used = {m for n in NAMES for m in re.findall(r"\bmulshift\.([A-Za-z]\w*)\(", _text(n))}
    assert used
    assert [n for n in sorted(used) if not hasattr(mulshift, n)] == []
