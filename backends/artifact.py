"""An artifact: a lowered model that runs and that is saved as a folder holding `model.onnx`."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir

from mulshift import kernels
from mulshift.ir import DOMAIN, Array, Feeds, OutputError, Target

MODEL_FILE = "model.onnx"
WEIGHTS_FILE = "model.onnx.data"
EXTERNAL_BYTES = 1_500_000_000
"""Above this, weights go to a file of their own: protobuf ends at 2 GB."""


@dataclass
class Artifact:
    """A model in one target's form.

    Attributes:
        model: the lowered graph.
        target: what it was lowered for.
        threads: for `run`; None lets ONNX Runtime choose.
    """

    model: ir.Model
    target: Target
    threads: int | None = None
    _session: Any = field(default=None, init=False, repr=False)

    @cached_property
    def proto(self) -> onnx.ModelProto:
        """The graph as protobuf."""
        return ir.serde.serialize_model(self.model)

    def weight_bytes(self) -> int:
        """Bytes of all initializers."""
        return sum(
            int(v.const_value.nbytes) for v in self.model.graph.initializers.values() if v.const_value is not None
        )

    def serialize(self) -> bytes:
        """The bytes of model.onnx; they depend on the graph alone."""
        return bytes(self.proto.SerializeToString(deterministic=True))

    def run(self, feeds: Feeds) -> dict[str, Array]:
        """Outputs by name, on ONNX Runtime, with the kernel library where it is built: the same bits.

        Raises:
            DataError: the feeds do not fit the model.
        """
        from mulshift.passes.calibrate import check_feeds

        check_feeds(self.model.graph, feeds, "feeds")
        if self._session is None:
            self._session = self._open()
        names = [o.name for o in self._session.get_outputs()]
        return dict(zip(names, self._session.run(names, dict(feeds)), strict=True))

    def _open(self) -> Any:
        from mulshift.backends import kernel_session, onnxruntime

        if has_kernels(self.model):
            return kernel_session.session(self.serialize(), self.threads)
        # With s8 activations as it is written: see `verify_qdq`.
        return onnxruntime.session(self.serialize(), self.threads, optimize=not self.target.signed_activations)

    def save(self, folder: str | Path) -> Path:
        """Write `model.onnx` (weights beside it if they are large) into a folder, made if need be.

        The bytes depend on the graph alone.

        Returns:
            Path of the model.

        Raises:
            OutputError: the folder cannot be written.
        """
        path = Path(folder) / MODEL_FILE
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if self.weight_bytes() > EXTERNAL_BYTES:
                ir.save(self.model, path, external_data=WEIGHTS_FILE)
            else:
                path.write_bytes(self.serialize())
        except OSError as e:
            raise OutputError(f"'{path}'", f"cannot be written ({e.strerror or e})") from e
        return path


def has_kernels(model: ir.Model) -> bool:
    """Whether a model has nodes that the kernel library runs, and the library is built."""
    return kernels.is_built() and any(node.domain == DOMAIN for node in model.graph.all_nodes())


__all__ = ["MODEL_FILE", "WEIGHTS_FILE", "Artifact", "has_kernels"]
