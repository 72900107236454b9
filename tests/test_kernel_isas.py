"""Every instruction set gives the bits of the portable kernels: random cases of `kernels/tests`, compared line by line.

The cases are compiled here with the kernels, with sanitizers where the machine itself runs them. What it lacks is
emulated: AVX-512 by the headers of SIMDe, NEON by QEMU.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from mulshift import kernels

KERNELS = Path(__file__).resolve().parent.parent / "kernels"
SIMDE = Path("/usr/include/simde")
FLAGS = ["-std=c++17", "-Og", "-pthread", "-Wall", "-Wextra", f"-I{KERNELS / 'src'}", f"-I{KERNELS / 'include'}"]
ADDRESS = ["-fsanitize=address"]
BOTH = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
THREAD = ["-fsanitize=thread"]
TRAP = ["-fsanitize=undefined", "-fsanitize-undefined-trap-on-error"]
"""Undefined behaviour stops the program, without a library that a static one lacks."""
EMULATED = ["-DMULSHIFT_EMULATED", "-Wno-psabi", "-Wno-uninitialized"]
SEED, FEW, MANY = 52, 400, 1500
"""Of `SEED`, the first few cases are of every kind and way."""
WAYS = ("low", "high", "any")


@dataclass(frozen=True)
class Isa:
    """A row of kernels/CMakeLists.txt: what puts an instruction set into the table, its file, how that is compiled."""

    define: str
    source: str
    flags: list[str]


@dataclass(frozen=True)
class Program:
    """`cases`, and what runs it."""

    command: list[str]
    isas: list[str]

    def lines(self, isa: str, seed: int, count: int) -> list[str]:
        """What it prints; a report of a sanitizer is a failure."""
        command = [*self.command, str(seed), str(count)]
        done = subprocess.run(command, env={**os.environ, "MULSHIFT_ISA": isa}, capture_output=True, text=True)
        assert done.returncode == 0, f"{isa}, seed {seed}: {done.stderr[:3000] or done.returncode}"
        return done.stdout.splitlines()


CMAKE = re.sub(r"#.*", "", (KERNELS / "CMakeLists.txt").read_text(encoding="utf-8"))
ISAS = {
    Path(source).stem: Isa(f"-D{define}", source, flags.split())
    for define, source, flags in re.findall(r"add_isa\((MULSHIFT_\w+) (\S+)([^)]*)\)", CMAKE)
}
COMMON = [KERNELS / source for source in re.findall(r"^  (src/\S+\.cpp)", CMAKE, re.MULTILINE) if "/ort/" not in source]


def _build(folder: Path, compiler: str, isas: dict[str, list[str]], flags: list[str], link: list[str]) -> Path:
    """The program with these instruction sets, each with its own flags; `flags` are those of all other files."""
    defines = [ISAS[name].define for name in isas]
    if any(EMULATED[0] in own for own in isas.values()):
        defines.append(EMULATED[0])
    plain = [*COMMON, *KERNELS.glob("tests/*.cpp")]
    sources = {KERNELS / ISAS[name].source: own for name, own in isas.items()} | dict.fromkeys(plain, flags)

    def compile_one(source: Path) -> str:
        made = folder / f"{source.parent.name}-{source.stem}.o"
        _run([compiler, *FLAGS, *defines, *sources[source], "-c", str(source), "-o", str(made)])
        return str(made)

    with ThreadPoolExecutor(2) as pool:
        objects = list(pool.map(compile_one, sources))
    _run([compiler, *link, "-pthread", *objects, "-o", str(folder / "cases")])
    return folder / "cases"


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


def _compiler() -> str:
    """Skips where there is none."""
    found = os.environ.get("CXX") or shutil.which("g++")
    if not found:
        pytest.skip("no g++ (or CXX) to compile kernels/tests with")
    return found


def _is_x86() -> bool:
    return platform.machine().lower() in ("x86_64", "amd64")


@pytest.fixture(scope="session")
def host(tmp_path_factory: pytest.TempPathFactory) -> Program:
    """With what this machine runs, and what it can emulate inside a program of its own."""
    isas = {name: [*BOTH, *ISAS[name].flags] for name in kernels.instruction_sets() if name in ISAS}
    if _is_x86() and "avx512vnni" not in isas and SIMDE.is_dir():
        isas["avx512vnni"] = [*ADDRESS, *EMULATED]
    program = _build(tmp_path_factory.mktemp("host"), _compiler(), isas, BOTH, BOTH)
    return Program([str(program)], [*isas, "portable"])


@pytest.fixture(scope="session")
def arm(tmp_path_factory: pytest.TempPathFactory) -> Program:
    """With NEON, by QEMU."""
    tools = [shutil.which(name) for name in ("aarch64-linux-gnu-g++", "qemu-aarch64")]
    if None in tools:
        pytest.skip("no aarch64-linux-gnu-g++ or qemu-aarch64 (apt-get install g++-aarch64-linux-gnu qemu-user)")
    compiler, emulator = map(str, tools)
    isas = {"neondot": [*TRAP, *ISAS["neondot"].flags]}
    program = _build(tmp_path_factory.mktemp("arm"), compiler, isas, TRAP, ["-static"])
    return Program([emulator, "-cpu", "max", str(program)], ["neondot"])


@pytest.fixture(params=sorted(ISAS))
def other(request: pytest.FixtureRequest, host: Program) -> tuple[str, Program]:
    """An instruction set, and a program with it."""
    name: str = request.param
    if name in host.isas:
        return name, host
    if name == "neondot":
        return name, request.getfixturevalue("arm")
    if name == "avx512vnni" and _is_x86():
        pytest.skip(f"this machine does not run {name}, and {SIMDE} is not there (apt-get install libsimde-dev)")
    pytest.skip(f"this machine neither runs nor emulates {name}")


@pytest.fixture(scope="session")
def plain(host: Program) -> list[str]:
    """The lines of the portable kernels."""
    return host.lines("portable", SEED, FEW)


@pytest.fixture(scope="session", params=[2, 3])
def many(request: pytest.FixtureRequest, host: Program) -> tuple[int, list[str]]:
    """A seed, and the lines of the portable kernels for it."""
    return request.param, host.lines("portable", request.param, MANY)


def _differences(got: list[str], wanted: list[str]) -> Iterator[str]:
    assert len(got) == len(wanted)
    yield from (f"{g}\n  instead of {w}" for g, w in zip(got, wanted, strict=True) if g != w)


def test_equals_the_portable_kernels(other: tuple[str, Program], plain: list[str]) -> None:
    name, program = other
    assert list(_differences(program.lines(name, SEED, FEW), plain)) == []


@pytest.mark.slow
def test_equals_the_portable_kernels_often(other: tuple[str, Program], many: tuple[int, list[str]]) -> None:
    (name, program), (seed, wanted) = other, many
    assert list(_differences(program.lines(name, seed, MANY), wanted)) == []


@pytest.mark.slow
def test_threads_do_not_race(tmp_path: Path) -> None:
    """A report of the thread sanitizer is a failure."""
    best = kernels.instruction_sets()[0]
    isas = {best: [*THREAD, *ISAS[best].flags]} if best in ISAS else {}
    program = _build(tmp_path, _compiler(), isas, THREAD, THREAD)
    assert len(Program([str(program)], [best]).lines(best, 3, MANY)) == MANY


def test_elementwise_kernels_equal_the_exact_ones(plain: list[str]) -> None:
    """And products give the same in any order of tasks and for any number of threads."""
    assert [line for line in plain if "INEXACT" in line or "UNSTABLE" in line] == []


def test_the_cases_cover_every_kind_and_way(plain: list[str]) -> None:
    kinds = Counter(line.split()[1] for line in plain)
    assert kinds.keys() == set(
        (
            "conv pointwise depthwise three five winograd few-rows deep requantize add mul affine table reduce "
            "max-pool lerp attention softmax matmul norm rotary hadamard row-quantize"
        ).split()
    )
    text = "\n".join(plain)
    for op in ("requantize", "add", "mul", "affine"):
        assert [way for way in WAYS if f" {op} way {way}" not in text] == [], op
    for stage in ("first", "add", "again"):
        assert [way for way in WAYS if f" {stage} {way}" not in text] == [], stage
    for op in ("attention", "softmax", "rotary", "hadamard"):
        assert [way for way in WAYS if not re.search(f" {op} .*, way {way}", text)] == [], op
    for sums in (
        "singles",
        "pairs",
        "fours",
        "some fours",
        "fours of pairs",
        "some fours of pairs",
        "small",
        "smallest",
    ):
        assert f", {sums}:" in text or f", {sums}," in text, sums
    assert "WRONG" not in text
    for bits in (4, 2, 1):
        assert f", {bits} bits" in text, bits
    for bits in (4, 2):
        assert re.search(rf"few-rows .*, {bits} bits", text), bits
    for way in WAYS:
        assert re.search(rf" first {way}, .*, by rows", text), way
    assert ", blocks of " in text
    assert " masked, " in text and " whole, " in text
    assert "table" in text and "may overflow" in text and "exact" in text
