# SPDX-License-Identifier: GPL-3.0-or-later
"""An exception for each result that is not success."""

from __future__ import annotations

from ._native import ffi, lib


class Error(Exception):
    """A call was refused. `result` is the number of the result, and the class is named as it is."""

    result = -1


class Shutdown(Error):
    """The pool is shutting down, or has ended, or belongs to the parent of this process."""


class AllocationFailure(Error, MemoryError):
    """There is no memory."""


class InvalidRequest(Error, ValueError):
    """An argument is wrong; the log says which."""


class InvalidState(Error):
    """The job or group is not in a state that allows this call."""


class ThreadFailure(Error):
    """One of the pool's own threads waited for the pool."""


class Deleting(Error):
    """The job is finished with, or the group is cancelled."""


class Timeout(Error, TimeoutError):
    """The time is up."""


class Running(Error):
    """A run had begun on another thread."""


class Overloaded(Error):
    """Too many jobs wait already."""


_CLASSES: dict[int, type[Error]] = {}
for _class in Error.__subclasses__():
    _name = "".join("_" + c if c.isupper() else c.upper() for c in _class.__name__)
    _class.result = getattr(lib, "NS" + _name)
    _CLASSES[_class.result] = _class


def check(result: int, call: str) -> None:
    """Raise the exception of a result, unless it is success."""
    if result != lib.NS_SUCCESS:
        message = ffi.string(lib.ns_result_message(result)).decode()
        raise _CLASSES.get(result, Error)(f"{call}: {message}")
