# SPDX-License-Identifier: GPL-3.0-or-later
"""Pools, jobs and groups, on real sockets, timers and signals."""

from __future__ import annotations

import gc
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator

import nunc_stans as ns
import pytest


def eventually(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.001)


@pytest.fixture
def pool() -> Iterator[ns.Pool]:
    with ns.Pool(workers=2) as made:
        yield made


def test_version_and_results() -> None:
    assert ns.version() == "0.2.0"
    names = {c.__name__: c.result for c in ns.Error.__subclasses__()}
    assert names == {
        "Shutdown": 1, "AllocationFailure": 2, "InvalidRequest": 3, "InvalidState": 4, "ThreadFailure": 5,
        "Deleting": 6, "Timeout": 7, "Running": 8, "Overloaded": 9,
    }  # fmt: skip


def test_posted_functions_run_in_workers_and_in_the_loop(pool: ns.Pool) -> None:
    got: list[tuple[int, int]] = []
    for number in range(100):
        pool.post(lambda n: got.append((n, threading.get_ident())), number, loop=number % 2 == 1)
    eventually(lambda: len(got) == 100)
    assert [n for n, _ in got if n % 2] == list(range(1, 100, 2))
    assert threading.get_ident() not in {thread for _, thread in got}
    assert len({thread for n, thread in got if n % 2}) == 1


def test_a_job_is_over_after_its_run_unless_rearmed_or_kept(pool: ns.Pool) -> None:
    runs: list[int] = []

    def three_times(job: ns.Job) -> None:
        runs.append(1)
        if len(runs) < 3:
            job.rearm()

    job = pool.run(three_times)
    eventually(lambda: job.over)
    assert len(runs) == 3
    kept = pool.run(lambda job: runs.append(1), keep=True)
    eventually(lambda: len(runs) == 4)
    assert not kept.over
    eventually(lambda: _rearmed(kept))
    eventually(lambda: len(runs) == 5)
    assert kept.cancel() and not kept.cancel() and kept.over
    with pytest.raises(ns.Deleting):
        kept.rearm()
    eventually(lambda: not pool._jobs)


def _rearmed(job: ns.Job) -> bool:
    try:
        job.rearm()
    except ns.InvalidState:
        return False
    return True


def test_timers(pool: ns.Pool) -> None:
    begin = time.monotonic()
    times: list[float] = []
    once = pool.after(0.02, lambda job: times.append(time.monotonic() - begin))
    eventually(lambda: once.over)
    assert times[0] >= 0.02
    ticks: list[int] = []
    clock = pool.every(0.001, lambda job: ticks.append(1), cadence=True)
    eventually(lambda: len(ticks) >= 5)
    clock.cancel()
    never = pool.after(1e12, lambda job: os.abort())
    with pytest.raises(ns.InvalidState):
        never.rearm()
    at_once = pool.after(-1, lambda job: ticks.append(1))
    eventually(lambda: at_once.over)


def test_a_socket_is_read_then_written_then_times_out(pool: ns.Pool) -> None:
    a, b = socket.socketpair()
    events: list[object] = []

    def serve(job: ns.Job) -> None:
        if job.timed_out:
            events.append("time is up")
        elif job.fired == ns.READ:
            events.append(a.recv(100))
            job.rearm_for(ns.WRITE, 10)
        else:
            assert job.fired == ns.WRITE
            a.send(b"pong")
            job.rearm_for(ns.READ, 0.01)

    job = pool.on_readable(a, serve)
    b.send(b"ping")
    assert b.recv(100) == b"pong"
    eventually(lambda: job.over)
    assert events == [b"ping", "time is up"] and job.fired == 0 and not job.timed_out
    assert a.fileno() >= 0
    a.send(b"still open")
    a.close()
    b.close()


def test_cancel_inside_and_under_a_running_callback(pool: ns.Pool) -> None:
    inside, go = threading.Event(), threading.Event()
    own: list[bool] = []

    def cancels_itself(job: ns.Job) -> None:
        own.append(job.cancel())
        own.append(job.over)

    job = pool.run(cancels_itself)
    eventually(lambda: len(own) == 2)
    assert own == [True, True] and job.over

    def waits(job: ns.Job) -> None:
        inside.set()
        go.wait(30)

    running = pool.run(waits)
    inside.wait(30)
    assert running.cancel() is False
    go.set()


def test_exceptions_are_contained_and_reported(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[BaseException] = []
    with ns.Pool(on_exception=seen.append) as pool:
        pool.post(lambda: 1 / 0)
        clock = pool.every(0.001, lambda job: [][1])
        eventually(lambda: len(seen) == 2 and clock.over)
        assert {type(e) for e in seen} == {ZeroDivisionError, IndexError}
        pool.post(sys.exit, 3)
        eventually(lambda: len(seen) == 3)
    with ns.Pool() as pool, caplog.at_level(logging.ERROR, "nunc_stans"):
        pool.post(lambda: 1 / 0)
        eventually(lambda: "ZeroDivisionError" in caplog.text)


def test_refusals_are_exceptions_and_logged(pool: ns.Pool, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ns.InvalidRequest):
        pool.on_signal(signal.SIGKILL, lambda job: None)
    assert "ns_add_signal_job" in caplog.text
    with pytest.raises(ns.InvalidRequest):
        pool.on_readable(-1, lambda job: None)
    with pytest.raises(ns.InvalidRequest):
        ns.Pool(workers=0)
    with pytest.raises(ns.InvalidRequest):
        ns.Pool(framework="none of these")
    pool.shutdown()
    assert pool.is_shutdown
    for refused in (lambda: pool.post(print), lambda: pool.run(print), lambda: pool.group()):
        with pytest.raises(ns.Shutdown):
            refused()
    assert pool.wait(10) and not pool._jobs and not ns._posted


def test_a_closed_pool_refuses_and_its_handles_too() -> None:
    pool = ns.Pool(workers=2, name="here")
    a, b = socket.socketpair()
    group = pool.group()
    jobs = [
        pool.after(1000, print), pool.run(lambda job: None, keep=True), pool.every(0.0001, lambda job: None),
        pool.on_readable(a, print), group.after(1000, print), group.run(lambda job: None, keep=True),
    ]  # fmt: skip
    group.suspend()
    group.post(print, "never")
    pool.close()
    pool.close()
    assert all(job.over and not job.cancel() for job in jobs)
    for refused in (lambda: pool.post(print), lambda: pool.wait(), lambda: group.post(print), lambda: len(group),
                    lambda: jobs[1].rearm(), lambda: group.wait(), lambda: pool.shutdown()):  # fmt: skip
        with pytest.raises((ns.Shutdown, ns.Deleting)):
            refused()
    assert not ns._posted and not pool._jobs and not pool._groups and pool not in ns._open
    a.close()
    b.close()


def test_nothing_is_left_of_jobs_and_pools() -> None:
    class Thing:
        pass

    kept: list[weakref.ref[object]] = []

    def use(thing: Thing) -> Callable[[ns.Job], None]:
        return lambda job: print(thing)

    for _ in range(20):
        with ns.Pool() as pool:
            thing = Thing()
            kept.append(weakref.ref(thing))
            kept.append(weakref.ref(pool))
            pool.after(1000, use(thing))
            pool.on_readable(0, use(thing), timeout=1000).cancel()
            group = pool.group()
            group.suspend()
            group.post(print, thing)
    del pool, thing, group
    gc.collect()
    assert [ref() for ref in kept] == [None] * 40


def test_a_group_runs_one_at_a_time_in_order() -> None:
    order: list[int] = []
    busy: list[int] = []
    with ns.Pool(workers=4) as pool, pool.group() as group:

        def work(number: int) -> None:
            assert not busy and group.is_current
            busy.append(1)
            time.sleep(0)
            order.append(number)
            busy.pop()

        for number in range(1000):
            group.post(work, number, loop=number % 7 == 0)
        assert group.wait(30) and not group.is_current
    assert order == list(range(1000))


def test_a_group_is_cancelled_suspended_limited(pool: ns.Pool) -> None:
    group = pool.group()
    group.suspend()
    group.limit(3)
    for _ in range(3):
        group.post(os.abort)
    with pytest.raises(ns.Overloaded):
        group.post(os.abort)
    assert len(group) == 3 and group.wait(0.01) is False
    job = group.after(1000, print)
    assert group.cancel() and job.over and not job.cancel()
    with pytest.raises(ns.Deleting):
        group.post(print)
    with pytest.raises(ns.Deleting):
        group.run(print)
    group.resume()
    with pytest.raises(ns.InvalidState):
        group.resume()
    assert group.wait(30)
    group.release()
    eventually(lambda: not pool._groups and not pool._jobs)
    with pytest.raises(ns.Shutdown):
        group.suspend()


def test_too_much_is_refused() -> None:
    go = threading.Event()
    with ns.Pool(queue_limit=5) as pool:
        pool.post(go.wait)
        with pytest.raises(ns.Overloaded):
            for _ in range(100):
                pool.post(lambda: None)
        go.set()


def test_a_pool_can_not_be_closed_by_its_own_callback(pool: ns.Pool) -> None:
    seen: list[str] = []

    def close() -> None:
        try:
            pool.close()
        except ns.ThreadFailure:
            seen.append("refused")

    pool.post(close)
    eventually(lambda: seen == ["refused"])


def test_signals(pool: ns.Pool) -> None:
    seen: list[int] = []
    job = pool.on_signal(signal.SIGUSR1, lambda job: seen.append(1), persist=True)
    os.kill(os.getpid(), signal.SIGUSR1)
    eventually(lambda: len(seen) == 1)
    os.kill(os.getpid(), signal.SIGUSR1)
    eventually(lambda: len(seen) == 2)
    job.cancel()


def test_keyboard_interrupt_ends_a_wait(pool: ns.Pool) -> None:
    group = pool.group()
    group.after(1000, print)
    for wait in (pool.wait, group.wait):
        main = threading.main_thread().ident
        assert main is not None
        timer = threading.Timer(0.1, signal.pthread_kill, (main, signal.SIGINT))
        timer.start()
        begin = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            wait()
        assert time.monotonic() - begin < 20
        timer.join()


def test_handles_race_with_callbacks_and_cancels() -> None:
    for number in range(20):
        with ns.Pool(workers=3) as pool, pool.group(2) as group:
            jobs = [
                where.after(index / 1e5, lambda job: job.rearm()) for index in range(40) for where in (pool, group)
            ]

            def cancel(which: int) -> None:
                for job in jobs if which else reversed(jobs):
                    if which < 2:
                        job.cancel()
                    else:
                        try:
                            job.rearm()
                        except ns.Error:
                            pass
                    if which == 1 and job is jobs[20]:
                        try:
                            group.cancel()
                        except ns.Shutdown:
                            assert number % 2, "nobody closes the pool"

            threads = [threading.Thread(target=cancel, args=(which,)) for which in range(3)]
            for thread in threads:
                thread.start()
            if number % 2:
                pool.close()
            for thread in threads:
                thread.join()
            assert all(job.over for job in jobs)


def run(code: str, *, limit: float = 60) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], text=True, capture_output=True, timeout=limit)


def test_the_interpreter_exits_under_fire() -> None:
    """Pools that nobody closed, busy with callbacks in every thread, do not keep it from ending, nor abort it."""
    code = """
import nunc_stans as ns
pools = [ns.Pool(workers=3) for _ in range(3)]
for pool in pools:
    for _ in range(10):
        pool.every(0.00001, lambda job: None)
        pool.every(0.00001, lambda job: None, loop=True)
import time; time.sleep(0.05)
"""
    for _ in range(10):
        ended = run(code)
        assert (ended.returncode, ended.stderr) == (0, "")


def test_a_forked_child_gets_refusals() -> None:
    code = """
import os, nunc_stans as ns
pool = ns.Pool()
job = pool.after(1000, print)
child = os.fork()
if child == 0:
    try:
        pool.post(print)
    except ns.Shutdown:
        os._exit(7)
    os._exit(1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
pool.post(lambda: None)
pool.close()
"""
    ended = run(code)
    assert ended.returncode == 0 and "Traceback" not in ended.stderr
