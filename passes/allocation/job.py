"""What is to be measured, as files: any process that sees the folder can take a part of it. Plain ONNX, npz, JSON."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from mulshift.ir import Array, Feeds
from mulshift.passes.allocation.candidates import Candidate, Candidates
from mulshift.passes.allocation.files import write_whole
from mulshift.passes.allocation.groups import Group, Product
from mulshift.passes.allocation.simulation import Range, Simulation, round_product

MODEL, WEIGHTS, JOB, SAMPLES, ROUNDED = "model.onnx", "model.onnx.data", "job.json", "samples", "rounded"
FORMAT = 2
NEAREST, OUTPUTS = ROUNDINGS = ("nearest", "outputs")
"""To the nearest number of the format, or so that the layer's outputs change least (`output_rounding`)."""


@dataclass(frozen=True)
class Job:
    """One measurement of one model.

    Attributes:
        groups: of its products.
        candidates: that each group may have.
        ranges: of what the products read, by product.
        sensitivity: row of `mulshift.passes.allocation.sensitivity.SENSITIVITIES`.
        samples: how many.
        probes: random vectors a sample, where a sensitivity draws some.
        seed: of those.
        rounding: how weights are rounded, one of ROUNDINGS.
    """

    groups: tuple[Group, ...]
    candidates: Candidates
    ranges: dict[str, Range]
    sensitivity: str
    samples: int
    probes: int
    seed: int
    rounding: str = NEAREST

    def of(self, group: Group) -> Candidates:
        """Those that a group's weights can be."""
        return tuple(c for c in self.candidates if group.may_have(c))

    def text(self) -> str:
        """JSON."""
        plain = {
            "groups": [[asdict(p) for p in g.products] for g in self.groups],
            "candidates": [str(c) for c in self.candidates],
            "ranges": {k: list(v) for k, v in self.ranges.items()},
            "sensitivity": self.sensitivity,
            "samples": self.samples,
            "probes": self.probes,
            "seed": self.seed,
            "rounding": self.rounding,
        }
        return json.dumps(plain, indent=1)

    @classmethod
    def parse(cls, text: str) -> Job:
        """The inverse of `text`."""
        d: dict[str, Any] = json.loads(text)
        d["groups"] = tuple(Group(tuple(product_from(p) for p in g)) for g in d["groups"])
        d["candidates"] = tuple(Candidate.parse(c) for c in d["candidates"])
        d["ranges"] = {k: (float(low), float(high)) for k, (low, high) in d["ranges"].items()}
        return cls(**d)


def product_from(plain: dict[str, Any]) -> Product:
    """A Product from its JSON."""
    return Product(**{**plain, "shape": tuple(plain["shape"])})


def job_key(model: ir.Model, samples: Sequence[Feeds], job: Job) -> str:
    """Hash of all that the results depend on."""
    import torch

    total = hashlib.sha256(f"{FORMAT} {torch.__version__} {np.__version__}\n{job.text()}".encode())
    for name in sorted(model.graph.initializers):
        tensor = model.graph.initializers[name].const_value
        if tensor is not None:
            total.update(f"{name} {tensor.dtype} {tuple(tensor.shape.numpy())}\n".encode())
            total.update(tensor.tobytes())
    for node in model.graph:
        proto = ir.serde.serialize_node(node)
        proto.ClearField("metadata_props")  # an earlier decision, an exporter's notes
        proto.ClearField("doc_string")
        total.update(proto.SerializeToString(deterministic=True))
    for feeds in samples:
        for name, array in sorted(feeds.items()):
            total.update(f"{name} {array.dtype} {array.shape}\n".encode())
            total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()[:20]


def save_job(folder: Path, model: ir.Model, samples: Sequence[Feeds], job: Job) -> None:
    """Write the folder; the job itself last, so that it is there only if all is."""
    (folder / SAMPLES).mkdir(parents=True, exist_ok=True)
    (folder / ROUNDED).mkdir(exist_ok=True)
    ir.save(model.clone(), folder / MODEL, external_data=WEIGHTS)
    for i, feeds in enumerate(samples):
        arrays: dict[str, Any] = {name: np.asarray(a) for name, a in feeds.items()}
        np.savez(folder / SAMPLES / f"{i}.npz", **arrays)
    write_whole(folder / JOB, job.text())


@dataclass
class Bench:
    """A job opened in one process: what tasks run on.

    Attributes:
        folder: that `save_job` wrote.
    """

    folder: Path
    job: Job = field(init=False)
    model: ir.Model = field(init=False, repr=False)
    simulation: Simulation = field(init=False, repr=False)
    _outputs: dict[int, dict[str, Any]] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        self.job = Job.parse((self.folder / JOB).read_text(encoding="utf-8"))
        self.model = ir.load(self.folder / MODEL)
        self.simulation = Simulation(self.model, self.job.groups, self.job.ranges, self.rounded)

    def sample(self, index: int) -> dict[str, Array]:
        """Feeds of one sample."""
        with np.load(self.folder / SAMPLES / f"{index}.npz", allow_pickle=False) as data:
            return {name: data[name] for name in data.files}

    def outputs(self, index: int) -> dict[str, Any]:
        """Float outputs of the float model on one sample, as tensors; computed once."""
        if index not in self._outputs:
            made = self.simulation.run(self.sample(index), {})
            self._outputs[index] = {k: t for k, t in made.items() if t.is_floating_point()}
        return self._outputs[index]

    def rounded(self, product: Product, candidate: Candidate) -> Array:
        """Rounded weights, computed by the first process that needs them and read from its file by all."""
        path = rounded_path(self.folder, product, candidate)
        if not path.is_file():
            keep_rounded(path, round_product(self.model, product, candidate))
        return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))


def rounded_path(folder: Path, product: Product, candidate: Candidate) -> Path:
    """Where the rounded weights of a product are; activations have no part in them."""
    precision = candidate.precision
    key = f"{product.weights} w{precision.weights} g{precision.group} {candidate.kind}"
    return folder / ROUNDED / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.npy"


def keep_rounded(path: Path, made: Array) -> None:
    """Write them, or nothing."""
    write_whole(path, lambda file: np.save(file, made))
