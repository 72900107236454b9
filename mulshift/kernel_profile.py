"""How long the very kernels of a model take on this machine, for each form of weights; kept for the next time."""

from __future__ import annotations

import hashlib
import json
import platform
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import onnx_ir as ir

from mulshift import kernels
from mulshift.backends import Artifact, lower
from mulshift.backends.artifact import MODEL_FILE
from mulshift.ir import DataError, Feeds, Level, Samples, UsageError
from mulshift.passes.allocation.candidates import DENSE, KINDS, REFERENCE, Candidates
from mulshift.passes.allocation.costs import Latencies
from mulshift.passes.allocation.files import write_whole
from mulshift.passes.allocation.groups import integer_names
from mulshift.passes.pipeline import Pipeline
from mulshift.passes.recipe import Recipe, RecipeSource, load_recipe
from mulshift.single_nodes import Form, SingleNode, is_weighted, single_nodes, with_weights_of
from mulshift.user_cache import cache_folder
from mulshift.workers import measured

BASE = Form()
"""8 bits, dense."""
FORMS = tuple(Form(bits, kind) for kind in KINDS for bits in (8, 4, 2) if kind == DENSE or bits > 2)
FILE = "profile.json"
NEEDED = ("narrow-scales", "to-integer")
"""What of a recipe after insert-fake-quant decides which kernels run; the rest only tunes numbers."""
LEFT_OUT = ("assign-precision", "fold-input")


@dataclass(frozen=True)
class Timed:
    """One product.

    Attributes:
        name: of the float node.
        op: as the kernel library runs it with 8-bit weights.
        seconds: form of its weights (8, 4, 8:2:4) -> one run.
    """

    name: str
    op: str
    seconds: Mapping[str, float]


@dataclass(frozen=True)
class Profile:
    """A model on this machine.

    Attributes:
        machine: CPU, instruction set, library and number of threads.
        products: in the order of the graph.
        model: seconds of the whole model with 8-bit weights.
    """

    machine: str
    products: tuple[Timed, ...]
    model: float

    def latencies(self, candidates: Candidates) -> Latencies:
        """For `assign-precision`; a candidate with groups counts as 8 bits, for its kernel was not timed."""
        forms = {str(c): str(Form.of(c)) for c in candidates if not c.precision.group}
        seconds = {
            p.name: {c: p.seconds[form] for c, form in forms.items() if form in p.seconds}
            | {str(REFERENCE): p.seconds[str(BASE)]}
            for p in self.products
        }
        return Latencies(seconds, self.model)


def forms_of(candidates: Candidates) -> tuple[Form, ...]:
    """What a kernel must be timed for."""
    return tuple(dict.fromkeys(Form.of(c) for c in candidates if not c.precision.group))


def profile(
    model: ir.Model,
    samples: Samples,
    recipe: RecipeSource = "int8",
    *,
    threads: int = 1,
    seconds: float = 0.2,
    forms: Sequence[Form] = FORMS,
    folder: Path | None = None,
    progress: Callable[[str, int, int | None], None] | None = None,
) -> Profile:
    """Time every product of a model as the kernel library runs it, and the model.

    The recipe's INTEGER graph is lowered once for each form, with weights cut to it, and its product nodes are timed
    one by one in a process of their own: the fastest of many runs. Nodes of the same operator, shapes and
    layout are timed once, on one machine once for all.

    Args:
        model: as imported.
        samples: to calibrate on; the first decides the shapes.
        recipe: its passes that only tune numbers are left out.
        threads: of one operator.
        seconds: of timing, for each kind of node; the model gets ten times as much.
        forms: of weights; a product that cannot have one is timed as it is.
        folder: of the file of times; None is the user's cache folder.
        progress: `progress(stage, done, total)`.

    Raises:
        UsageError: the kernel library is not built, or the recipe makes no integers.
        DataError: no samples.
        ModelError: a node or the model cannot be timed.
    """
    if not kernels.is_built():
        raise UsageError("profile", "the kernel library is not built", "run 'pip install -e .' in the checkout")
    few = list(islice(samples, 4))
    if not few:
        raise DataError("calibration data", "holds no sample", "give at least one")
    result = Pipeline(quick_recipe(recipe), checked=0).run(model, few)
    if Level.INTEGER not in result.levels:
        raise UsageError("profile", "the recipe makes no integers", "let it end in 'to-integer'")
    names = {new: old for old, new in integer_names(result.levels[Level.FLOAT].graph).items()}
    integer = result.levels[Level.INTEGER]
    return profile_integer(integer, feeds=few[0], products=names, threads=threads, seconds=seconds, forms=forms,
                           folder=folder, progress=progress)  # fmt: skip


def profile_integer(
    integer: ir.Model,
    feeds: Feeds,
    products: Mapping[str, str] | None = None,
    threads: int = 1,
    seconds: float = 0.2,
    forms: Sequence[Form] = FORMS,
    folder: Path | None = None,
    progress: Callable[[str, int, int | None], None] | None = None,
) -> Profile:
    """The same of an INTEGER graph; `products` tells which of its nodes is which float product, if not by its name."""
    names = {str(n.name) for n in integer.graph if is_weighted(n)}
    lowered = {f: lower(with_weights_of(integer, f), "onnxruntime") for f in dict.fromkeys((BASE, *forms))}
    nodes = {f: {n.name: n for n in single_nodes(made.model, names, feeds)} for f, made in lowered.items()}
    machine, store = machine_key(threads), (folder or cache_folder()) / FILE
    if progress is not None:
        progress("profile", 0, None)
    times = known_times({n.key: n for found in nodes.values() for n in found.values()}, threads, seconds, folder)
    whole = f"model {hashlib.sha256(lowered[BASE].serialize()).hexdigest()[:24]}"
    if whole not in times:
        times = keep_times(store, machine, {whole: time_model(lowered[BASE], feeds, threads, 10 * seconds)})
    timed, known = [], products or {}
    for node in integer.graph:
        if str(node.name) in nodes[BASE]:
            first = nodes[BASE][str(node.name)]
            each = {str(f): times[found[str(node.name)].key] for f, found in nodes.items() if str(node.name) in found}
            name = known.get(str(node.name), str(node.name))
            timed.append(Timed(name, first.key.split()[0], each))
    if progress is not None:
        progress("profile", 1, 1)
    return Profile(machine, tuple(timed), times[whole])


def known_times(
    nodes: Mapping[str, SingleNode], threads: int, seconds: float, folder: Path | None = None
) -> dict[str, float]:
    """Key of a node -> seconds of one run; each timed once on one machine.

    Args:
        nodes: by key.
        threads, seconds, folder: see `profile`.
    """
    store, machine = (folder or cache_folder()) / FILE, machine_key(threads)
    times = read_times(store, machine)
    missing = {key: node for key, node in nodes.items() if key not in times}
    return keep_times(store, machine, time_nodes(missing, threads, seconds)) if missing else times


def quick_recipe(recipe: RecipeSource) -> Recipe:
    """A recipe without what decides no kernel: allocation, rounding, correction; and float inputs stay float."""
    loaded = load_recipe(recipe)
    steps = []
    after = False
    for step in loaded.passes:
        if (not after or step.name in NEEDED) and step.name not in LEFT_OUT:
            steps.append(step)
        after = after or step.name == "insert-fake-quant"
    return loaded.model_copy(update={"passes": tuple(steps)})


def machine_key(threads: int) -> str:
    """What times depend on besides the node."""
    import onnxruntime

    library = hashlib.sha256(kernels.library_path().read_bytes()).hexdigest()[:12]
    isa = kernels.instruction_set()
    return f"{cpu_model()} | {isa} | kernels {library} | onnxruntime {onnxruntime.__version__} | {threads} threads"


def cpu_model() -> str:
    """As the system names it."""
    path = Path("/proc/cpuinfo")
    if path.is_file():
        for line in path.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def read_times(path: Path, machine: str) -> dict[str, float]:
    """Key of a node -> seconds, as timed on this machine before; a file that cannot be read counts as empty."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return {str(k): float(v) for k, v in data.get(machine, {}).items()}
    except (OSError, ValueError, AttributeError):
        return {}


def keep_times(path: Path, machine: str, times: Mapping[str, float]) -> dict[str, float]:
    """Add times to the file; all that are now known of the machine."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        data = {}
    merged = {**data.get(machine, {}), **times}
    write_whole(path, json.dumps({**data, machine: merged}, indent=1, sort_keys=True) + "\n")
    return {str(k): float(v) for k, v in merged.items()}


def time_nodes(nodes: Mapping[str, SingleNode], threads: int, seconds: float) -> dict[str, float]:
    """Seconds of each, in one process that opens one session after the other, in several rounds."""
    with tempfile.TemporaryDirectory(prefix="mulshift-profile-") as folder:
        for i, node in enumerate(nodes.values()):
            (Path(folder) / f"{i}.onnx").write_bytes(node.model)
            np.savez(Path(folder) / f"{i}.npz", allow_pickle=False, **node.feeds)
        found: list[float] = measured("profile_worker", "a node of the profile", folder, len(nodes), threads, seconds)
    return dict(zip(nodes, found, strict=True))


def time_model(artifact: Artifact, feeds: Feeds, threads: int, seconds: float) -> float:
    """Seconds of a run of a lowered model with the kernel library."""
    from mulshift.latency import bench

    with tempfile.TemporaryDirectory(prefix="mulshift-profile-") as folder:
        artifact.save(folder)
        made = bench({"model": Path(folder) / MODEL_FILE}, [feeds], (threads,), seconds)
    return made[0].milliseconds / 1e3
