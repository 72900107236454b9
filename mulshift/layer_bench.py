"""What ran of an artifact on this machine, layer by layer, and sparse layers beside their dense twins."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mulshift.backends.artifact import MODEL_FILE, has_kernels
from mulshift.checking import open_artifact
from mulshift.ir import DOMAIN, UsageError, attribute
from mulshift.kernel_profile import known_times
from mulshift.latency import first_feeds
from mulshift.layer_twins import twins
from mulshift.single_nodes import single_nodes
from mulshift.sparse_layers import is_put_back
from mulshift.workers import measured

BODY = "function body"


@dataclass(frozen=True)
class LayerTime:
    """One node of an artifact.

    Attributes:
        name: of the node.
        op: its operator.
        ran: instruction set and layout of the kernel that ran, `avx2 k8n16z`; "ONNX Runtime", or "function body".
        milliseconds: inside the model, the fastest run; None if ONNX Runtime fused it away.
        alone, twin: milliseconds of a sparse layer by itself, and of its dense twin; of one that was put back dense, of
            what it is and of its sparse twin.
        put_back: whether the compiler put it back dense.
    """

    name: str
    op: str
    ran: str
    milliseconds: float | None
    alone: float | None = None
    twin: float | None = None
    put_back: bool = False

    @property
    def ratio(self) -> float | None:
        """Times as fast as the twin."""
        return None if self.alone is None or self.twin is None else self.twin / self.alone


def bench_layers(
    artifact: str | Path, data: Any = None, threads: int = 1, seconds: float = 2.0, folder: Path | None = None
) -> tuple[LayerTime, ...]:
    """Time each node of an artifact with the kernel library, as ONNX Runtime's profiler sees it.

    Args:
        artifact: folder that `compile` wrote.
        data: as `mulshift.latency.bench` takes it.
        threads: of one operator.
        seconds: of timing, for the model; a tenth of it for each kind of sparse layer and its twin, alone.
        folder: of the file of times; None is the user's cache folder.

    Raises:
        UsageError: the artifact has no nodes of the kernel library, or that is not built.
        ModelError: it cannot be run.
    """
    made = open_artifact(Path(artifact))
    if not has_kernels(made.model):
        raise UsageError(f"'{artifact}'", "has no nodes that the kernel library runs, or that is not built",
                         "compile for target 'onnxruntime'")  # fmt: skip
    feeds = first_feeds(made.model, data)
    ran, isa = _ran(Path(artifact) / MODEL_FILE, feeds, threads, seconds)
    other, changed = twins(made.model)
    sides = [single_nodes(model, set(changed), feeds) for model in (made.model, other)]
    times = known_times({n.key: n for side in sides for n in side}, threads, seconds / 10, folder) if changed else {}
    alone, twin = ({n.name: times[n.key] * 1e3 for n in side} for side in sides)
    found = []
    for node in made.model.graph:
        name = str(node.name)
        op, took = ran.get(name, (None, None))
        layout = attribute(node, "layout", "")
        kernel = f"{isa} {layout}".strip() if op == node.op_type else BODY
        where = kernel if node.domain == DOMAIN else "ONNX Runtime"
        milliseconds = None if took is None else took * 1e3
        found.append(
            LayerTime(name, node.op_type, where, milliseconds, alone.get(name), twin.get(name), is_put_back(node))
        )
    return tuple(found)


def _ran(model: Path, feeds: dict[str, Any], threads: int, seconds: float) -> tuple[dict[str, Any], str]:
    """Node -> (operator, seconds), and the kernels' instruction set."""
    with tempfile.TemporaryDirectory(prefix="mulshift-layers-") as folder:
        data = Path(folder) / "feeds.npz"
        np.savez(data, allow_pickle=False, **feeds)
        made = measured("layer_worker", f"'{model}'", model, data, threads, seconds)
    return made["nodes"], made["kernels"]


__all__ = ["BODY", "LayerTime", "bench_layers"]
