"""A uint8 image as the compiled model's input: what turns pixels into what the float model was trained on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from mulshift.ir import Array, DataError, Feeds, UsageError
from mulshift.passes.reals import as_integers

_NCHW_TO_NHWC = (0, 2, 3, 1)
_INTEGRAL = 1e-2
"""How far from an integer a pixel may be after float32 has divided and multiplied it."""


@dataclass(frozen=True)
class ImageInput:
    """`x = (pixel * scale - mean) / std`, pixel in 0..255.

    Attributes:
        mean, std: one number, or one a channel.
        scale: 1/255 for the usual ImageNet numbers.
        layout: "nchw" or "nhwc": of the uint8 input.
        name: graph input; None for the only float input of rank 4.
    """

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    scale: float = 1 / 255
    layout: str = "nchw"
    name: str | None = None

    def __post_init__(self) -> None:
        if self.layout not in ("nchw", "nhwc"):
            raise UsageError("input image", f"layout '{self.layout}' is not known", "use nchw or nhwc")
        if not self.std or min(self.std) <= 0 or self.scale <= 0:
            raise UsageError("input image", "std and scale must be positive")

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "mean": list(self.mean),
            "std": list(self.std),
            "scale": self.scale,
            "layout": self.layout,
            "name": self.name,
        }

    def options(self) -> dict[str, Any]:
        """The options of `fold-input` that say the same."""
        plain = {k: v for k, v in self.as_dict().items() if k != "name"}
        return plain if self.name is None else {**plain, "input": self.name}

    @staticmethod
    def from_dict(data: dict[str, Any]) -> ImageInput:
        """The inverse of `as_dict`."""
        return ImageInput(tuple(data["mean"]), tuple(data["std"]), data["scale"], data["layout"], data["name"])

    def pixels(self, x: Array) -> Array:
        """The uint8 image that a preprocessed float array came from.

        Args:
            x: float [N, C, H, W].

        Raises:
            DataError: x is not made from whole pixels by these numbers.
        """
        mean, std = (np.asarray(v, np.float64).reshape(1, -1, 1, 1) for v in (self.mean, self.std))
        real = (x.astype(np.float64) * std + mean) / self.scale
        whole = np.rint(real)
        if whole.min(initial=0) < 0 or whole.max(initial=0) > 255 or np.abs(real - whole).max(initial=0) > _INTEGRAL:
            cause = "calibration data is not made from whole pixels with this mean, std and scale"
            raise DataError("input image", cause, "check the numbers, or compile without a uint8 input")
        made = whole.astype(np.uint8)
        return np.ascontiguousarray(made.transpose(_NCHW_TO_NHWC) if self.layout == "nhwc" else made)


def adapter(image: ImageInput | None) -> Callable[[ir.Model, Feeds], Feeds]:
    """`adapt(model, feeds)`: float feeds as they are; where the model's input has become integers, as those."""

    def adapt(model: ir.Model, feeds: Feeds) -> Feeds:
        if image is None:
            return as_integers(model, feeds)
        inputs = {str(v.name): v for v in model.graph.inputs}
        fitted = {
            name: image.pixels(array)
            if name in inputs and inputs[name].dtype == ir.DataType.UINT8 and array.dtype.kind == "f"
            else array
            for name, array in feeds.items()
        }
        return as_integers(model, fitted)

    return adapt
