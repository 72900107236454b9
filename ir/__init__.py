"""The graph and what it means: types, arithmetic, integer operators, metadata, interpreter.

Names load when first used: whoever only runs an artifact imports `mulshift.ir.errors`, and neither torch nor onnx_ir.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_MODULES = ("dyadic", "levels")
_NAMES = {
    "errors": "AccumulatorOverflowError DataError ExitCode ModelError MulshiftError OutputError "
    "UnsupportedError UsageError VerificationError",
    "frontend": "load",
    "fx": "from_torch is_weight to_torch",
    "graphs": "add_initializer attribute constant fresh_name ints is_float rank scalar sole_user static_shape users",
    "interpreter": "Interpreter Observer",
    "metadata": "describe get_level get_qparams get_range inherit_origin origin set_level set_origin "
    "set_qparams set_range",
    "operators": "DOMAIN OPERATORS Operator attach",
    "text": "difference equal parse show",
    "types": "ACTIVATION_S8 ACTIVATION_S16 ACTIVATION_U4 ACTIVATION_U8 Array Dyadic Feeds Level QParams QuantSpec "
    "Samples Target dtype_of weight_spec",
}
_WHERE = {name: f"mulshift.ir.{module}" for module, names in _NAMES.items() for name in names.split()}

if TYPE_CHECKING:
    from mulshift.ir import dyadic as dyadic
    from mulshift.ir import levels as levels
    from mulshift.ir.errors import AccumulatorOverflowError as AccumulatorOverflowError
    from mulshift.ir.errors import DataError as DataError
    from mulshift.ir.errors import ExitCode as ExitCode
    from mulshift.ir.errors import ModelError as ModelError
    from mulshift.ir.errors import MulshiftError as MulshiftError
    from mulshift.ir.errors import OutputError as OutputError
    from mulshift.ir.errors import UnsupportedError as UnsupportedError
    from mulshift.ir.errors import UsageError as UsageError
    from mulshift.ir.errors import VerificationError as VerificationError
    from mulshift.ir.frontend import load as load
    from mulshift.ir.fx import from_torch as from_torch
    from mulshift.ir.fx import is_weight as is_weight
    from mulshift.ir.fx import to_torch as to_torch
    from mulshift.ir.graphs import add_initializer as add_initializer
    from mulshift.ir.graphs import attribute as attribute
    from mulshift.ir.graphs import constant as constant
    from mulshift.ir.graphs import fresh_name as fresh_name
    from mulshift.ir.graphs import ints as ints
    from mulshift.ir.graphs import is_float as is_float
    from mulshift.ir.graphs import rank as rank
    from mulshift.ir.graphs import scalar as scalar
    from mulshift.ir.graphs import sole_user as sole_user
    from mulshift.ir.graphs import static_shape as static_shape
    from mulshift.ir.graphs import users as users
    from mulshift.ir.interpreter import Interpreter as Interpreter
    from mulshift.ir.interpreter import Observer as Observer
    from mulshift.ir.metadata import describe as describe
    from mulshift.ir.metadata import get_level as get_level
    from mulshift.ir.metadata import get_qparams as get_qparams
    from mulshift.ir.metadata import get_range as get_range
    from mulshift.ir.metadata import inherit_origin as inherit_origin
    from mulshift.ir.metadata import origin as origin
    from mulshift.ir.metadata import set_level as set_level
    from mulshift.ir.metadata import set_origin as set_origin
    from mulshift.ir.metadata import set_qparams as set_qparams
    from mulshift.ir.metadata import set_range as set_range
    from mulshift.ir.operators import DOMAIN as DOMAIN
    from mulshift.ir.operators import OPERATORS as OPERATORS
    from mulshift.ir.operators import Operator as Operator
    from mulshift.ir.operators import attach as attach
    from mulshift.ir.text import difference as difference
    from mulshift.ir.text import equal as equal
    from mulshift.ir.text import parse as parse
    from mulshift.ir.text import show as show
    from mulshift.ir.types import ACTIVATION_S8 as ACTIVATION_S8
    from mulshift.ir.types import ACTIVATION_S16 as ACTIVATION_S16
    from mulshift.ir.types import ACTIVATION_U4 as ACTIVATION_U4
    from mulshift.ir.types import ACTIVATION_U8 as ACTIVATION_U8
    from mulshift.ir.types import Array as Array
    from mulshift.ir.types import Dyadic as Dyadic
    from mulshift.ir.types import Feeds as Feeds
    from mulshift.ir.types import Level as Level
    from mulshift.ir.types import QParams as QParams
    from mulshift.ir.types import QuantSpec as QuantSpec
    from mulshift.ir.types import Samples as Samples
    from mulshift.ir.types import Target as Target
    from mulshift.ir.types import dtype_of as dtype_of
    from mulshift.ir.types import weight_spec as weight_spec
else:

    def __getattr__(name: str) -> Any:
        if name in _MODULES:
            return importlib.import_module(f"mulshift.ir.{name}")
        if name not in _WHERE:
            raise AttributeError(f"module 'mulshift.ir' has no attribute '{name}'")
        return getattr(importlib.import_module(_WHERE[name]), name)


__all__ = [*_MODULES, *_WHERE]


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
