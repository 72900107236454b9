"""Progress on a stream that is no terminal: few lines, with time left; nothing when quiet."""

from __future__ import annotations

import io

import pytest

from mulshift.progress import _Lines, show_progress


def test_lines_at_start_at_end_and_every_few_seconds() -> None:
    out, now = io.StringIO(), [0.0]
    lines = _Lines(out, clock=lambda: now[0])
    for done in range(11):
        lines("calibrate", done, 10)
        now[0] += 1.0
    lines("calibrate", 10, 10)
    assert out.getvalue().splitlines() == [
        "calibrate: 0/10",
        "calibrate: 5/10, 5 s left",
        "calibrate: 10/10",
    ]


def test_unknown_total() -> None:
    out = io.StringIO()
    with show_progress(stream=out) as progress:
        progress("load", 0, None)
        progress("load", 0, None)
    assert out.getvalue() == "load: 0/?\n"


def test_quiet_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with show_progress(quiet=True) as progress:
        progress("load", 0, 3)
    assert capsys.readouterr() == ("", "")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_bars_on_a_terminal_tell_each_stage() -> None:
    out = Terminal()
    with show_progress(stream=out) as progress:
        progress("calibrate [x]", 1, 4)
        progress("verify", 2, 2)
    assert "calibrate [x]" in out.getvalue()
    assert "2/2" in out.getvalue()
