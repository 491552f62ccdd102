/* SPDX-License-Identifier: GPL-3.0-or-later */
/* nunc-stans.hpp: pools, jobs and groups with callbacks. */
#include "test.hpp"

#include <csignal>
#include <fcntl.h>
#include <mutex>
#include <poll.h>

TEST(a_posted_callable_runs_once_and_is_destroyed)
{
    std::atomic<int> runs{0};
    ns::pool pool(workers(2));
    for (int i = 0; i < 100; i++)
        pool.post([&, c = counted()] { runs++; }, i % 2 ? ns::how::in_loop : ns::how::in_worker);
    EVENTUALLY(runs == 100 && counted::live == 0);
    CHECK(runs == 100);
}

TEST(callables_need_not_be_copyable)
{
    std::atomic<int> sum{0};
    ns::pool pool;
    pool.post([&sum, p = std::make_unique<int>(5)] { sum += *p; });
    EVENTUALLY(sum == 5);
}

TEST(a_cancelled_timer_never_runs_and_lets_go_of_what_it_captured)
{
    ns::pool pool;
    ns::job job = pool.after(1h, [c = counted()] { std::abort(); });
    CHECK(job);
    CHECK(job.cancel() == NS_SUCCESS);
    CHECK(!job);
    CHECK(job.cancel() == NS_DELETING);
    CHECK(job.try_rearm() == NS_DELETING);
    EVENTUALLY(counted::live == 0);
}

TEST(a_job_object_owns_its_job)
{
    ns::pool pool(workers(2));
    std::atomic<int> runs{0};
    {
        ns::job clock = pool.every(100us, [&runs, c = counted()] { runs++; });
        EVENTUALLY(runs >= 3);
    }
    EVENTUALLY(counted::live == 0);
    int after = runs;
    std::atomic<bool> later{false};
    ns::job other = pool.after(5ms, [&] { later = true; });
    EVENTUALLY(later);
    CHECK(runs == after);
    /* Assigned to, it lets go of what it had. */
    ns::job first = pool.after(1h, [c = counted()] {});
    first = pool.after(1h, [] {});
    EVENTUALLY(counted::live == 0);
    ns::job moved = std::move(first);
    CHECK(moved && !first);
}

TEST(cancelled_from_inside_the_callback_goes_on_to_its_end)
{
    ns::pool pool(workers(2));
    std::atomic<bool> ended{false};
    ns::job job;
    std::atomic<bool> made{false};
    job = pool.run([&, c = counted(), text = std::string(1000, 'x')] {
        EVENTUALLY(made);
        CHECK(job.cancel() == NS_SUCCESS);
        CHECK(counted::live > 0 && text[999] == 'x');
        job = ns::job();
        CHECK(text[999] == 'x');
        ended = true;
    });
    made = true;
    EVENTUALLY(ended && counted::live == 0);
}

TEST(cancelled_while_it_runs_on_another_thread)
{
    ns::pool pool(workers(2));
    std::atomic<bool> inside{false}, go{false};
    ns::job job = pool.run([&, c = counted()] {
        inside = true;
        EVENTUALLY(go);
    });
    EVENTUALLY(inside);
    CHECK(job.cancel() == ns::running);
    CHECK(counted::live == 1);
    go = true;
    EVENTUALLY(counted::live == 0);
}

TEST(the_owner_rearms_an_idle_job)
{
    ns::pool pool;
    std::atomic<int> runs{0};
    ns::job job = pool.run([&] { runs++; });
    for (int i = 1; i <= 50; i++) {
        EVENTUALLY(runs == i);
        if (i < 50)
            job.rearm();
    }
    ns::job timer = pool.after(1h, [] {});
    CHECK(timer.try_rearm() == NS_INVALID_STATE);
    try {
        timer.rearm();
        CHECK(false);
    } catch (const ns::error &e) {
        CHECK(e.code() == NS_INVALID_STATE);
        CHECK(std::string(e.what()).find("NS_INVALID_STATE") != std::string::npos);
    }
}

TEST(detached_jobs_end_by_themselves)
{
    ns::pool pool(workers(2));
    std::atomic<int> runs{0};
    ns::job idle = pool.run([&, c = counted()] { runs++; });
    EVENTUALLY(runs == 1);
    idle.detach(); /* idle already */
    EVENTUALLY(counted::live == 0);
    pool.after(1ms, [&, c = counted()] { runs++; }).value().detach(); /* armed */
    EVENTUALLY(runs == 2 && counted::live == 0);
    pool.after(100us, [&, c = counted()](ns::event &e) {
            if (++runs < 10)
                e.rearm();
        }).value().detach();
    EVENTUALLY(runs == 10 && counted::live == 0);
    pool.every(100us, [&, c = counted()](ns::event &e) {
            if (++runs == 20)
                e.done();
        }).value().detach();
    EVENTUALLY(counted::live == 0);
    CHECK(runs == 20);
    /* Whenever the detaching comes, relative to the run. */
    for (int i = 0; i < 2000; i++) {
        ns::job job = pool.run([c = counted()] {});
        job.detach();
    }
    EVENTUALLY(counted::live == 0);
}

TEST(one_job_reads_then_writes)
{
    pair ends;
    std::string got;
    std::atomic<bool> finished{false};
    ns::pool pool;
    ns::job job = pool.on_readable(ends.a.get(), [&](ns::event &e) {
        char data[16];
        if (e.readable()) {
            ssize_t n = read(e.fd(), data, sizeof data);
            got.assign(data, static_cast<std::size_t>(std::max<ssize_t>(n, 0)));
            CHECK(e.rearm_for(NS_JOB_WRITE, 10s) == NS_SUCCESS);
        } else if (e.writable()) {
            CHECK(write(e.fd(), got.data(), got.size()) == 4);
            e.rearm_for(NS_JOB_READ, 1ms);
        } else {
            CHECK(e.timed_out());
            finished = true;
        }
    });
    CHECK(write(ends.b.get(), "ping", 4) == 4);
    EVENTUALLY(finished);
    char back[8];
    CHECK(read(ends.b.get(), back, sizeof back) == 4);
}

struct connection {
    std::atomic<int> calls{0};
    void on_data(ns::event &e)
    {
        char byte;
        if (read(e.fd(), &byte, 1) == 1)
            calls++;
        e.rearm();
    }
    void on_tick() { calls++; }
};

TEST(member_functions_are_callbacks)
{
    pair ends;
    connection c;
    ns::pool pool;
    ns::job reader = pool.on_readable(ends.a.get(), ns::member(&connection::on_data, &c));
    ns::job clock = pool.after(1ms, ns::member(&connection::on_tick, &c));
    CHECK(write(ends.b.get(), "xy", 2) == 2);
    EVENTUALLY(c.calls == 3);
}

TEST(an_exception_is_reported_and_ends_its_job_alone)
{
    std::mutex mutex;
    std::vector<std::string> reports;
    ns::options o = workers(2);
    o.on_exception = [&](std::exception_ptr thrown) {
        std::lock_guard<std::mutex> guard(mutex);
        try {
            std::rethrow_exception(thrown);
        } catch (const std::exception &e) {
            reports.push_back(e.what());
            throw; /* contained as well */
        } catch (int n) {
            reports.push_back(std::to_string(n));
        }
    };
    auto count = [&] {
        std::lock_guard<std::mutex> guard(mutex);
        return reports.size();
    };
    ns::pool pool(o);
    pool.post([c = counted()] { throw std::runtime_error("in a worker"); });
    EVENTUALLY(count() == 1);
    pool.post([c = counted()] { throw 7; }, ns::how::in_loop);
    EVENTUALLY(count() == 2);
    ns::job clock = pool.every(100us, [c = counted()] { throw std::runtime_error("each time"); });
    EVENTUALLY(count() == 3 && counted::live == 0);
    CHECK(!clock);
    ns::job rearmed = pool.after(0s, [](ns::event &e) {
        e.rearm();
        throw 8;
    });
    EVENTUALLY(count() == 4);
    std::atomic<bool> goes_on{false};
    pool.post([&] { goes_on = true; });
    EVENTUALLY(goes_on);
    CHECK(reports[0] == "in a worker" && reports[1] == "7" && reports[2] == "each time");
}

TEST(errors_are_exceptions_or_results)
{
    ns::pool pool;
    auto wrong = pool.on_readable(-1, [c = counted()] {});
    CHECK(!wrong && wrong.code() == NS_INVALID_REQUEST);
    try {
        ns::job job = pool.on_signal(SIGKILL, [c = counted()] {});
        CHECK(false);
    } catch (const ns::error &e) {
        CHECK(e.code() == NS_INVALID_REQUEST);
    }
    auto right = pool.after(1h, [] {});
    CHECK(right && *right);
    pool.shutdown();
    CHECK(pool.is_shutdown());
    CHECK(pool.try_post([c = counted()] {}) == NS_SHUTDOWN);
    try {
        pool.post([c = counted()] {});
        CHECK(false);
    } catch (const ns::error &e) {
        CHECK(e.code() == NS_SHUTDOWN);
    }
    pool.wait();
    CHECK(pool.wait_for(1s));
    ns::options none = workers(0);
    try {
        ns::pool impossible(none);
        CHECK(false);
    } catch (const ns::error &) {
    }
}

TEST(waiting_for_a_pool_has_a_time_limit)
{
    ns::pool pool;
    CHECK(!pool.wait_for(1ms));
    pool.post([&] {
        try {
            pool.wait();
            CHECK(false);
        } catch (const ns::error &e) {
            CHECK(e.code() == NS_THREAD_FAILURE);
        }
        pool.shutdown();
    });
    pool.wait();
}

TEST(a_pool_ends_with_jobs_in_every_state)
{
    for (int round = 0; round < 50; round++) {
        pair ends;
        std::vector<ns::job> jobs;
        std::vector<ns::group> groups;
        std::atomic<int> ran{0};
        {
            ns::pool pool(workers(3));
            ns::group group(pool), held(pool, 2);
            groups.push_back(group);
            held.suspend();
            jobs.push_back(pool.run([&, c = counted()] { ran++; })); /* idle */
            jobs.push_back(pool.after(1h, [c = counted()] {}));      /* armed */
            jobs.push_back(pool.every(50us, [c = counted()] {}));    /* at work */
            jobs.push_back(pool.on_readable(ends.a.get(), [c = counted()] {}));
            jobs.push_back(group.after(1h, [c = counted()] {}));
            jobs.push_back(group.run([&, c = counted()] { ran++; })); /* idle, in a group */
            jobs.push_back(held.run([c = counted()] {}));             /* queued, held up */
            pool.every(50us, [c = counted()] {}).value().detach();
            pool.after(1h, [c = counted()] {}).value().detach();
            held.post([held, c = counted()] { std::abort(); }); /* holds its own group */
            pool.post([c = counted()] { std::this_thread::sleep_for(100us); });
            if (round % 2)
                EVENTUALLY(ran == 2);
        }
        CHECK(counted::live == 0);
        for (auto &job : jobs)
            CHECK(!job && job.cancel() == NS_DELETING && job.try_rearm() == NS_DELETING);
        ns::group group = groups[0];
        CHECK(group.cancel() == NS_SHUTDOWN && group.suspend() == NS_SHUTDOWN);
        CHECK(group.length() == 0 && !group.is_current());
        CHECK(group.try_post([c = counted()] {}) == NS_SHUTDOWN);
    }
}

TEST(a_group_runs_one_at_a_time_and_in_order)
{
    enum { THREADS = 4, EACH = 2000 };
    long plain = 0;
    std::vector<int> order[THREADS];
    std::atomic<bool> overlap{false}, busy{false};
    ns::pool pool(workers(3));
    ns::group group(pool);
    std::vector<std::thread> threads;
    for (int t = 0; t < THREADS; t++)
        threads.emplace_back([&, t] {
            for (int i = 0; i < EACH; i++)
                group.post(
                    [&, t, i] {
                        if (busy.exchange(true))
                            overlap = true;
                        plain++;
                        order[t].push_back(i);
                        CHECK(group.is_current());
                        busy = false;
                    },
                    i % 50 ? ns::how::in_worker : ns::how::in_loop);
        });
    for (auto &thread : threads)
        thread.join();
    CHECK(group.wait());
    CHECK(plain == THREADS * EACH && !overlap);
    for (auto &each : order)
        for (int i = 0; i < EACH; i++)
            CHECK(each[static_cast<std::size_t>(i)] == i);
}

TEST(a_cancelled_group_lets_go_of_all_at_once)
{
    ns::pool pool(workers(2));
    {
        ns::group group(pool);
        group.suspend();
        ns::job owned = group.after(1h, [group, c = counted()] {});
        for (int i = 0; i < 100; i++)
            group.post([group, c = counted()] { std::abort(); });
        CHECK(group.length() == 100 && counted::live == 101);
        CHECK(!group.wait(1ms));
        CHECK(group.cancel() == NS_SUCCESS);
        ns_result_t again = group.cancel(); /* callables may be being destroyed meanwhile */
        CHECK(again == NS_SUCCESS || again == ns::running);
        CHECK(!owned && owned.cancel() == NS_DELETING);
        CHECK(group.try_post([c = counted()] {}) == NS_DELETING);
        EVENTUALLY(counted::live == 0);
        CHECK(group.resume() == NS_SUCCESS && group.wait());
    }
    /* Cancelled by one of its own callbacks. */
    ns::group group(pool);
    std::atomic<bool> cancelled{false};
    group.post([&, c = counted()] {
        group.post([c = counted()] { std::abort(); });
        CHECK(group.cancel() == NS_SUCCESS);
        cancelled = true;
    });
    EVENTUALLY(cancelled && counted::live == 0);
}

TEST(too_much_work_is_refused)
{
    ns::options o = workers(1);
    o.queue_limit = 10;
    ns::pool pool(o);
    std::atomic<bool> go{false};
    std::atomic<int> ran{0};
    pool.post([&] { EVENTUALLY(go); });
    int accepted = 0;
    while (pool.try_post([&, c = counted()] { ran++; }) == NS_SUCCESS)
        accepted++;
    CHECK(accepted == 10 || accepted == 9); /* whether the first had begun */
    go = true;
    EVENTUALLY(ran == accepted);
    std::atomic<int> from_worker{0};
    pool.post([&] {
        for (int i = 0; i < 100; i++)
            pool.post([&] { from_worker++; }); /* never refused */
    });
    EVENTUALLY(from_worker == 100);
    CHECK(pool.try_post([] {}) == NS_SUCCESS);
    ns::group group(pool);
    group.limit(3);
    group.suspend();
    for (int i = 0; i < 3; i++)
        group.post([] {});
    CHECK(group.try_post([c = counted()] {}) == ns::overloaded);
    group.resume();
    group.wait();
}

TEST(who_closes_the_descriptor)
{
    pair kept, given;
    int number = given.a.get();
    ns::pool pool;
    {
        ns::job keeps = pool.on_readable(kept.a.get(), [c = counted()] {});
        ns::job closes = pool.on_readable(given.a.release(), [c = counted()] {}, ns::how::closes);
    }
    EVENTUALLY(counted::live == 0);
    CHECK(fcntl(kept.a.get(), F_GETFD) != -1);
    CHECK(fcntl(number, F_GETFD) == -1);
}

TEST(signals_arrive_as_jobs)
{
    std::atomic<int> seen{0};
    ns::pool pool;
    ns::job job = pool.on_signal(SIGUSR1, [&] { seen++; }, ns::how::persist);
    kill(getpid(), SIGUSR1);
    EVENTUALLY(seen == 1);
    kill(getpid(), SIGUSR1);
    EVENTUALLY(seen == 2);
}

TEST(a_cadence_does_not_drift)
{
    std::atomic<int> ticks{0};
    ns::pool pool;
    auto begin = std::chrono::steady_clock::now();
    ns::job job = pool.every(2ms, [&] { ticks++; }, ns::how::cadence);
    EVENTUALLY(ticks >= 10);
    CHECK(std::chrono::steady_clock::now() - begin >= 20ms);
    /* More than a century, less than nothing. */
    ns::job never = pool.after(std::chrono::hours::max(), [] { std::abort(); });
    std::atomic<bool> at_once{false};
    ns::job now = pool.after(-5s, [&] { at_once = true; });
    EVENTUALLY(at_once);
}

TEST(a_pool_made_in_c_is_adopted)
{
    ns_thrpool_config config;
    ns_thrpool_config_init(&config);
    ns::pool pool(ns_thrpool_new(&config), {});
    ns::pool moved(std::move(pool));
    CHECK(moved.framework() == "native" && moved.native() != nullptr);
    std::atomic<bool> ran{false};
    moved.post([&] { ran = true; });
    EVENTUALLY(ran);
    try {
        ns::pool none(nullptr, {});
        CHECK(false);
    } catch (const ns::error &) {
    }
}

TEST(the_caller_is_the_loop)
{
    ns::options o = workers(0);
    o.caller_loop = true;
    std::thread::id here = std::this_thread::get_id();
    int runs = 0;
    {
        ns::pool pool(o);
        pollfd ready{pool.wait_fd(), POLLIN, 0};
        CHECK(pool.turn(0s) == ns::timed_out && poll(&ready, 1, 0) == 0);
        ns::job clock = pool.every(
            1ms,
            [&, c = counted()] {
                CHECK(std::this_thread::get_id() == here);
                runs++;
            },
            ns::how::in_loop);
        while (runs < 5) {
            CHECK(poll(&ready, 1, 20000) == 1);
            ns_result_t code = pool.turn(0s);
            CHECK(code == NS_SUCCESS || code == ns::timed_out);
        }
        auto refused = pool.after(1s, [] {}); /* there is no worker */
        CHECK(refused.code() == NS_INVALID_REQUEST);
        ns::job last = pool.after(1ms, [&] { pool.shutdown(); }, ns::how::in_loop);
        pool.run_loop();
        CHECK(pool.turn(0s) == NS_SHUTDOWN);
    }
    {
        ns::pool pool(o); /* ends without another turn */
        pool.every(1us, [c = counted()] {}, ns::how::in_loop).value().detach();
        pool.turn(1s);
    }
    CHECK(counted::live == 0);
}

/* Jobs fire, are rearmed from outside and inside, cancelled from three threads and by their groups, and
 * detached, all at once: the sanitizers look on, and each callable is destroyed. */
TEST(handles_race_with_callbacks_and_cancels)
{
    for (int round = 0; round < 60; round++) {
        ns::pool pool(workers(3));
        std::vector<ns::job> jobs;
        ns::group group(pool, 2);
        for (int i = 0; i < 60; i++) {
            auto work = [c = counted(), text = std::string(64, 'x')](ns::event &e) {
                if (text[63] != 'x')
                    std::abort();
                e.rearm();
            };
            ns::scheduler &where = i % 2 ? static_cast<ns::scheduler &>(group) : pool;
            if (i % 3)
                jobs.push_back(where.after(std::chrono::microseconds(i * 5), work));
            else
                jobs.push_back(where.run(work));
        }
        std::vector<std::thread> threads;
        for (int t = 0; t < 3; t++)
            threads.emplace_back([&, t] {
                for (std::size_t i = 0; i < jobs.size(); i++) {
                    auto &job = jobs[t % 2 ? jobs.size() - 1 - i : i];
                    if (t == 2)
                        job.try_rearm();
                    else
                        job.cancel();
                    if (t == 1 && i == 30)
                        group.cancel();
                }
            });
        for (auto &thread : threads)
            thread.join();
        EVENTUALLY(counted::live == 0);
    }
}
