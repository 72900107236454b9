"""The passes: one row each. A new pass is one file beside this one and one row."""

from __future__ import annotations

from mulshift.passes.adaround import AdaRound
from mulshift.passes.assign_precision import AssignPrecision
from mulshift.passes.base import Contract, Log, Note, Pass
from mulshift.passes.calibrate import Calibrate
from mulshift.passes.canonicalize import Canonicalize
from mulshift.passes.correct_bias import CorrectBias
from mulshift.passes.decoupleq import DecoupleQ
from mulshift.passes.equalize import Equalize
from mulshift.passes.flexround import FlexRound
from mulshift.passes.fold_bn import FoldBn
from mulshift.passes.fold_input import FoldInput
from mulshift.passes.fuse import Fuse
from mulshift.passes.fuse_kernels import FuseKernels
from mulshift.passes.gptq import Gptq
from mulshift.passes.insert_fake_quant import InsertFakeQuant
from mulshift.passes.narrow_scales import NarrowScales
from mulshift.passes.order_channels import OrderChannels
from mulshift.passes.permute_channels import PermuteChannels
from mulshift.passes.rotate import Rotate
from mulshift.passes.round_nearest import RoundNearest
from mulshift.passes.round_weights import RoundWeights
from mulshift.passes.smooth import Smooth
from mulshift.passes.sparsify import Sparsify
from mulshift.passes.to_integer import ToInteger
from mulshift.passes.tune_scales import TuneScales

PASSES: dict[str, type[Pass]] = {
    "canonicalize": Canonicalize,
    "fold-bn": FoldBn,
    "fuse": Fuse,
    "fold-input": FoldInput,
    "equalize": Equalize,
    "smooth": Smooth,
    "rotate": Rotate,
    "permute-channels": PermuteChannels,
    "sparsify": Sparsify,
    "calibrate": Calibrate,
    "assign-precision": AssignPrecision,
    "insert-fake-quant": InsertFakeQuant,
    "narrow-scales": NarrowScales,
    "round-weights": RoundWeights,
    "round-nearest": RoundNearest,
    "gptq": Gptq,
    "adaround": AdaRound,
    "flexround": FlexRound,
    "decoupleq": DecoupleQ,
    "tune-scales": TuneScales,
    "correct-bias": CorrectBias,
    "to-integer": ToInteger,
    "order-channels": OrderChannels,
    "fuse-kernels": FuseKernels,
}

__all__ = ["PASSES", "Contract", "Log", "Note", "Pass"]
