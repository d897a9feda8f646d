"""Every error this package raises on purpose.

    UserError                 the message is for the user; the command line prints it, no traceback
    |-- ConfigError           a key, value or combination of a config is wrong           exit 2
    |-- DataError             a file is missing, malformed or not what it should be      exit 3
    |-- RunFolderError        the run folder belongs to another config or process        exit 4
    |-- TeacherError          the teacher cannot or must not be asked (again)            exit 5
    |-- CheckpointError       weights or a checkpoint are missing, broken or mismatched  exit 6
    |-- TrainingError         training cannot go on (a loss that is not finite)          exit 7
    |-- StorageError          the disk refused a write                                   exit 8
    `-- MissingExtra          a library of an optional extra is not installed            exit 9

A message says what came, what was expected and what to do. Anything that is not a
`UserError` is a bug of ours and keeps its traceback.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from opengrok_jax.inert import inert


class UserError(Exception):
    """Something the user can mend; `exit_code` is the exit status of the command."""

    exit_code = 1


class ConfigError(UserError):
    """A key, a value or a combination of values of a config is wrong."""

    exit_code = 2


class DataError(UserError):
    """A file is missing, malformed or not what it should be."""

    exit_code = 3


class RunFolderError(UserError):
    """The run folder belongs to another config or to a process that is still running."""

    exit_code = 4


class TeacherError(UserError):
    """The teacher cannot be reached, refused for good, or must not be asked."""

    exit_code = 5


class CheckpointError(UserError):
    """Weights or a checkpoint are missing, broken, or of another shape."""

    exit_code = 6


class TrainingError(UserError):
    """Training cannot go on."""

    exit_code = 7


class StorageError(UserError):
    """The disk refused a write; everything written before is intact."""

    exit_code = 8


class MissingExtra(UserError):
    """A library that an optional extra brings is not installed."""

    exit_code = 9


@contextmanager
def needs_extra(extra: str) -> Iterator[None]:
    """Turns the ImportError of an optional library into the command that installs it.

    >>> with needs_extra("mask"):
    ...     import a_library_that_is_not_there
    Traceback (most recent call last):
    ...
    opengrok_jax.errors.MissingExtra: a_library_that_is_not_there is not installed; it comes \
with the extra 'mask': pip install 'opengrok-jax[mask]'
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingExtra(
            f"{error.name} is not installed; it comes with the extra '{extra}': "
            f"pip install 'opengrok-jax[{extra}]'"
        ) from error


@contextmanager
def in_one_line() -> Iterator[None]:
    """What a script does with a `UserError`: its message, its exit status, no traceback."""
    try:
        yield
    except UserError as error:
        print(f"opengrok: {inert(str(error), lines=True)}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
