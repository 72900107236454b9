"""Rows on the speed of transformers at batch 1, beside int8 peers; imported by `benchmarks/transformers.py`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from time import perf_counter

from processes import Failed, loud, measured, script
from rows import Row, at_least
from sides import Side, take_turns

ORT = "ort int8 all", "ort int8 products", "ort int8 dynamic"
DECODING = {8: ("nbits 32", "nbits 64", "ours"), 4: ("nbits4 32", "nbits4 64", "ours 4 bits")}
"""Bits of weights -> theirs, with blocks of 32 and 64, and ours."""
CONFIGURATIONS = ("float", *ORT, "openvino int8", "ours")
"""Rows of prepare.PREPARE, in the order of its table."""
BOUNDS = {"minilm": (1.1, 1.9), "bert-base": (1.1, 1.5), "vit-tiny": (1.5, 2.2), "deit-s": (1.5, 2.2)}
"""Times as fast as the fastest int8 peer, and as ONNX Runtime int8."""
DECODER, DECODING_BOUND = "decoder", 1.5
THREADS = (1, 2)
NAMES = {
    "minilm": "MiniLM, sequence 128",
    "bert-base": "BERT-base, sequence 128",
    "vit-tiny": "ViT-Tiny",
    "deit-s": "DeiT-S",
    DECODER: "SmolLM2 layers, 1 token",
}


@dataclass(frozen=True)
class Effort:
    """How much to measure.

    Attributes:
        samples: to calibrate on.
        rounds: processes a configuration.
        seconds: of turns of all configurations of a setting, a round.
    """

    samples: int
    rounds: int
    seconds: float


@dataclass
class Speed:
    """Folders by (network, configuration), processes by (network, threads), configuration, and what failed."""

    effort: Effort
    folders: dict[tuple[str, str], Path] = field(default_factory=dict)
    sides: dict[tuple[str, int], dict[str, Side]] = field(default_factory=dict)
    why: dict[tuple[str, str], str] = field(default_factory=dict)

    def fail(self, network: str, name: str, why: str) -> None:
        self.why[network, name] = why
        loud(f"{network}, {name} left out", why)

    def milliseconds(self, network: str, threads: int, name: str) -> float | None:
        """The best; None for what failed."""
        side = self.sides[network, threads].get(name)
        return side.seen.get("milliseconds") if side else None


def configurations(network: str) -> tuple[str, ...]:
    return ("float", *DECODING[8], *DECODING[4]) if network == DECODER else CONFIGURATIONS


def prepare(speed: Speed, network: str, deadline: float) -> None:
    """Make the folders of a network, each by a process of its own, until `deadline` (of perf_counter)."""
    found = measured("transformer/prepare", "found", network, speed.effort.samples)
    for name in configurations(network):
        if name in found:
            speed.folders[network, name] = Path(found[name])
            continue
        if (network, "float") in speed.why:
            speed.why[network, name] = speed.why[network, "float"]
            continue
        try:
            made = script("transformer/prepare", name, network, speed.effort.samples, seconds=deadline - perf_counter())
            speed.folders[network, name] = Path(made.splitlines()[-1])
        except Failed as e:
            speed.fail(network, name, str(e))


def time_all(speed: Speed) -> None:
    """The rounds of one setting lie far apart, so that noise rarely hits them all."""
    for network, threads in product(NAMES, THREADS):
        names = [name for name in configurations(network) if (network, name) not in speed.why]
        speed.sides[network, threads] = {name: side_of(speed, network, threads, name) for name in names}
    for number in range(speed.effort.rounds):
        for (network, _), sides in speed.sides.items():
            well = {name: side for name, side in sides.items() if not side.why}
            take_turns(well, speed.effort.seconds, peers(network))
            for name, side in well.items():
                if side.why:
                    speed.fail(network, name, side.why)
        print(f"speed, round {number + 1} of {speed.effort.rounds} done", flush=True)


def peers(network: str) -> tuple[str, ...]:
    """Whom the fastest of is told; a decoder has peers of two kinds, which are all timed to the end."""
    return () if network == DECODER else (*ORT, "openvino int8")


def side_of(speed: Speed, network: str, threads: int, name: str) -> Side:
    """The process of a configuration."""
    folder = speed.folders[network, name]
    engine = {"openvino": "openvino", "ours": "ours"}.get(name.split()[0], "onnxruntime")
    model = folder / ("model.xml" if engine == "openvino" else "model.onnx")
    data = speed.folders[network, "float"] / "data.npz"
    return Side("transformer/worker", (engine, model, data, threads))


def print_times(speed: Speed) -> None:
    """Milliseconds of everything."""
    for network, title in NAMES.items():
        names = configurations(network)
        print(f"\n{title}, batch 1, milliseconds".ljust(44) + "".join(f"{n:>19}" for n in names))
        for threads in THREADS:
            times = [speed.milliseconds(network, threads, name) for name in names]
            shown = "".join(f"{'-':>19}" if t is None else f"{t:19.3f}" for t in times)
            print(f"  {threads} thread{'s' if threads > 1 else ''}".ljust(43) + shown, flush=True)


def speed_rows(speed: Speed) -> Iterator[Row]:
    """Against the fastest peer of this run, ONNX Runtime alone, and float (no bound)."""
    for network, title in NAMES.items():
        for threads in THREADS:
            head = f"{title}, {threads} thread{'s' if threads > 1 else ''}: times as fast as"
            if network == DECODER:
                for bits, (*theirs, ours) in DECODING.items():
                    against = f"{head} MatMulNBits, {bits} bits"
                    yield _ratio(speed, network, threads, against, tuple(theirs), DECODING_BOUND, ours)
            else:
                fastest, onnxruntime = BOUNDS[network]
                yield _ratio(speed, network, threads, f"{head} the fastest int8 peer", peers(network), fastest)
                yield _ratio(speed, network, threads, f"{head} ONNX Runtime int8", ORT, onnxruntime)
            yield _ratio(speed, network, threads, f"{head} float", ("float",), None)


def _ratio(
    speed: Speed,
    network: str,
    threads: int,
    criterion: str,
    names: tuple[str, ...],
    bound: float | None,
    side: str = "ours",
) -> Row:
    found = {n: t for n in names if (t := speed.milliseconds(network, threads, n)) is not None}
    ours = speed.milliseconds(network, threads, side)
    shown = "(information)" if bound is None else f">= {bound:.2f}"
    absent = [n for n in names if n not in found]
    if ours is None or absent:  # without one of its peers, "the fastest" would be too easy
        name = side if ours is None else absent[0]
        why = speed.why.get((network, name), "not measured")
        return Row(f"{criterion} (not run: {why})", "-", shown, bound is None)
    fastest = min(found, key=lambda n: found[n])
    named = criterion if len(names) == 1 else f"{criterion} ({fastest})"
    value = found[fastest] / ours
    return Row(named, f"{value:.2f}", shown, True) if bound is None else at_least(named, value, bound)
