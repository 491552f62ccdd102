/* SPDX-License-Identifier: GPL-3.0-or-later */
/* nunc-stans-coroutines.hpp: tasks that wait on a pool. */
#include "test.hpp"

#include <csignal>
#include <mutex>

static ns::task<> echo(ns::pool &pool, ns::descriptor fd)
{
    counted c;
    char data[256];
    while (co_await pool.readable(fd.get(), 30s)) {
        ssize_t n = read(fd.get(), data, sizeof data);
        if (n <= 0)
            break;
        for (ssize_t sent = 0; sent < n;) {
            co_await pool.writable(fd.get());
            ssize_t w = write(fd.get(), data + sent, static_cast<std::size_t>(n - sent));
            sent += w > 0 ? w : 0;
        }
    }
}

TEST(connections_are_tasks)
{
    ns::pool pool(workers(2));
    std::vector<ns::descriptor> clients;
    for (int i = 0; i < 20; i++) {
        pair ends;
        clients.push_back(std::move(ends.b));
        pool.spawn(echo(pool, std::move(ends.a)));
    }
    for (int round = 0; round < 100; round++)
        for (auto &client : clients)
            CHECK(write(client.get(), "ping", 4) == 4);
    for (auto &client : clients) {
        char data[400];
        for (ssize_t all = 0, n; all < 400; all += n > 0 ? n : 0)
            n = read(client.get(), data, sizeof data);
    }
    clients.clear();
    EVENTUALLY(counted::live == 0);
}

TEST(a_wait_has_a_time_limit)
{
    ns::pool pool;
    pair ends;
    std::atomic<int> seen{0};
    auto wait = [](ns::pool &in, int fd, std::atomic<int> &out) -> ns::task<> {
        CHECK(!co_await in.readable(fd, 1ms));
        CHECK(!co_await in.readable(fd, -1s)); /* over already: not "no limit" */
        CHECK(co_await in.writable(fd, 1s));
        co_await in.sleep(1ms);
        co_await in.sleep(-1s);
        out++;
    };
    pool.spawn(wait(pool, ends.a.get(), seen));
    EVENTUALLY(seen == 1);
}

static ns::task<int> add(ns::pool &pool, int a, int b)
{
    counted c;
    co_await pool.sleep(10us);
    co_return a + b;
}

static ns::task<std::string> fails(ns::pool &pool, int depth)
{
    counted c;
    if (depth == 0) {
        co_await pool.sleep(10us);
        throw std::runtime_error("deep down");
    }
    co_return co_await fails(pool, depth - 1);
}

TEST(tasks_await_tasks_and_their_exceptions)
{
    std::mutex mutex;
    std::string last;
    ns::options o = workers(2);
    o.on_exception = [&](std::exception_ptr thrown) {
        std::lock_guard<std::mutex> guard(mutex);
        try {
            std::rethrow_exception(thrown);
        } catch (const std::exception &e) {
            last = e.what();
        }
    };
    auto reported = [&] {
        std::lock_guard<std::mutex> guard(mutex);
        return last;
    };
    ns::pool pool(o);
    std::atomic<int> sum{0};
    auto sums = [](ns::pool &in, std::atomic<int> &out) -> ns::task<> {
        int all = 0;
        for (int i = 0; i < 10; i++)
            all += co_await add(in, i, 1);
        try {
            co_await fails(in, 5);
        } catch (const std::runtime_error &) {
            all += 1000;
        }
        out = all;
        co_await fails(in, 3);
        std::abort();
    };
    pool.spawn(sums(pool, sum));
    EVENTUALLY(reported() == "deep down" && counted::live == 0);
    CHECK(sum == 1055);
    std::atomic<bool> goes_on{false};
    pool.post([&] { goes_on = true; });
    EVENTUALLY(goes_on);
}

static ns::task<int> waits(ns::pool &pool, ns::group group, int fd, int how, std::atomic<int> &inside)
{
    counted c;
    inside++;
    switch (how) {
    case 0:
        co_await pool.readable(fd);
        break;
    case 1:
        co_await pool.sleep(1h);
        break;
    case 2:
        co_await group.enter(); /* suspended */
        break;
    case 3:
        co_await pool.signal(SIGUSR2);
        break;
    default:
        co_return co_await waits(pool, group, fd, how - 4, inside);
    }
    std::abort();
}

static ns::task<> outer(ns::pool &pool, ns::group group, int fd, int how, std::atomic<int> &inside)
{
    counted c;
    co_await waits(pool, group, fd, how, inside);
    std::abort();
}

TEST(a_pool_ends_with_tasks_at_every_kind_of_wait)
{
    for (int round = 0; round < 30; round++) {
        pair ends;
        std::atomic<int> inside{0};
        {
            ns::pool pool(workers(2));
            ns::group group(pool), own(pool);
            group.suspend();
            for (int how = 0; how < 8; how++) {
                pool.spawn(outer(pool, group, ends.a.get(), how, inside));
                own.spawn(outer(pool, group, ends.a.get(), how, inside));
                group.spawn(outer(pool, group, ends.a.get(), how, inside)); /* never begins */
            }
            if (round % 2)
                EVENTUALLY(inside == 24);
        }
        CHECK(counted::live == 0);
    }
}

TEST(tasks_that_never_begin_are_destroyed)
{
    ns::pool pool;
    {
        auto never = [](counted) -> ns::task<> { co_return; };
        ns::task<> task = never(counted());
        ns::task<> moved = std::move(task);
    }
    CHECK(counted::live == 0);
    pool.shutdown();
    pair ends;
    try {
        pool.spawn(echo(pool, std::move(ends.a)));
        CHECK(false);
    } catch (const ns::error &e) {
        CHECK(e.code() == NS_SHUTDOWN);
    }
    char byte;
    CHECK(read(ends.b.get(), &byte, 1) == 0); /* its descriptor is closed */
}

TEST(a_wait_after_shutdown_throws)
{
    std::atomic<int> codes{0};
    ns::pool pool(workers(2));
    auto late = [](ns::pool &in, std::atomic<int> &out) -> ns::task<> {
        counted c;
        in.shutdown();
        for (int i = 0; i < 3; i++) {
            try {
                co_await in.sleep(1ms);
            } catch (const ns::error &e) {
                out += e.code() == NS_SHUTDOWN;
            }
        }
    };
    pool.spawn(late(pool, codes));
    pool.wait();
    CHECK(codes == 3);
}

TEST(in_a_group_one_task_at_a_time)
{
    enum { TASKS = 10, ROUNDS = 200 };
    long plain = 0;
    std::atomic<int> ended{0};
    std::atomic<bool> busy{false}, overlap{false};
    ns::pool pool(workers(3));
    ns::group group(pool);
    auto work = [](ns::pool &in, ns::group g, long &sum, std::atomic<bool> &flag,
                   std::atomic<bool> &wrong, std::atomic<int> &out) -> ns::task<> {
        CHECK(!g.is_current());
        co_await g.enter();
        for (int i = 0; i < ROUNDS; i++) {
            if (flag.exchange(true) || !g.is_current())
                wrong = true;
            sum++;
            flag = false;
            if (i % 3)
                co_await in.sleep(1us);
            else
                co_await g.enter();
        }
        co_await in.enter();
        if (g.is_current())
            wrong = true;
        co_await in.sleep(1us);
        if (g.is_current())
            wrong = true;
        out++;
    };
    for (int i = 0; i < TASKS; i++)
        pool.spawn(work(pool, group, plain, busy, overlap, ended));
    for (int i = 0; i < ROUNDS; i++)
        group.post([&] {
            if (busy.exchange(true))
                overlap = true;
            plain++;
            busy = false;
        });
    EVENTUALLY(ended == TASKS);
    group.wait();
    CHECK(plain == TASKS * ROUNDS + ROUNDS && !overlap);
}

TEST(a_task_cancels_its_own_group)
{
    ns::pool pool(workers(2));
    ns::group group(pool);
    pair ends;
    std::atomic<int> code{0}, waiting{0};
    auto sits = [](ns::pool &in, int fd, std::atomic<int> &out) -> ns::task<> {
        counted c;
        out++;
        co_await in.readable(fd);
        std::abort();
    };
    auto ends_all = [](ns::pool &in, ns::group g, std::atomic<int> &out,
                       std::atomic<int> &others) -> ns::task<> {
        counted c;
        while (others < 5)
            co_await in.sleep(100us);
        CHECK(g.cancel() == NS_SUCCESS);
        try {
            co_await in.sleep(1h);
            std::abort();
        } catch (const ns::error &e) {
            out = static_cast<int>(e.code());
        }
        co_await in.enter(); /* outside it can go on */
        co_await in.sleep(1us);
        out += 100;
    };
    for (int i = 0; i < 5; i++)
        group.spawn(sits(pool, ends.a.get(), waiting));
    group.spawn(ends_all(pool, group, code, waiting));
    EVENTUALLY(code == 100 + NS_DELETING && counted::live == 0);
    try {
        group.spawn(sits(pool, ends.a.get(), waiting));
        CHECK(false);
    } catch (const ns::error &e) {
        CHECK(e.code() == NS_DELETING);
    }
}

/* Tasks wait, go on, and are destroyed by a cancel of another thread, at any moment. */
TEST(groups_are_cancelled_under_running_tasks)
{
    ns::options o = workers(3);
    std::atomic<int> others{0};
    o.on_exception = [&](std::exception_ptr) { others++; };
    ns::pool pool(o);
    auto busy = [](ns::pool &in, int fd) -> ns::task<> {
        counted c;
        for (;;) {
            co_await in.writable(fd);
            co_await add(in, 1, 2);
        }
    };
    for (int round = 0; round < 200; round++) {
        pair ends;
        ns::group group(pool, static_cast<std::size_t>(round % 3));
        for (int i = 0; i < 10; i++)
            group.spawn(busy(pool, ends.a.get()));
        std::this_thread::sleep_for(std::chrono::microseconds(round * 10));
        group.cancel();
        EVENTUALLY(counted::live == 0);
    }
    CHECK(others == 0);
}

/* The cancel comes while a wait is being made: before its job is in the group, or before it is armed. */
TEST(groups_are_cancelled_while_waits_begin)
{
    ns::pool pool(workers(3));
    auto busy = [](ns::pool &, ns::group g) -> ns::task<> {
        counted c;
        for (;;)
            co_await g.enter();
    };
    for (int round = 0; round < 1500; round++) {
        ns::group group(pool, static_cast<std::size_t>(round % 2 ? 0 : 3));
        for (int i = 0; i < 4; i++)
            group.spawn(busy(pool, group));
        for (int spin = 0; spin < round % 50 * 20; spin++)
            static_cast<void>(group.length());
        group.cancel();
        EVENTUALLY(counted::live == 0);
    }
}

TEST(a_pool_ends_under_running_tasks)
{
    auto busy = [](ns::pool &in, ns::group g, int fd) -> ns::task<> {
        counted c;
        for (int i = 0;; i++) {
            co_await in.writable(fd, 1s);
            co_await add(in, 1, 2);
            if (i % 2)
                co_await g.enter();
            else
                co_await in.enter();
        }
    };
    for (int round = 0; round < 100; round++) {
        std::atomic<int> others{0};
        {
            pair ends;
            ns::options o = workers(2);
            o.on_exception = [&](std::exception_ptr) { others++; };
            ns::pool pool(o);
            ns::group group(pool);
            for (int i = 0; i < 10; i++)
                pool.spawn(busy(pool, group, ends.a.get()));
            std::this_thread::sleep_for(std::chrono::microseconds(round * 10));
        }
        CHECK(counted::live == 0 && others == 0);
    }
}

TEST(a_task_waits_for_signals)
{
    std::atomic<int> seen{0};
    ns::pool pool;
    auto watch = [](ns::pool &in, std::atomic<int> &out) -> ns::task<> {
        co_await in.signal(SIGUSR2);
        out++;
    };
    std::signal(SIGUSR2, SIG_IGN);
    pool.spawn(watch(pool, seen));
    while (seen == 0) {
        kill(getpid(), SIGUSR2);
        std::this_thread::sleep_for(1ms);
    }
}
