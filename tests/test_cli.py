"""The command line: help at once, one line an error, exit codes, JSON on stdout, docs in step with the options."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

import mulshift.cli
from mulshift.cli import COMMANDS, EXIT_CODES, INTERNAL_ERROR, INTERRUPTED, make_app, run_command
from mulshift.ir import ExitCode

DOCS = Path(__file__).parent.parent / "docs" / "cli.md"
SHARED = ("Output", "Data", "Mixed precision", "Images: x = (pixel * scale - mean) / std")


def program(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "mulshift", *arguments], capture_output=True, text=True, **options)


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom mulshift.cli import run_command\nassert run_command(['--help']) == 0\n"
        "assert run_command(['compile', '--help']) == 0\n"
        "print([m for m in ('torch', 'onnxruntime', 'onnx', 'onnx_ir', 'scipy', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


def test_exit_codes_are_those_of_the_library_and_are_in_the_help() -> None:
    assert set(EXIT_CODES) == {*ExitCode, INTERNAL_ERROR, INTERRUPTED}
    shown = " ".join(program("--help").stdout.split())
    for code, text in EXIT_CODES.items():
        assert f"{code} {text}" in shown
        assert f"| {code} | {text} |" in DOCS.read_text()


def commands() -> dict[str, Any]:
    found: dict[str, Any] = typer.main.get_command(make_app()).commands  # type: ignore[attr-defined]
    return found


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_is_in_the_docs(name: str) -> None:
    sections = re.split(r"^## ", DOCS.read_text(), flags=re.M)
    own = next(s for s in sections if s.startswith(f"mulshift {name}\n"))
    shared = next(s for s in sections if s.startswith("Shared options\n"))
    command = commands()[name]
    assert " ".join(command.help.split()) in own
    for parameter in command.params:
        if parameter.name == "help":
            continue
        names = parameter.opts if parameter.param_type_name == "option" else [parameter.metavar]
        section = shared if getattr(parameter, "rich_help_panel", None) in SHARED else own
        assert f"| {', '.join(f'`{n}`' for n in names)} | {parameter.help} |" in section


def test_the_docs_name_no_option_that_is_gone() -> None:
    known = {o for c in commands().values() for p in c.params for o in p.opts} | {"--help"}
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", DOCS.read_text())) <= known


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["compile"], "Missing argument 'MODEL'"),
        (["compile", "m.onnx"], "Missing option '--calibration'"),
        (["compile", "m.onnx", "-c", "d.npz", "--bits", "4"], "No such option"),
        (["compile", "m.onnx", "-c", "d.npz", "--limit", "0"], "--limit"),
        (["compile", "m.onnx", "-c", "d.npz", "--seed", "x"], "--seed"),
        (["compil"], "No such command"),
        (["recipes", "int9"], "no such recipe"),
        (["compile", "m.onnx", "-c", "d", "--image-scale", "big"], "--image-scale: 'big' is not a number"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(arguments) == ExitCode.USAGE
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"mulshift: error: .*\n", err)
    assert words in err


def test_no_arguments_show_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command([]) == ExitCode.USAGE
    assert "Usage" in "".join(capsys.readouterr())


def test_version() -> None:
    assert program("--version").stdout == f"{mulshift.__version__}\n"


@pytest.mark.parametrize("name", ["passes", "targets", "recipes"])
def test_lists_in_both_forms(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command([name, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)[name]
    assert rows
    assert run_command([name]) == 0
    table = capsys.readouterr().out
    assert all(row["name"] in table for row in rows)


def test_a_recipe_is_printed_as_yaml_that_can_be_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["recipes", "int8"]) == 0
    (tmp_path / "mine.yaml").write_text(capsys.readouterr().out)
    assert run_command(["recipes", str(tmp_path / "mine.yaml"), "--json"]) == 0
    mine = json.loads(capsys.readouterr().out)
    assert run_command(["recipes", "int8", "--json"]) == 0
    assert mine == json.loads(capsys.readouterr().out)


def test_traceback_only_if_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["compile", "nothing.onnx", "-c", "nothing.npz"]
    assert run_command(arguments) == ExitCode.BAD_MODEL
    assert "Traceback" not in capsys.readouterr().err
    assert run_command([*arguments, "--traceback"]) == ExitCode.BAD_MODEL
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert err.splitlines()[-1].startswith("mulshift: error: nothing.onnx: no such file")


def test_a_bug_of_ours_asks_for_a_report(tmp_path: Path) -> None:
    code = (
        "import sys, mulshift.cli\nmulshift.cli.run_command = lambda arguments: 1 / 0\n"
        "sys.argv = ['mulshift', 'x', *sys.argv[1:]]\nmulshift.cli.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == INTERNAL_ERROR
    assert re.fullmatch(r"mulshift: internal error: ZeroDivisionError: .*please report it.*\n", done.stderr)
    done = subprocess.run([sys.executable, "-c", code, "--traceback"], capture_output=True, text=True)
    assert done.returncode == INTERNAL_ERROR
    assert "Traceback" in done.stderr


def _listen() -> None:
    """A shell's background jobs ignore SIGINT, and what they start inherits that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_an_interrupt_ends_cleanly(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(
        "import time\ndef build():\n    print('started', flush=True)\n    time.sleep(60)\n"
    )
    running = subprocess.Popen(
        [sys.executable, "-m", "mulshift", "compile", "slow.py:build", "-c", "x.npz", "-o", "out"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=_listen,
    )
    assert running.stdout is not None
    assert running.stdout.readline() == "started\n"
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=30)
    assert running.returncode == INTERRUPTED
    assert err.splitlines()[-1] == "mulshift: interrupted"
    assert "Traceback" not in err
    assert not (tmp_path / "out").exists()
