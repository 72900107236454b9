"""Weights of a session lie in large pages where the system has them; what they are does not change."""

from __future__ import annotations

import ctypes
import mmap
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from kernel_checks import S8, S32, U8, one_node, output

SIZE, COLLAPSE = 2**21, 25
"""Bytes of a large page; Linux's MADV_COLLAPSE."""
K, N = 512, 16 * 1024
ROLLUP = Path("/proc/self/smaps_rollup")
CODE = """
import sys, numpy as np, mulshift
def large():
    line = next(line for line in open("/proc/self/smaps_rollup") if line.startswith("AnonHugePages"))
    return int(line.split()[1]) * 1024
before = large()
sessions = [mulshift.session(sys.argv[1], 1) for _ in range(2)]
during, x = large(), np.load(sys.argv[2])
runs = [s.run(None, {"i0": x})[0] for s in sessions]
assert all(np.array_equal(y, np.load(sys.argv[3])) for y in runs)
del sessions[0]
assert np.array_equal(sessions[0].run(None, {"i0": x})[0], np.load(sys.argv[3]))
print(during - before)
"""


def _has_large_pages() -> bool:
    if not ROLLUP.is_file():
        return False
    with mmap.mmap(-1, 3 * SIZE, flags=mmap.MAP_PRIVATE) as memory:
        memory.write(b"x" * len(memory))
        base = ctypes.c_char.from_buffer(memory)
        first = -(-ctypes.addressof(base) // SIZE) * SIZE
        found = ctypes.CDLL(None).madvise(ctypes.c_void_p(first), ctypes.c_size_t(SIZE), COLLAPSE)
        del base
    return bool(found == 0)


@pytest.mark.skipif(not _has_large_pages(), reason="no MADV_COLLAPSE (Linux 6.1 and newer)")
def test_weights_are_in_large_pages(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    w, x = rng.integers(-128, 128, (K, N), S8), rng.integers(0, 256, (3, K), U8)
    packed = w.reshape(K // 4, 4, N // 16, 16).transpose(2, 0, 3, 1)[None]
    bias = rng.integers(-1000, 1000, N, S32)
    wanted = np.clip(((x.astype(np.int64) @ w + bias + 2**11) >> 12) + 100, 0, 255).astype(U8)
    attributes = {"x_zero_point": 0, "layout": "k4n16", "w_shape": [K, N], **output(U8, 0, 255, 100)}
    inputs = [x, np.ascontiguousarray(packed), bias, np.full(N, 1, S32), np.full(N, 12, S32)]
    onnx.save(one_node("GemmPacked", inputs, attributes, [U8]), tmp_path / "model.onnx")
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", wanted)
    files = [str(tmp_path / name) for name in ("model.onnx", "x.npy", "y.npy")]
    done = subprocess.run([sys.executable, "-c", CODE, *files], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= w.nbytes  # two sessions hold twice that; pages at both ends may stay small
