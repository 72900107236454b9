"""Random and malformed nodes through a kernel library, in a process of its own: it may die of what it finds.

python tests/fuzz_kernels.py random LIBRARY SEED SECONDS
python tests/fuzz_kernels.py malformed LIBRARY FIRST

Prints what it does next, one line each, and in the end a JSON object: nodes, wrong (differing, or not refused).
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from itertools import count, cycle
from typing import Any

import numpy as np
import onnx
from kernel_checks import NAME, one_node, open_session
from malformed_nodes import malformed
from random_nodes import KERNEL_NAMES, check_node, random_node
from test_kernel_errors import CASES, outputs_of


def say(line: object) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def fuzz(library: str, seed: str, seconds: str) -> None:
    """Every operator in turn; at least once each."""
    end, wrong = time.perf_counter() + float(seconds), 0
    for number, op in zip(count(), cycle(KERNEL_NAMES), strict=False):
        if number >= len(KERNEL_NAMES) and time.perf_counter() > end:
            break
        own = int(seed) * 1_000_003 + number
        say(f"{op}, seed {own}")
        rng = np.random.default_rng(own)
        try:
            check_node(random_node(op, rng), rng, 1 + number % 2, library)
        except AssertionError as e:
            say(f"different: {str(e)[:300]}")
            wrong += 1
    say(json.dumps({"nodes": number, "wrong": wrong}))


def _malformed() -> Iterator[tuple[str, onnx.ModelProto, dict[str, Any]]]:
    for title, node, _ in malformed():
        yield title, node.model(), node.feeds()
    for op, inputs, attributes, said in CASES:
        yield f"{op}: {said}", one_node(op, inputs, attributes, outputs_of(op)), {"i0": inputs[0]}


def refuse(library: str, first: str) -> None:
    """Every malformed node from number `first` on."""
    wrong, number = 0, 0
    for number, (title, model, feeds) in enumerate(_malformed()):
        if number < int(first):
            continue
        say(f"{number} {title}")
        try:
            open_session(model, 1, library).run(None, feeds)
        except Exception as e:  # noqa: BLE001 - ONNX Runtime's errors have no common base
            wrong += NAME not in str(e)
        else:
            wrong += 1
    say(json.dumps({"nodes": number + 1, "wrong": wrong}))


if __name__ == "__main__":
    {"random": fuzz, "malformed": refuse}[sys.argv[1]](*sys.argv[2:])
