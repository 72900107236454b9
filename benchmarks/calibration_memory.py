"""Peak memory of calibration: `python benchmarks/calibration_memory.py MODEL.onnx IMAGES.npy N [METHOD]`, in bytes.

Samples are made from the images on the fly (seeded noise on a cycle of them), so that only calibration can grow.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator

import numpy as np

from mulshift.ir import Feeds, load
from mulshift.passes import PASSES


class Stream:
    """`count` noisy copies of the images, made when asked for; can be iterated again."""

    def __init__(self, name: str, images: str, count: int) -> None:
        self.name, self.count = name, count
        self.images = np.load(images, mmap_mode="r")

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Feeds]:
        noise = np.random.default_rng(0)
        for i in range(self.count):
            image = self.images[i % len(self.images)][None]
            yield {self.name: (image + noise.normal(0, 0.01, image.shape)).astype(np.float32)}


def main(model_path: str, images: str, count: str) -> None:
    model = load(model_path)
    PASSES["canonicalize"]()(model)
    PASSES["fold-bn"]()(model)
    method = sys.argv[4] if len(sys.argv) > 4 else "mse"
    samples = Stream(str(model.graph.inputs[0].name), images, int(count))
    PASSES["calibrate"](samples=samples, method=method)(model)  # type: ignore[call-arg]
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


if __name__ == "__main__":
    main(*sys.argv[1:4])
