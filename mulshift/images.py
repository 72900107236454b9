"""Folders of images as arrays: resize, crop, colour order, layout, and the numbers that pixels become."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from mulshift.ir import Array, DataError, UsageError

if TYPE_CHECKING:
    from PIL import Image

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
RESIZES = ("crop", "stretch", "pad")
LAYOUTS = ("auto", "nchw", "nhwc")
CHANNELS = ("rgb", "bgr")
INTERPOLATIONS = ("bilinear", "bicubic", "nearest", "lanczos")

Batches: TypeAlias = Callable[[int], Iterator[tuple[Array, str]]]
"""Images a feed -> (array, its name for messages), one after the other."""


@dataclass(frozen=True)
class Normalization:
    """`x = (pixel * scale - mean) / std`, pixel in 0..255; mean and std one number or one a channel."""

    scale: float
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)


PRESETS = {
    "imagenet": Normalization(1 / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "unit": Normalization(1 / 255),
    "signed": Normalization(1 / 127.5, (1.0,)),
    "raw": Normalization(1.0),
}


@dataclass(frozen=True)
class Preprocessing:
    """How image files become a model's input.

    Attributes:
        normalization: None if the user gave none; then only a model with a uint8 input can take images.
        size: (height, width); None takes the model's.
        resize: `crop` (shorter side to size / crop, then the centre), `stretch`, or `pad` (longer side to size, black
            border, image in the centre).
        crop: the part of the shorter side that `crop` keeps, in (0, 1].
        interpolation: of Pillow.
        layout: `nchw`, `nhwc`, or `auto`: where the model has 1 or 3 channels.
        channels: `rgb` or `bgr`; a model with 1 channel gets grey.
    """

    normalization: Normalization | None = None
    size: tuple[int, int] | None = None
    resize: str = "crop"
    crop: float = 1.0
    interpolation: str = "bilinear"
    layout: str = "auto"
    channels: str = "rgb"

    def __post_init__(self) -> None:
        for option, value, known in (
            ("--image-resize", self.resize, RESIZES),
            ("--image-interpolation", self.interpolation, INTERPOLATIONS),
            ("--image-layout", self.layout, LAYOUTS),
            ("--image-channels", self.channels, CHANNELS),
        ):
            if value not in known:
                raise UsageError(option, f"'{value}' is not known", f"choose {', '.join(known)}")
        if not 0 < self.crop <= 1:
            raise UsageError("--image-crop", f"{self.crop} is outside (0, 1]", "give for instance 0.875")
        if self.size is not None and min(self.size) < 1:
            raise UsageError("--image-size", f"{self.size} is not positive", "give HEIGHTxWIDTH")

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON; `from_dict` reads it back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Preprocessing:
        """From `as_dict`, also after JSON made lists of its tuples."""
        norm, size = data["normalization"], data["size"]
        plain = None if norm is None else Normalization(norm["scale"], tuple(norm["mean"]), tuple(norm["std"]))
        return cls(**{**data, "normalization": plain, "size": None if size is None else (size[0], size[1])})


def parse_preprocessing(
    *,
    preset: str | None = None,
    scale: str | None = None,
    mean: str | None = None,
    std: str | None = None,
    size: str | None = None,
    **choices: Any,
) -> Preprocessing:
    """Preprocessing from the command line's texts: `1/255`, `0.485,0.456,0.406`, `224` or `224x320`.

    Args:
        choices: further fields of `Preprocessing`, None for its default.

    Raises:
        UsageError: a text that cannot be read.
    """
    given = {k: v for k, v in choices.items() if v is not None}
    return Preprocessing(_normalization(preset, scale, mean, std), _size(size), **given)


def _normalization(preset: str | None, scale: str | None, mean: str | None, std: str | None) -> Normalization | None:
    if preset is not None and preset not in PRESETS:
        raise UsageError("--image-preset", f"'{preset}' is not known", f"choose {', '.join(PRESETS)}")
    if preset is None and scale is None and mean is None and std is None:
        return None
    base = PRESETS[preset or "unit"]
    found = Normalization(
        _numbers("--image-scale", scale)[0] if scale else base.scale,
        _numbers("--image-mean", mean) if mean else base.mean,
        _numbers("--image-std", std) if std else base.std,
    )
    if found.scale <= 0 or min(found.std) <= 0:
        raise UsageError("--image-scale and --image-std", "are not positive", "give numbers above 0")
    return found


def _numbers(option: str, text: str) -> tuple[float, ...]:
    try:
        found = tuple(_number(part) for part in text.split(","))
    except (ValueError, ZeroDivisionError, OverflowError) as e:
        raise UsageError(
            option, f"'{text}' is not a number or list of numbers", "give for instance 0.5 or 1/255"
        ) from e
    if len(found) not in (1, 3):
        raise UsageError(option, f"'{text}' has {len(found)} numbers", "give one, or one for each of 3 channels")
    return found


def _number(text: str) -> float:
    upper, _, lower = text.partition("/")
    found = Fraction(upper.strip()) / Fraction(lower.strip() or "1")
    return float(found)


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(p.strip().isdecimal() for p in parts):
        raise UsageError("--image-size", f"'{text}' is not a size", "give 224, or HEIGHTxWIDTH as in 224x320")
    return int(parts[0]), int(parts[-1])


def image_feeds(
    where: str,
    files: Sequence[Path],
    shape: tuple[int | str, ...] | None,
    dtype: np.dtype[Any],
    preprocessing: Preprocessing | None,
) -> Batches:
    """A function that reads the images in groups; everything but the pixels is checked now.

    Args:
        shape: of the model's input, [N, C, H, W] or [N, H, W, C].
        dtype: of the model's input; uint8 takes the pixels as they are.

    Raises:
        DataError: the input takes no images, or how pixels become numbers was not said.
    """
    options = preprocessing or Preprocessing()
    if shape is None or len(shape) != 4:
        raise DataError(where, "images need an input with 4 dimensions", "give arrays instead")
    if dtype.kind == "f" and options.normalization is None:
        raise DataError(
            where, "how pixels become the model's input was not said", "give --image-preset or --image-scale"
        )
    if dtype.kind != "f" and dtype != np.uint8:
        raise DataError(where, f"images cannot feed an input of type {dtype}", "give arrays instead")
    layout = _layout(shape, options.layout, where)
    channels, height, width = shape[1:] if layout == "nchw" else (shape[3], shape[1], shape[2])
    if channels not in (1, 3) and isinstance(channels, int):
        raise DataError(where, f"images cannot feed an input of {channels} channels", "give arrays instead")
    norm = options.normalization
    if channels == 1 and norm is not None and max(len(norm.mean), len(norm.std)) > 1:
        raise DataError(where, "the mean or std has 3 numbers where the model has 1 channel", "give one number")
    size = options.size or (height, width)
    if not all(isinstance(s, int) for s in size):
        raise DataError(where, "the model does not tell the size of its images", "give --image-size")
    reader = _Reader(options, (int(size[0]), int(size[1])), channels == 1, layout, dtype)
    return lambda rows: _groups(reader, files, rows)


def _layout(shape: tuple[int | str, ...], wanted: str, where: str) -> str:
    if wanted != "auto":
        return wanted
    found = [name for name, axis in (("nchw", 1), ("nhwc", 3)) if shape[axis] in (1, 3)]
    if len(found) != 1:
        raise DataError(where, f"the channels of the input {list(shape)} cannot be told", "give --image-layout")
    return found[0]


@dataclass(frozen=True)
class _Reader:
    options: Preprocessing
    size: tuple[int, int]
    grey: bool
    layout: str
    dtype: np.dtype[Any]

    def read(self, path: Path) -> Array:
        """[C, H, W] or [H, W, C] of one file.

        Raises:
            DataError: not an image, damaged, or too large to open safely.
        """
        try:
            from PIL import Image
        except ImportError as e:
            raise DataError(str(path), "Pillow, which reads images, is not installed", "pip install pillow") from e
        try:
            with Image.open(path) as image:
                fitted = self._fit(image.convert("L" if self.grey else "RGB"))
        except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as e:
            raise DataError(str(path), f"is not a readable image ({str(e)[:120]})", "remove or replace it") from e
        pixels = np.asarray(fitted, np.uint8).reshape(*self.size, 1 if self.grey else 3)
        ordered = pixels[..., ::-1] if self.options.channels == "bgr" else pixels
        values = self._normalize(ordered)
        return values.transpose(2, 0, 1) if self.layout == "nchw" else values

    def _normalize(self, pixels: Array) -> Array:
        norm = self.options.normalization
        if self.dtype == np.uint8 or norm is None:
            return pixels
        mean, std = (np.asarray(v, np.float32) for v in (norm.mean, norm.std))
        return np.asarray((pixels.astype(np.float32) * np.float32(norm.scale) - mean) / std, np.float32)

    def _fit(self, image: Image.Image) -> Image.Image:
        from PIL import Image, ImageOps

        height, width = self.size
        method = Image.Resampling[self.options.interpolation.upper()]
        if self.options.resize == "stretch":
            return image.resize((width, height), method)
        if self.options.resize == "pad":
            return ImageOps.pad(image, (width, height), method)
        ratio = max(width / image.width, height / image.height) / self.options.crop
        resized = image.resize(
            (max(width, round(image.width * ratio)), max(height, round(image.height * ratio))), method
        )
        left, top = (resized.width - width) // 2, (resized.height - height) // 2
        return resized.crop((left, top, left + width, top + height))


def _groups(reader: _Reader, files: Sequence[Path], rows: int) -> Iterator[tuple[Array, str]]:
    for start in range(0, len(files), rows):
        group = files[start : start + rows]
        yield np.stack([reader.read(path) for path in group]), str(group[0])
