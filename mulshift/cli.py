"""The command line: parses, loads data, shows progress and tables, and tells errors in one line.

Every error of ours is `mulshift: error: WHERE: CAUSE; REMEDY` on stderr and its exit code, never a traceback (but see
`--traceback`).
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Annotated, Any

import typer

from mulshift.commands.assign import assign
from mulshift.commands.bench import bench
from mulshift.commands.compile import compile_model
from mulshift.commands.diff import diff
from mulshift.commands.inspect import inspect
from mulshift.commands.options import Settings
from mulshift.commands.passes import passes
from mulshift.commands.profile import profile
from mulshift.commands.recipes import recipes
from mulshift.commands.replay import replay
from mulshift.commands.run import run
from mulshift.commands.targets import targets
from mulshift.commands.verify import verify

EXIT_CODES = {
    0: "done",
    1: "a check failed: a difference, or a bound not met",
    2: "an option or argument is wrong",
    3: "the model cannot be read or is not valid",
    4: "the data does not fit the model",
    5: "an operator has no form at the level or target asked for",
    6: "an int32 accumulator cannot be proven safe",
    7: "the output cannot be written",
    70: "an error in mulshift itself",
    130: "interrupted",
}
INTERNAL_ERROR, INTERRUPTED = 70, 130
SHOWN = 200
"""Characters of the message of an error that is not ours."""

COMMANDS: dict[str, Callable[..., None]] = {
    "compile": compile_model,
    "assign": assign,
    "profile": profile,
    "verify": verify,
    "run": run,
    "bench": bench,
    "inspect": inspect,
    "diff": diff,
    "replay": replay,
    "passes": passes,
    "targets": targets,
    "recipes": recipes,
}

_CLICK_ERROR: type[BaseException] = typer.BadParameter.__mro__[2]
"""ClickException: typer brings its own copy of click in new versions and imports click in old ones."""

_EPILOG = "Exit codes: " + "; ".join(f"{code} {meaning}" for code, meaning in EXIT_CODES.items()) + "."


def _show_version(value: bool) -> None:
    if value:
        from mulshift import __version__

        typer.echo(__version__)
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Turn a trained model into an integer-only artifact that gives the same bits on every target."""


def make_app() -> typer.Typer:
    """The typer application with every command of the table."""
    app = typer.Typer(
        no_args_is_help=True,
        add_completion=True,
        pretty_exceptions_enable=False,
        epilog=_EPILOG,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    for name, function in COMMANDS.items():
        app.command(name, epilog=_EPILOG)(function)
    return app


def run_command(arguments: Sequence[str]) -> int:
    """Run one command line in this process.

    Returns:
        The exit code. Errors that are neither ours nor the user's are not caught.
    """
    settings = Settings()
    command = typer.main.get_command(make_app())
    try:
        code = command.main(list(arguments), prog_name="mulshift", standalone_mode=False, obj=settings)
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except _CLICK_ERROR as error:
        code = _usage_error(error)
    except _mulshift_error() as error:
        code = _known_error(error, settings)
    if code == INTERRUPTED:
        _tell("interrupted")
    return int(code or 0)


def main() -> None:
    """Entry point of the `mulshift` program."""
    sys.excepthook = _unexpected
    sys.exit(run_command(sys.argv[1:]))


def _mulshift_error() -> type[Exception]:
    """Evaluated only when something was raised, so that `--help` need not import the graph library."""
    from mulshift.ir import MulshiftError

    return MulshiftError


def _usage_error(error: Any) -> int:
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        typer.echo(error.format_message())
        return int(error.exit_code)
    where = context.command_path if context is not None else "mulshift"
    _tell(f"error: {where}: {error.format_message()}; see '{where} --help'")
    return int(error.exit_code)


def _known_error(error: Any, settings: Settings) -> int:
    if settings.traceback:
        traceback.print_exception(error)
    _tell(f"error: {error}")
    return int(error.code)


def _tell(text: str) -> None:
    sys.stderr.write(f"mulshift: {' '.join(text.split())}\n")


def _unexpected(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """One line for a bug of ours; Python then exits with 1, so the process is ended here with its own code."""
    if "--traceback" in sys.argv:
        traceback.print_exception(kind, error, trace)
    _tell(f"internal error: {kind.__name__}: {str(error)[:SHOWN]}; please report it with the output of --traceback")
    sys.stderr.flush()
    raise SystemExit(INTERNAL_ERROR)
