"""A rounding that is killed goes on where it was, and ends with the same bytes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from rounding_graphs import build, numbers

from mulshift.ir import DataError, UsageError
from mulshift.passes.decoupleq import DecoupleQ
from mulshift.passes.gptq import Gptq
from mulshift.passes.rounding import reconstruct
from mulshift.passes.tune_scales import TuneScales

TESTS = Path(__file__).resolve().parent
SCRIPT = """
import sys
from rounding_graphs import build
from mulshift.passes.adaround import AdaRound
_, model, data = build(count=8)
print("ready", flush=True)
AdaRound(samples=data, iterations=40, block_layers=1, resume=sys.argv[1])(model)
"""


class Killed(Exception):
    pass


def _uninterrupted(**options: object) -> dict[str, bytes]:
    _, model, data = build(count=8)
    DecoupleQ(samples=data, block_layers=1, **options)(model)  # type: ignore[arg-type]
    return numbers(model)


@pytest.mark.parametrize("layers", [1, 2, 3, 4])
def test_it_goes_on_behind_the_last_whole_block(layers: int, tmp_path: Path) -> None:
    expected = _uninterrupted()
    _, model, data = build(count=8)

    def stop(done: int, total: int | None) -> None:
        if done == layers:
            raise Killed

    with pytest.raises(Killed):
        DecoupleQ(samples=data, block_layers=1, resume=str(tmp_path), progress=stop)(model)
    _, model, data = build(count=8)
    solved: list[int] = []
    step = DecoupleQ(samples=data, block_layers=1, resume=str(tmp_path))
    inner = step.solve
    step.solve = lambda problem: (solved.append(1), inner(problem))[1]  # type: ignore[method-assign]
    step(model)
    assert numbers(model) == expected
    # a block is kept when all of it is done: two layers stand between the ends of the shortcut
    assert len(solved) == {1: 4, 2: 3, 3: 3, 4: 1}[layers]


def test_a_finished_run_is_only_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = _uninterrupted(resume=str(tmp_path))

    def never(self: DecoupleQ, problem: object) -> None:
        raise AssertionError

    monkeypatch.setattr(DecoupleQ, "solve", never)
    assert _uninterrupted(resume=str(tmp_path)) == expected


def test_checkpoints_of_other_options_samples_or_models_are_not_read(tmp_path: Path) -> None:
    _uninterrupted(resume=str(tmp_path))
    for change in ("options", "samples", "model"):
        results = []
        for resume in ("", str(tmp_path)):
            _, model, data = build(count=8, bits=8 if change == "model" else 4)
            data = data[:7] if change == "samples" else data
            step = DecoupleQ(samples=data, block_layers=1, turns=1 if change == "options" else 4, resume=resume)
            step(model)
            results.append(numbers(model))
        assert results[0] == results[1]
        assert any("other runs" in note.what for note in step.log.skipped)


def test_a_broken_checkpoint_is_an_error_that_names_it(tmp_path: Path) -> None:
    _uninterrupted(resume=str(tmp_path))
    first = min(tmp_path.glob("*.npz"))
    first.write_bytes(first.read_bytes()[:100])
    with pytest.raises(DataError, match=f"{first.name}.*delete"):
        _uninterrupted(resume=str(tmp_path))


def test_what_a_run_is_stands_beside_its_blocks(tmp_path: Path) -> None:
    _uninterrupted(resume=str(tmp_path))
    (facts,) = [json.loads(p.read_text()) for p in tmp_path.glob("*.json")]
    assert facts["pass"] == "decoupleq"
    assert facts["options"]["turns"] == 4
    assert len(list(tmp_path.glob("*.npz"))) == 3


def test_a_folder_that_cannot_be_written_gets_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="resume folder"):
        _uninterrupted(resume=str(tmp_path / "file" / "inside"))


def test_killed_at_random_moments_it_gives_the_same_bytes(tmp_path: Path) -> None:
    from mulshift.passes.adaround import AdaRound

    _, model, data = build(count=8)
    AdaRound(samples=data, iterations=40, block_layers=1)(model)
    expected = numbers(model)
    rng = np.random.default_rng()  # moments need not be the same: the result has to be
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])}
    for _ in range(2):
        process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(tmp_path)], stdout=subprocess.PIPE, env=environment, text=True
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(rng.uniform(0, 0.5))
        process.send_signal(signal.SIGKILL)
        process.communicate()
    _, model, data = build(count=8)
    AdaRound(samples=data, iterations=40, block_layers=1, resume=str(tmp_path))(model)
    assert numbers(model) == expected


def test_progress_counts_layers() -> None:
    _, model, data = build(count=4)
    seen: list[tuple[int, int | None]] = []
    Gptq(samples=data, progress=lambda done, total: seen.append((done, total)))(model)
    assert [d for d, _ in seen] == sorted(d for d, _ in seen)
    assert {t for _, t in seen} == {4}
    assert seen[-1][0] == 4


def test_samples_are_read_once_and_no_further_than_needed() -> None:
    _, model, data = build(count=8)
    read: list[int] = []

    def some() -> object:
        for i, feeds in enumerate(data):
            read.append(i)
            yield feeds

    Gptq(samples=some(), max_samples=3)(model)  # type: ignore[arg-type]
    assert read == [0, 1, 2]


@pytest.mark.parametrize("steps", [3, 4, 11])
def test_a_long_descent_goes_on_from_its_last_kept_step(
    steps: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconstruct, "EVERY", 4)
    _, model, data = build(count=8)
    TuneScales(samples=data, iterations=12)(model)
    expected = numbers(model)

    def stop(done: int, total: int | None) -> None:
        if done == steps:
            raise Killed

    _, model, data = build(count=8)
    with pytest.raises(Killed):
        TuneScales(samples=data, iterations=12, resume=str(tmp_path), progress=stop)(model)
    _, model, data = build(count=8)
    seen: list[int] = []
    TuneScales(samples=data, iterations=12, resume=str(tmp_path), progress=lambda d, t: seen.append(d))(model)
    assert numbers(model) == expected
    assert seen[0] == 1 + 4 * ((steps - 1) // 4)  # the step that was interrupted had not been kept
