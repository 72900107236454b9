"""The one error that users see: which node, what is wrong, and what to do about it, in one line."""

from __future__ import annotations

import enum


class ExitCode(enum.IntEnum):
    """Exit status of the command line, one a kind of failure."""

    OK = 0
    FAILED_CHECK = 1
    """A verification found a difference, or a budget was not met."""
    USAGE = 2
    BAD_MODEL = 3
    BAD_DATA = 4
    UNSUPPORTED = 5
    OVERFLOW = 6
    CANNOT_WRITE = 7


class MulshiftError(Exception):
    """Bad input or a graph that cannot be compiled.

    Args:
        where: the node, file or value concerned, in the user's names.
        cause: what is wrong, without a full stop.
        remedy: what the user can do, without a full stop; empty if nothing.
    """

    code: ExitCode = ExitCode.FAILED_CHECK

    def __init__(self, where: str, cause: str, remedy: str = "") -> None:
        self.where = where
        self.cause = cause
        self.remedy = remedy
        super().__init__(where, cause, remedy)

    def __str__(self) -> str:
        line = f"{self.where}: {self.cause}" + (f"; {self.remedy}" if self.remedy else "")
        return " ".join(line.split())


class UsageError(MulshiftError):
    """An option that does not exist or contradicts another."""

    code = ExitCode.USAGE


class ModelError(MulshiftError):
    """The model cannot be read or is not valid."""

    code = ExitCode.BAD_MODEL


class DataError(MulshiftError):
    """Calibration data or feeds do not fit the model."""

    code = ExitCode.BAD_DATA


class UnsupportedError(MulshiftError):
    """An operator has no form at the level or target asked for."""

    code = ExitCode.UNSUPPORTED


class AccumulatorOverflowError(MulshiftError):
    """An int32 accumulator cannot be proven safe."""

    code = ExitCode.OVERFLOW


class VerificationError(MulshiftError):
    """The result differs from the specification."""

    code = ExitCode.FAILED_CHECK


class OutputError(MulshiftError):
    """The artifact cannot be written."""

    code = ExitCode.CANNOT_WRITE
