"""Whether data fits a model's input: names, shapes and types, each with an error that tells both sides.

Types: float to float is cast and must stay finite; integers and booleans are cast if no value changes; integers for a
float input are refused, since they are most often pixels that lack the model's preprocessing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mulshift.ir import Array, DataError

if TYPE_CHECKING:
    import onnx_ir

_KINDS = {"f": "float", "i": "integer", "u": "integer", "b": "integer"}


@dataclass(frozen=True)
class InputSpec:
    """One graph input as data must fit it.

    Attributes:
        name: the graph input.
        dtype: numpy type.
        shape: an int for a fixed dimension, its name (or "?") for a dynamic one; None if the rank is unknown.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | str, ...] | None

    def rows(self, batch: int) -> int:
        """Samples a feed: the model's own batch if it is fixed, else `batch`."""
        first = self.shape[0] if self.shape else "?"
        return max(1, first) if isinstance(first, int) else batch


def input_specs(model: onnx_ir.Model) -> tuple[InputSpec, ...]:
    """What a model wants to be fed: its graph inputs without those that have a default."""
    wanted = [v for v in model.graph.inputs if v.name not in model.graph.initializers]
    return tuple(
        InputSpec(
            str(v.name),
            np.dtype(np.float32) if v.dtype is None else np.dtype(v.dtype.numpy()),
            None if v.shape is None else tuple(d if isinstance(d, int) else str(d.value or "?") for d in v.shape),
        )
        for v in wanted
    )


def check_names(given: Sequence[str], inputs: Sequence[InputSpec], where: str) -> None:
    """Every input must be among the given names; further arrays (labels) are ignored.

    Raises:
        DataError: an input has no data; tells both lists.
    """
    if all(i.name in given for i in inputs):
        return
    has, wants = quoted(given), quoted([i.name for i in inputs])
    if list(given) == [""]:
        raise DataError(where, f"is one array where the model has inputs {wants}", "use an .npz with those names")
    raise DataError(where, f"has arrays {has} where the model has inputs {wants}", "rename the arrays")


def to_numpy(value: Any, where: str) -> Array:
    """An array, tensor, number or nested list as a numpy array of numbers.

    Raises:
        DataError: it holds something else.
    """
    plain = value.detach().cpu() if hasattr(value, "detach") else value
    try:
        array = np.asarray(plain)
    except (ValueError, TypeError) as e:
        raise DataError(where, f"is no array ({e})", "give arrays of numbers") from e
    if array.dtype.kind not in _KINDS:
        raise DataError(where, f"holds {array.dtype}, not numbers", "give arrays of numbers")
    return array


def fit(array: Array, spec: InputSpec, where: str) -> Array:
    """One feed's array with the rank, dimensions and type of the input; a missing batch axis is added.

    Raises:
        DataError: it does not fit.
    """
    check_dtype(array.dtype, spec, where)
    if spec.shape is None:
        return fit_values(array, spec, where)
    shaped = array[None] if array.ndim == len(spec.shape) - 1 else array
    if shaped.ndim != len(spec.shape):
        raise shape_error(where, array.shape, spec, f"has rank {array.ndim} where the model has {len(spec.shape)}")
    check_dims(where, array.shape, spec, shaped.shape, 0)
    return fit_values(shaped, spec, where)


def check_dims(where: str, whole: Sequence[int], spec: InputSpec, given: Sequence[int], first: int) -> None:
    """Compare dimensions with those of the input.

    Args:
        whole: shape of the user's array, for the message.
        given: dimensions that stand for the input's, from the input's dimension `first` on.
    """
    wanted = (spec.shape or ("?",) * (first + len(given)))[first:]
    lead = len(whole) - len(given)
    for axis, (have, want) in enumerate(zip(given, wanted, strict=True)):
        if isinstance(want, int) and have != want:
            raise shape_error(
                where, whole, spec, f"dimension {max(axis + lead, 0)} is {have} where the model has {want}"
            )
        if not have:
            raise DataError(where, f"is empty (shape {list(whole)})", "give at least one sample")


def shape_error(where: str, shape: Sequence[int], spec: InputSpec, cause: str) -> DataError:
    """An error that shows both shapes."""
    wanted = "[" + ", ".join(str(d) for d in spec.shape or ()) + "]"
    inner = [d for d in (spec.shape or ())[1:] if isinstance(d, int)]
    permuted = len(inner) > 1 and sorted(inner) == sorted(shape[1:])
    return DataError(where, f"{cause} (data {list(shape)}, model {wanted})", "transpose the axes" if permuted else "")


def check_dtype(dtype: np.dtype[Any], spec: InputSpec, where: str) -> None:
    """Raise DataError if no value of the type may become the input's type (see the top of this file)."""
    have, want = _KINDS.get(dtype.kind, "other"), _KINDS.get(spec.dtype.kind, "float")
    if have == want:
        return
    how = " with the preprocessing that the model was trained with" if want == "float" else ""
    raise DataError(where, f"is {dtype} where the model has {spec.dtype}", f"convert it to {spec.dtype}{how}")


def fit_values(array: Array, spec: InputSpec, where: str) -> Array:
    """The array in the input's type; every value must be finite and survive the cast.

    Raises:
        DataError: NaN, infinity, or an integer out of range.
    """
    with np.errstate(over="ignore"):
        cast = np.ascontiguousarray(array.astype(spec.dtype)).reshape(array.shape)
    if array.dtype.kind == "f" and not np.isfinite(cast).all():
        raise DataError(where, f"holds {'NaN' if np.isnan(cast).any() else 'infinity'}", "remove or repair the sample")
    if array.dtype.kind != "f" and not np.array_equal(cast, array):
        raise DataError(where, f"holds {array.dtype} values outside {spec.dtype}", "check the values")
    return cast


def quoted(names: Sequence[str]) -> str:
    """`'a', 'b'` for messages."""
    return ", ".join(f"'{n}'" for n in names) or "(none)"
