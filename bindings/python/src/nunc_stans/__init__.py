# SPDX-License-Identifier: GPL-3.0-or-later
"""Hand events to threads.

    import nunc_stans

    with nunc_stans.Pool(workers=4) as pool:
        pool.post(print, "in a worker")
        pool.every(1.0, tick)
        pool.on_signal(signal.SIGTERM, lambda job: pool.shutdown())
        pool.wait()                 # until then; Ctrl-C works

A callback gets its job. It runs in a worker or, with loop=True, in the loop. A job is over when its callback
returns without having called rearm(), unless it is persistent or was made with keep=True: then it is idle, and
its owner may rearm() it. What a job refers to lives until it is over, cancelled, or its pool is closed.

In a callback, Shutdown and Deleting say that its pool or group ends: let them pass. What else leaves it goes to the
pool's on_exception or, without one, to the logger "nunc_stans", which also gets what the library logs. The job is then
over; the pool goes on.

The functions of jobs, groups and pools may be called from any thread. They hold no lock of Python's while they
wait.
"""

from __future__ import annotations

import atexit
import itertools
import logging
import math
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from ._native import ffi, lib
from ._results import (
    AllocationFailure, Deleting, Error, InvalidRequest, InvalidState, Overloaded, Running, Shutdown, ThreadFailure,
    Timeout, check,
)  # fmt: skip

__all__ = [
    "AllocationFailure", "Deleting", "Error", "Group", "InvalidRequest", "InvalidState", "Job", "Overloaded",
    "Pool", "READ", "Running", "Shutdown", "ThreadFailure", "Timeout", "WRITE", "version",
]  # fmt: skip

READ: int = lib.NS_JOB_READ
WRITE: int = lib.NS_JOB_WRITE

logger = logging.getLogger("nunc_stans")

Callback = Callable[["Job"], object]


def version() -> str:
    """The version of the library that is loaded."""
    return str(ffi.string(lib.ns_version()).decode())


def _timeval(seconds: float) -> Any:
    """A time for C: rounded up, not negative, at most a century."""
    microseconds = math.ceil(min(max(seconds, 0.0), 3.2e9) * 1e6)
    tv = ffi.new("struct timeval *")
    tv.tv_sec, tv.tv_usec = divmod(microseconds, 1000000)
    return tv


def _timeout(seconds: float | None) -> Any:
    """A time-out for C, where zero is none: what is over already is a microsecond."""
    return _timeval(0.0) if seconds is None else _timeval(max(seconds, 1e-6))


class Job:
    """A job of a pool. Made by the functions of Pool and Group."""

    # `_raw` is what may be finished with: who finishes with the job takes it, under the lock. So nobody names a
    # job that is gone. In its own callback, `_inside`, a job lives until that returns.
    def __init__(self, pool: Pool, group: Group | None, callback: Callback, persist: bool, keep: bool):
        self.pool = pool
        self.group = group
        self._callback: Callback | None = callback
        self._stays = persist or keep
        self._persist = persist
        self._raw: Any = None
        self._inside: Any = None
        self._armings = 1
        self._runs = 0
        self._thread = 0
        self._fd: object = None
        self._lock = group._lock if group is not None else threading.RLock()
        self._handle = ffi.new_handle(self)

    def _live(self, call: str) -> Any:
        if (here := self._here()) is not None:
            return here
        if self.over:
            raise Deleting(f"{call}: the job is finished with")
        return self._raw

    def _here(self) -> Any:
        return self._inside if threading.get_ident() == self._thread else None

    def _armed(self, call: str, function: Any, *arguments: Any) -> None:
        with self._lock:
            result = function(self._live(call), *arguments)
            if result == lib.NS_INVALID_STATE and self.over:
                raise Deleting(f"{call}: the job is finished with")
            check(result, call)
            self._armings += 1

    def rearm(self) -> None:
        """Arm it again: in its callback, when that returns."""
        self._armed("rearm", lib.ns_job_rearm)

    def rearm_after(self, seconds: float) -> None:
        """The same, but it begins to watch only after a time."""
        self._armed("rearm_after", lib.ns_job_rearm_after, _timeval(seconds))

    def rearm_for(self, directions: int, timeout: float | None = None) -> None:
        """The same, for READ, WRITE, or both; for a timer, 0 and its new time."""
        self._armed("rearm_for", lib.ns_job_rearm_for, directions, _timeout(timeout))

    def cancel(self) -> bool:
        """Finish with it, whatever its state. True: no run is in progress, but perhaps the caller's own, and none
        begins any more. False: one is in progress on another thread, and is the last; or it was over before."""
        with self._lock:
            over, raw, self._raw = self.over, self._raw, None
            return not over and bool(lib.ns_job_cancel(raw) == lib.NS_SUCCESS)

    @property
    def over(self) -> bool:
        """Whether it is finished with."""
        return self._raw is None or (self.group is not None and self.group._cancelled)

    @property
    def fired(self) -> int:
        """In its callback: READ, WRITE, both, or 0 for anything else that fired."""
        here = self._here()
        return int(lib.ns_job_get_output_type(here)) & (READ | WRITE) if here is not None else 0

    @property
    def timed_out(self) -> bool:
        """In its callback: whether its time is up."""
        here = self._here()
        return here is not None and bool(lib.ns_job_get_output_type(here) & lib.NS_JOB_TIMER)

    def _run(self, raw: Any) -> None:
        self._thread = threading.get_ident()
        self._inside = raw
        try:
            callback = self._callback
            if callback is not None:
                callback(self)
        except (Shutdown, Deleting):
            self._finish(raw)
        except BaseException as thrown:
            self.pool._report(thrown)
            self._finish(raw)
        self._inside = None
        if self._persist:
            return
        with self._lock:
            self._runs += 1
            if self._runs == self._armings and not self._stays and self._raw is not None:
                self._raw = None
                lib.ns_job_done(raw)

    def _finish(self, raw: Any) -> None:
        with self._lock:
            self._raw = None
            lib.ns_job_done(raw)

    def _gone(self) -> None:
        with self._lock:
            self._raw = None
        self._callback = None
        self.pool._jobs.discard(self)


# What was posted, by number: C has the number, so that what is taken back here is not found by a late callback.
_posted: dict[int, tuple[_Adder, Callable[..., object], tuple[Any, ...]]] = {}
_numbers = itertools.count(1)


@ffi.def_extern()
def ns_python_run(raw: Any) -> None:
    ffi.from_handle(lib.ns_job_get_data(raw))._run(raw)


@ffi.def_extern()
def ns_python_gone(raw: Any) -> None:
    ffi.from_handle(lib.ns_job_get_data(raw))._gone()


@ffi.def_extern()
def ns_python_group_gone(raw: Any) -> None:
    ffi.from_handle(lib.ns_group_get_data(raw))._gone()


@ffi.def_extern()
def ns_python_posted(raw: Any) -> None:
    number = int(ffi.cast("uintptr_t", lib.ns_job_get_data(raw)))
    lib.ns_job_done(raw)
    entry = _posted.pop(number, None)
    if entry is None:
        return
    owner, function, arguments = entry
    owner._numbers.discard(number)
    try:
        function(*arguments)
    except (Shutdown, Deleting):
        pass
    except BaseException as thrown:
        owner._of._report(thrown)


_LEVELS = [logging.CRITICAL] * 3 + [logging.ERROR, logging.WARNING, logging.INFO, logging.INFO, logging.DEBUG]


@ffi.def_extern()
def ns_python_line(_arg: Any, priority: int, text: Any) -> None:
    logger.log(_LEVELS[priority & 7], "%s", ffi.string(text).decode(errors="replace").rstrip("\n"))


class _Adder:
    """What pools and groups have in common: jobs are added to them."""

    _of: Pool
    _raw: Any
    _group: Group | None = None
    _numbers: set[int]

    def post(self, function: Callable[..., object], *arguments: Any, loop: bool = False) -> None:
        """Call function(*arguments) once. Overloaded: too many wait (queue_limit, Group.limit)."""
        number = next(_numbers)
        where = lib.NS_JOB_NONE if loop else lib.NS_JOB_THREAD
        data = ffi.cast("void *", number)
        with _Calls(self) as raw:
            _posted[number] = (self, function, arguments)
            self._numbers.add(number)
            if self._group is None:
                result = lib.ns_add_job(raw, where, lib.ns_python_posted, data, ffi.NULL)
            else:
                result = self._group._call(lib.ns_add_group_job, where, lib.ns_python_posted, data, ffi.NULL)
        if result != lib.NS_SUCCESS:
            _posted.pop(number, None)
            self._numbers.discard(number)
            check(result, "post")

    def _forget_posted(self) -> None:
        for number in list(self._numbers):
            _posted.pop(number, None)
        self._numbers.clear()

    def run(self, callback: Callback, *, loop: bool = False, keep: bool = False) -> Job:
        """As post, with a job that can be rearmed and cancelled."""
        return self._add("run", callback, loop, False, keep, lib.ns_add_job)

    def after(self, seconds: float, callback: Callback, *, loop: bool = False, keep: bool = False) -> Job:
        """When a time has passed."""
        return self._add("after", callback, loop, False, keep, lib.ns_add_timeout_job, _timeval(seconds))

    def every(self, seconds: float, callback: Callback, *, loop: bool = False, cadence: bool = False) -> Job:
        """Whenever a time has passed, until it is cancelled; with cadence without drift."""
        more = lib.NS_JOB_CADENCE if cadence else 0
        return self._add("every", callback, loop, True, False, lib.ns_add_timeout_job, _timeval(seconds), more=more)

    def on_signal(self, number: int, callback: Callback, *, loop: bool = False, persist: bool = False) -> Job:
        """When a signal has arrived. Python's own handler for it does not run meanwhile."""
        return self._add("on_signal", callback, loop, persist, False, lib.ns_add_signal_job, number)

    def on_io(
        self,
        fd: int | Any,
        directions: int,
        callback: Callback,
        *,
        timeout: float | None = None,
        loop: bool = False,
        persist: bool = False,
        keep: bool = False,
    ) -> Job:
        """When a descriptor, or what has a fileno(), is ready for READ or WRITE, or the time is up. The library never
        closes it; keep it open until the job is over."""
        number = fd if isinstance(fd, int) else fd.fileno()
        more = directions | lib.NS_JOB_PRESERVE_FD
        tv = _timeout(timeout)
        job = self._add("on_io", callback, loop, persist, keep, lib.ns_add_fd_timeout_job, number, tv, more=more)
        job._fd = fd
        return job

    def on_readable(self, fd: int | Any, callback: Callback, **how: Any) -> Job:
        return self.on_io(fd, READ, callback, **how)

    def on_writable(self, fd: int | Any, callback: Callback, **how: Any) -> Job:
        return self.on_io(fd, WRITE, callback, **how)

    def _add(
        self, call: str, callback: Callback, loop: bool, persist: bool, keep: bool, function: Any, *trigger: Any, more: int = 0
    ) -> Job:
        pool = self._of
        job = Job(pool, self._group, callback, persist, keep)
        flags = more | lib.NS_JOB_UNARMED | (0 if loop else lib.NS_JOB_THREAD) | (lib.NS_JOB_PERSIST if persist else 0)
        at = ffi.new("struct ns_job_t **")
        # Unarmed, then done callback and group, then armed: nothing of it runs before all is set. The group's
        # lock keeps a cancel out meanwhile.
        with _Calls(pool) as tp, job._lock:
            if self._group is not None:
                if self._group._cancelled:
                    raise Deleting(f"{call}: the group is cancelled")
                if self._group._raw is None:
                    raise Shutdown(f"{call}: the group has ended")
            pool._jobs.add(job)
            result = function(tp, *trigger, flags, lib.ns_python_run, job._handle, at)
            if result != lib.NS_SUCCESS:
                pool._jobs.discard(job)
                check(result, call)
            job._raw = raw = at[0]
            lib.ns_job_set_done_cb(raw, lib.ns_python_gone)
            result = lib.NS_SUCCESS
            if self._group is not None:
                result = lib.ns_job_set_group(raw, self._group._raw)
            result = result or lib.ns_job_rearm(raw)
            if result != lib.NS_SUCCESS:
                job._raw = None
                lib.ns_job_done(raw)
                check(result, call)
        return job


class _Calls:
    """A call on a pool or group. The end of the pool waits until all of them have returned."""

    def __init__(self, owner: _Adder):
        self._owner = owner

    def __enter__(self) -> Any:
        pool, raw = self._owner._of, self._owner._raw
        with pool._entry:
            if pool._raw is None or raw is None:
                raise Shutdown("the pool has ended")
            pool._under_way += 1
        return raw

    def __exit__(self, *_: object) -> None:
        pool = self._owner._of
        with pool._entry:
            pool._under_way -= 1
            if pool._under_way == 0:
                pool._entry.notify_all()


class Group(_Adder):
    """Jobs of which `width` run at once, in order; 0: no limit and no order. Made by Pool.group(). It ends when it
    is released, as a context manager or by release(), and its jobs are over."""

    def __init__(self, pool: Pool, width: int):
        self._of, self._group = pool, self
        self._numbers = set()
        self._lock = threading.RLock()
        self._cancelled = False
        self._held = True
        self._handle = ffi.new_handle(self)
        at = ffi.new("struct ns_group_t **")
        with _Calls(pool) as tp:
            check(lib.ns_group_new(tp, width, self._handle, lib.ns_python_group_gone, at), "group")
            self._raw = at[0]
            pool._groups.add(self)

    def _call(self, function: Any, *arguments: Any) -> Any:
        with self._lock:
            if self._raw is None:
                raise Shutdown("the group has ended")
            return function(self._raw, *arguments)

    def cancel(self) -> bool:
        """Finish with all its jobs, and let none in any more. True: none runs any more, but perhaps the caller."""
        with self._lock:
            self._cancelled = True
            result = self._call(lib.ns_group_cancel)
        self._forget_posted()
        if result not in (lib.NS_SUCCESS, lib.NS_RUNNING):
            check(result, "cancel")
        return bool(result == lib.NS_SUCCESS)

    def release(self) -> None:
        """Give it back: nothing more is added from outside its callbacks. It goes when its jobs are over."""
        with self._lock:
            if self._held and self._raw is not None:
                self._held = False
                lib.ns_group_release(self._raw)

    def wait(self, timeout: float | None = None) -> bool:
        """Until none of its jobs is armed, queued or running; False: the time is up."""
        with _Calls(self._of):
            with self._lock:
                self._call(lib.ns_group_hold)
                raw = self._raw
            try:
                return self._of._wait("wait", timeout, lambda tv: lib.ns_group_wait(raw, tv))
            finally:
                lib.ns_group_release(raw)

    def suspend(self) -> None:
        """Let no callback begin until resume(). Counted."""
        check(self._call(lib.ns_group_suspend), "suspend")

    def resume(self) -> None:
        check(self._call(lib.ns_group_resume), "resume")

    def limit(self, most: int) -> None:
        """Let post() raise Overloaded when so many wait, but in a worker. 0: no limit."""
        check(self._call(lib.ns_group_set_limit, most), "limit")

    def __len__(self) -> int:
        return int(self._call(lib.ns_group_get_length))

    def __bool__(self) -> bool:
        return True

    @property
    def is_current(self) -> bool:
        """Whether the caller is in one of its callbacks."""
        return bool(self._call(lib.ns_group_is_current))

    def _gone(self) -> None:
        with self._lock:
            self._raw = None
        self._forget_posted()
        self._of._groups.discard(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


# A pool that nobody closed must not be collected: its threads would call what is gone.
_open: set[Pool] = set()


class Pool(_Adder):
    """Worker threads and an event loop. Close it, or use it as a context manager."""

    def __init__(
        self,
        workers: int = 1,
        *,
        name: str = "",
        framework: str = "",
        queue_limit: int = 0,
        stack_size: int = 0,
        on_exception: Callable[[BaseException], object] | None = None,
        _flags: int = 0,
    ):
        config = ffi.new("struct ns_thrpool_config *")
        lib.ns_thrpool_config_init(config)
        config.max_threads, config.stacksize = workers, stack_size
        lib.ns_python_use_log(config)
        options = ffi.new("struct ns_thrpool_options *")
        lib.ns_thrpool_options_init(options, ffi.sizeof("struct ns_thrpool_options"))
        strings = ffi.new("char[]", name.encode()), ffi.new("char[]", framework.encode())
        options.name = strings[0] if name else ffi.NULL
        options.framework = strings[1] if framework else ffi.NULL
        options.queue_limit, options.flags = queue_limit, _flags
        raw = lib.ns_thrpool_new_with(config, options)
        if raw == ffi.NULL:
            raise InvalidRequest("the pool can't be made: the log says why")
        self._of = self
        self._raw = raw
        self._numbers = set()
        self._on_exception = on_exception
        self._jobs: set[Job] = set()
        self._groups: set[Group] = set()
        self._entry = threading.Condition()
        self._under_way = 0
        _open.add(self)

    def group(self, width: int = 1) -> Group:
        return Group(self, width)

    def shutdown(self) -> None:
        """Begin to end it: from anywhere. What is queued still runs."""
        with _Calls(self) as raw:
            lib.ns_thrpool_shutdown(raw)

    @property
    def is_shutdown(self) -> bool:
        return self._raw is None or bool(lib.ns_thrpool_is_shutdown(self._raw))

    @property
    def framework(self) -> str:
        with _Calls(self) as raw:
            return str(ffi.string(lib.ns_thrpool_get_framework(raw)).decode())

    def wait(self, timeout: float | None = None) -> bool:
        """Until it has been shut down and no callback runs any more; False: the time is up. In the main thread,
        signals are seen to meanwhile: Ctrl-C raises KeyboardInterrupt."""
        with _Calls(self) as raw:
            return self._wait("wait", timeout, lambda tv: lib.ns_thrpool_timedwait(raw, tv))

    def close(self) -> None:
        """Shut it down, wait for it, cancel what is left, and free it. Not in its own callbacks."""
        if self._raw is None:
            return
        try:
            self.shutdown()
            self.wait()
        except Shutdown:
            return  # closed by another thread, or in a forked child
        with self._entry:
            raw = self._raw
            self._raw = None
            while self._under_way:
                self._entry.wait()
        if raw is None:
            return
        for job in list(self._jobs):
            job.cancel()
        for group in list(self._groups):
            group.release()
        lib.ns_thrpool_destroy(raw)
        _open.discard(self)
        self._forget_posted()

    def _wait(self, call: str, timeout: float | None, wait: Callable[[Any], Any]) -> bool:
        """Wait in slices, between which Python looks after its signals."""
        until = None if timeout is None else time.monotonic() + max(timeout, 0.0)
        while True:
            left = 0.25 if until is None else min(0.25, until - time.monotonic())
            result = wait(_timeval(left))
            if result != lib.NS_TIMEOUT:
                check(result, call)
                return True
            if until is not None and time.monotonic() >= until:
                return False

    def _report(self, thrown: BaseException) -> None:
        try:
            if self._on_exception is not None:
                self._on_exception(thrown)
                return
        except BaseException as again:
            thrown = again
        logger.error("exception in a callback", exc_info=thrown)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, thrown: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _at_exit() -> None:
    """The interpreter ends: no thread may enter it any more."""
    for pool in list(_open):
        pool.close()
    lib.ns_set_log(ffi.NULL, ffi.NULL)


lib.ns_set_log(lib.ns_python_line, ffi.NULL)
atexit.register(_at_exit)
