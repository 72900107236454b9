"""`mulshift.session` runs the kernels for the nodes of an artifact, with the bits of their bodies."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from kernel_checks import S32, U8, integers, one_node, output

import mulshift
from mulshift.backends.kernel_session import SPIN, SPIN_MICROSECONDS
from mulshift.ir import ModelError, attach

X = integers(np.random.default_rng(0), U8, (5, 7))
OUT = output(U8, 0, 255, 9)


def _artifact() -> onnx.ModelProto:
    """Requantize with its body attached."""
    model = ir.from_proto(one_node("Requantize", [X, S32([3]), S32([2])], {"x_zero_point": 1, **OUT}, [U8]))
    attach(model)
    return ir.to_proto(model)


def test_kernels_run_instead_of_the_bodies(tmp_path: Path) -> None:
    proto = _artifact()
    stock = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {"i0": X})
    proto.functions[0].node[0].input[0] = "b"  # a body that would be wrong
    onnx.save(proto, tmp_path / "model.onnx")
    for source in (proto.SerializeToString(), tmp_path / "model.onnx", str(tmp_path / "model.onnx")):
        assert np.array_equal(mulshift.session(source).run(None, {"i0": X})[0], stock[0])


def test_threads_and_options_are_kept() -> None:
    options = ort.SessionOptions()
    options.log_severity_level = 2
    session = mulshift.session(_artifact().SerializeToString(), threads=3, options=options)
    assert session.get_session_options().intra_op_num_threads == 3
    assert session.get_session_options().log_severity_level == 2


def test_threads_do_not_wait_awake_for_long() -> None:
    model = _artifact().SerializeToString()
    assert mulshift.session(model, 2).get_session_options().get_session_config_entry(SPIN) == SPIN_MICROSECONDS
    options = ort.SessionOptions()
    options.add_session_config_entry(SPIN, "7")
    assert mulshift.session(model, 2, options).get_session_options().get_session_config_entry(SPIN) == "7"


def test_many_sessions_share_one_library() -> None:
    sessions = [mulshift.session(_artifact().SerializeToString()) for _ in range(5)]
    first = sessions.pop(0).run(None, {"i0": X})[0]
    assert all(np.array_equal(s.run(None, {"i0": X})[0], first) for s in sessions)


def test_a_session_of_ones_own_has_all_operators() -> None:
    """The library registered as ONNX Runtime does it, before and behind a session that names its operators."""
    model = one_node("Requantize", [X, S32([3]), S32([2])], {"x_zero_point": 1, **OUT}, [U8]).SerializeToString()
    results = []
    for operators in (None, {"Requantize"}, None):
        options = ort.SessionOptions()
        if operators is None:
            options.register_custom_ops_library(str(mulshift.kernels.library_path()))
        else:
            mulshift.kernels.register(options, operators)
        results.append(ort.InferenceSession(model, options).run(None, {"i0": X})[0])
    assert all(np.array_equal(y, results[0]) for y in results)
    options = ort.SessionOptions()
    mulshift.kernels.register(options, {"Requant", "equantize", "Add"})
    with pytest.raises(Exception, match=r"Requantize.* is not a registered function/op"):
        ort.InferenceSession(model, options)


def test_a_refused_model_is_one_line() -> None:
    proto = one_node("Requantize", [X, S32([3]), S32([1])], {"x_zero_point": 1, **OUT}, [U8])
    with pytest.raises(ModelError, match="the node: a shift c is not from 2 to 62"):
        mulshift.session(proto.SerializeToString())
    with pytest.raises(ModelError, match="nothing-here"):
        mulshift.session("nothing-here.onnx")


def test_the_package_gives_the_kernels_without_importing_anything_heavy() -> None:
    code = "import mulshift, sys; print(mulshift.kernels.library_path()); assert 'onnxruntime' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert Path(done.stdout.strip()).is_file()


def test_running_loads_the_runtime_and_the_library_alone(tmp_path: Path) -> None:
    onnx.save(_artifact(), tmp_path / "model.onnx")
    code = (
        "import mulshift, numpy, sys; session = mulshift.session(sys.argv[1]); "
        "session.run(None, {'i0': numpy.zeros((5, 7), numpy.uint8)}); print(*sys.modules)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "model.onnx")]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert "onnxruntime" in loaded
    assert not {"onnx_ir", "onnxscript", "pydantic", "scipy", "sympy", "torch"} & set(loaded)
