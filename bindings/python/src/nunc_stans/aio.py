# SPDX-License-Identifier: GPL-3.0-or-later
"""A pool inside asyncio.

    async with nunc_stans.aio.Pool(workers=4) as pool:
        digest = await pool.call(compress, data)                # in a worker
        pool.on_readable(sock, on_data, loop=True)              # a callback in asyncio's own thread
        await pool.readable(sock, timeout=30)

The pool has no loop thread: asyncio's loop watches the pool's wait descriptor and turns it. So callbacks with
loop=True run in asyncio's thread, between its own, and may use what belongs to it. They must not block. Those without
run in workers. What is queued in the loop when the pool is closed still runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self, TypeVar

from . import READ, WRITE, Job, Shutdown, _Adder, _Calls, _timeval
from . import Pool as _Pool
from ._native import lib
from ._results import check

T = TypeVar("T")


class Pool(_Pool):
    """As nunc_stans.Pool, with asyncio's running loop as its loop. Make, use and close it in that loop's thread; post
    and the like work from any thread. Close it by `async with` or `await aclose()`."""

    def __init__(self, workers: int = 1, **how: Any):
        self._asyncio = asyncio.get_running_loop()
        self._thrown: BaseException | None = None
        self._futures: set[asyncio.Future[Any]] = set()
        super().__init__(workers, _flags=lib.NS_POOL_CALLER_LOOP, **how)
        self._wait_fd = int(lib.ns_thrpool_get_wait_fd(self._raw))
        self._asyncio.add_reader(self._wait_fd, self._turn)

    def _turn(self) -> bool:
        """One turn. False when the pool has stopped."""
        with _Calls(self) as raw:
            result = lib.ns_thrpool_turn(raw, _timeval(0))
        # Ctrl-C while a callback ran in this thread is asyncio's.
        thrown, self._thrown = self._thrown, None
        if thrown is not None:
            raise thrown
        if result == lib.NS_SHUTDOWN:
            return False
        if result != lib.NS_TIMEOUT:
            check(result, "turn")
        return True

    def _report(self, thrown: BaseException) -> None:
        if isinstance(thrown, KeyboardInterrupt):
            self._thrown = thrown
        else:
            super()._report(thrown)

    async def call(self, function: Callable[..., T], *arguments: Any) -> T:
        """What function(*arguments) returns or raises in a worker."""
        return await call_in(self, function, *arguments)

    async def readable(self, fd: Any, timeout: float | None = None) -> bool:
        """Until a descriptor is readable; False: the time is up."""
        return await self._ready(fd, READ, timeout)

    async def writable(self, fd: Any, timeout: float | None = None) -> bool:
        return await self._ready(fd, WRITE, timeout)

    async def _ready(self, fd: Any, directions: int, timeout: float | None) -> bool:
        future: asyncio.Future[bool] = self._future()

        def fired(job: Job) -> None:
            if not future.done():
                future.set_result(not job.timed_out)

        job = self.on_io(fd, directions, fired, timeout=timeout, loop=True)
        try:
            return await future
        finally:
            job.cancel()

    def _future(self) -> asyncio.Future[Any]:
        """One that is refused when the pool ends, rather than left waiting."""
        future: asyncio.Future[Any] = self._asyncio.create_future()
        self._futures.add(future)
        future.add_done_callback(self._futures.discard)
        return future

    async def aclose(self) -> None:
        """Shut it down, let what is queued run, wait for its workers without blocking asyncio, and free it."""
        if self._raw is None:
            return
        self.shutdown()
        while self._turn():
            await asyncio.sleep(0.001)
        self.close()

    def close(self) -> None:
        """The same, but it blocks asyncio until the workers are through."""
        if self._raw is not None and self._wait_fd >= 0:
            if not self._asyncio.is_closed():
                self._asyncio.remove_reader(self._wait_fd)
            self._wait_fd = -1
        super().close()
        for future in list(self._futures):
            if not future.done() and not self._asyncio.is_closed():
                future.set_exception(Shutdown("the pool has ended"))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, thrown: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


async def call_in(where: _Adder, function: Callable[..., T], *arguments: Any) -> T:
    """What function(*arguments) returns or raises in a worker, posted to a pool or group."""
    pool = where._of
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = pool._future() if isinstance(pool, Pool) else loop.create_future()

    def settle(result: T | None, thrown: BaseException | None) -> None:
        if future.done():
            return
        if thrown is not None:
            future.set_exception(thrown)
        else:
            future.set_result(result)  # type: ignore[arg-type]

    def work() -> None:
        try:
            outcome: tuple[T | None, BaseException | None] = function(*arguments), None
        except BaseException as thrown:
            outcome = None, thrown
        try:
            loop.call_soon_threadsafe(settle, *outcome)
        except RuntimeError:
            pass  # the loop has been closed

    where.post(work)
    return await future
