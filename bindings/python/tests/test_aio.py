# SPDX-License-Identifier: GPL-3.0-or-later
"""A pool inside asyncio."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
import time

import nunc_stans as ns
import nunc_stans.aio as aio
import pytest


def test_calls_run_in_workers_and_asyncio_goes_on() -> None:
    async def main() -> None:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0.001)

        async with aio.Pool(workers=4) as pool:
            ticker = asyncio.create_task(tick())
            begin = time.monotonic()
            threads = await asyncio.gather(*(pool.call(sleeps, 0.2) for _ in range(4)))
            assert time.monotonic() - begin < 0.75
            assert threading.get_ident() not in threads and len(set(threads)) == 4
            assert ticks > 10
            ticker.cancel()
            with pytest.raises(ZeroDivisionError):
                await pool.call(lambda: 1 // 0)
            assert await pool.call(divmod, 7, 3) == (2, 1)

    asyncio.run(main())


def sleeps(seconds: float) -> int:
    time.sleep(seconds)
    return threading.get_ident()


def test_loop_callbacks_run_in_asyncios_thread() -> None:
    async def main() -> None:
        here = threading.get_ident()
        seen: set[tuple[str, int]] = set()
        a, b = socket.socketpair()
        async with aio.Pool() as pool:

            def note(what: str) -> None:
                seen.add((what, threading.get_ident()))

            pool.post(note, "posted", loop=True)
            pool.after(0.01, lambda job: note("timer"), loop=True)
            pool.on_signal(signal.SIGUSR1, lambda job: note("signal"), loop=True)
            pool.on_readable(a, lambda job: note("socket"), loop=True)
            b.send(b"x")
            os.kill(os.getpid(), signal.SIGUSR1)
            await pool.call(lambda: pool.post(note, "from a worker", loop=True))
            end = time.monotonic() + 20
            while len(seen) < 5 and time.monotonic() < end:
                await asyncio.sleep(0.001)
            names = ["from a worker", "posted", "signal", "socket", "timer"]
            assert sorted(seen) == [(name, here) for name in names]
            a.close()
            b.close()

    asyncio.run(main())


def test_an_echo_between_tasks() -> None:
    async def serve(pool: aio.Pool, sock: socket.socket) -> None:
        while await pool.readable(sock, 20):
            data = sock.recv(1000)
            if not data:
                return
            await pool.writable(sock)
            sock.send(data)

    async def main() -> None:
        async with aio.Pool() as pool:
            a, b = socket.socketpair()
            a.setblocking(False)
            b.setblocking(False)
            server = asyncio.create_task(serve(pool, a))
            for number in range(500):
                b.send(b"%d" % number)
                assert await pool.readable(b, 20)
                assert b.recv(100) == b"%d" % number
            assert not await pool.readable(b, 0.01)
            b.close()
            await asyncio.wait_for(server, 20)
            a.close()

    asyncio.run(main())


def test_groups_keep_order() -> None:
    async def main() -> None:
        order: list[int] = []
        async with aio.Pool(workers=4) as pool:
            group = pool.group()
            await asyncio.gather(*(aio.call_in(group, order.append, n) for n in range(500)))
        assert order == list(range(500))

    asyncio.run(main())


def test_what_waits_when_the_pool_ends_is_refused() -> None:
    async def main() -> None:
        pool = aio.Pool()
        a, b = socket.socketpair()
        waiting = asyncio.create_task(pool.readable(a))
        await asyncio.sleep(0.01)
        await pool.aclose()
        with pytest.raises(ns.Shutdown):
            await asyncio.wait_for(waiting, 20)
        with pytest.raises(ns.Shutdown):
            await pool.call(print)
        await pool.aclose()
        a.close()
        b.close()

    asyncio.run(main())


def test_cancelled_tasks_take_their_jobs_along() -> None:
    async def main() -> None:
        async with aio.Pool() as pool:
            a, b = socket.socketpair()
            tasks = [asyncio.create_task(pool.readable(a)) for _ in range(50)]
            await asyncio.sleep(0.01)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            end = time.monotonic() + 20
            while pool._jobs and time.monotonic() < end:
                await asyncio.sleep(0.001)
            assert not pool._jobs
            a.close()
            b.close()

    asyncio.run(main())


def test_queued_calls_are_answered_before_the_end() -> None:
    async def main() -> None:
        async with aio.Pool(workers=2) as pool:
            calls = [asyncio.create_task(pool.call(sleeps, 0.01)) for _ in range(20)]
            await asyncio.sleep(0)
        assert len({await call for call in calls}) == 2

    asyncio.run(main())


def test_ctrl_c_in_a_loop_callback_reaches_asyncio() -> None:
    async def main() -> None:
        async with aio.Pool() as pool:
            pool.post(signal.raise_signal, signal.SIGINT, loop=True)
            await asyncio.sleep(20)

    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        asyncio.run(main())
    assert time.monotonic() - begin < 15
