/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The works of the benchmark through Asio, without Boost. */
#include "groups.h"
#include <asio.hpp>
#include <memory>
#include <optional>
#include <vector>

namespace
{

using stream = asio::generic::stream_protocol::socket;

std::optional<asio::thread_pool> pool;
std::optional<asio::io_context> io;

void workers(size_t count)
{
    pool.emplace(count);
}

void post_run_now(void *)
{
    asio::post(*pool, [] { tally_one(); });
}

void work_run_now(const struct work *work)
{
    workers(workers_of(work));
    run_now(work, post_run_now, nullptr);
}

void post_hand_off(void *)
{
    asio::post(*pool, [] { hand_off_began(); });
}

void work_hand_off(const struct work *work)
{
    workers(1);
    hand_off(work, post_hand_off, nullptr);
}

void rearm_chain(struct chain *chain)
{
    if (chain_again(chain))
        asio::post(*pool, [chain] { rearm_chain(chain); });
}

void start_chain(void *, struct chain *chain)
{
    asio::post(*pool, [chain] { rearm_chain(chain); });
}

void work_rearm(const struct work *work)
{
    workers(2);
    rearm(work, start_chain, nullptr);
}

void *run_loop(void *)
{
    auto stay = asio::make_work_guard(*io);
    io->run();
    return nullptr;
}

/* Asio saves some wake-ups if it knows that a single thread runs the loop. */
void make_loop(int threads)
{
    io.emplace(threads);
}

void start_loop(int threads)
{
    for (int i = 0; i < threads; i++)
        thread(run_loop, nullptr);
}

struct connection {
    stream socket;
    char buffer[4096];
};

void echo_again(connection *c)
{
    c->socket.async_read_some(asio::buffer(c->buffer), [c](const asio::error_code &error, size_t n) {
        asio::error_code failed = error;
        if (!failed)
            c->socket.send(asio::buffer(c->buffer, n), MSG_NOSIGNAL, failed);
        if (failed)
            delete c;
        else
            echo_again(c);
    });
}

void echo(const struct work *work, int threads)
{
    size_t count;
    int *fds = echo_connections(work, &count);
    int family = strstr(work->name, "-tcp") ? AF_INET : AF_UNIX;
    make_loop(threads);
    for (size_t i = 0; i < count; i++)
        echo_again(new connection{
            stream(*io, asio::generic::stream_protocol(family, 0), fds[i]), {}});
    free(fds);
    start_loop(threads);
    client_run(work);
}

void work_echo_loop(const struct work *work)
{
    echo(work, 1);
}

void work_echo_workers(const struct work *work)
{
    echo(work, 2);
}

void accept_again(asio::ip::tcp::acceptor *acceptor)
{
    acceptor->async_accept([acceptor](const asio::error_code &error, asio::ip::tcp::socket socket) {
        if (!error) {
            auto *s = new asio::ip::tcp::socket(std::move(socket));
            auto byte = std::make_unique<char>();
            auto buffer = asio::buffer(byte.get(), 1);
            s->async_read_some(buffer, [s, byte = std::move(byte)](const asio::error_code &failed,
                                                                   size_t n) {
                asio::error_code ignored;
                if (!failed)
                    s->send(asio::buffer(byte.get(), n), MSG_NOSIGNAL, ignored);
                delete s;
            });
        }
        accept_again(acceptor);
    });
}

void work_accept(const struct work *work)
{
    int listener = accept_listener();
    make_loop(1);
    accept_again(new asio::ip::tcp::acceptor(*io, asio::ip::tcp::v4(), listener));
    start_loop(1);
    client_run(work);
}

void *timer_add(uint64_t delay_us, struct due *due)
{
    auto *timer = new asio::steady_timer(*io, std::chrono::microseconds(delay_us));
    timer->async_wait([timer, due](const asio::error_code &error) {
        if (error)
            return; /* it was cancelled and deleted */
        timer_fired(due);
        delete timer;
    });
    return timer;
}

void timer_cancel(void *timer)
{
    delete static_cast<asio::steady_timer *>(timer);
}

/* The loop runs the handlers of the cancelled timers, with an error. */
void settle()
{
    asio::post(*io, [] { sem_post(&begun); });
    sem_wait_for(&begun);
}

const struct timers of_asio = {timer_add, timer_cancel, settle, nullptr};

void with_timers(const struct work *work,
                 void (*body)(const struct work *, const struct timers *))
{
    make_loop(2); /* the adding thread counts, too */
    start_loop(1);
    body(work, &of_asio);
}

void work_timers(const struct work *work)
{
    with_timers(work, timers);
}

void work_timers_fire(const struct work *work)
{
    with_timers(work, timers_fire);
}

void work_timers_due(const struct work *work)
{
    with_timers(work, timers_due);
}

struct watched {
    asio::posix::stream_descriptor descriptor;
    asio::steady_timer timer;
    size_t which;
};

void start_time(watched *w)
{
    w->timer.expires_after(std::chrono::seconds(IDLE_SECONDS));
    w->timer.async_wait([](const asio::error_code &) {});
}

void watch_again(watched *w)
{
    w->descriptor.async_wait(asio::posix::stream_descriptor::wait_read,
                             [w](const asio::error_code &) {
                                 idle_touched(w->which);
                                 watch_again(w);
                                 start_time(w);
                             });
}

void watch(size_t which, int fd)
{
    auto *w = new watched{asio::posix::stream_descriptor(*io, fd), asio::steady_timer(*io), which};
    watch_again(w);
    start_time(w);
}

void work_idle(const struct work *work)
{
    make_loop(2);
    start_loop(1);
    idle(work, watch, settle);
}

void signal_again(asio::signal_set *set)
{
    set->async_wait([set](const asio::error_code &, int) {
        signal_again(set);
        sem_post(&begun);
    });
}

void work_signals(const struct work *work)
{
    make_loop(1);
    signal_again(new asio::signal_set(*io, SIGUSR1));
    start_loop(1);
    signals(work);
}

/* Make a loop and two workers, and stop them again. */
void once()
{
    workers(2);
    make_loop(1);
    pthread_t looping = thread(run_loop, nullptr);
    pool->join();
    pool.reset();
    io->stop();
    pthread_join(looping, nullptr);
    io.reset();
}

void work_start_stop(const struct work *work)
{
    start_stop(work, once);
}

/* Groups are strands. Their objects are kept side by side, which costs the least. */

using strand = asio::strand<asio::thread_pool::executor_type>;

std::vector<strand> strands;

void strands_make(size_t count)
{
    strands.reserve(count);
    for (size_t i = 0; i < count; i++)
        strands.push_back(asio::make_strand(pool->get_executor()));
}

void strand_post(size_t which)
{
    asio::post(strands[which], [which] { lane_ran(which); });
}

void strand_ping(size_t which)
{
    asio::post(strands[which], [which] {
        if (ping_again())
            strand_ping(1 - which);
    });
}

void strand_burden(size_t which)
{
    asio::post(strands[which], [] { burden_carried(); });
}

const struct groups of_strands = {workers, strands_make, strand_post, strand_ping, strand_burden};

void work_groups(const struct work *work)
{
    groups(work, &of_strands);
}

void work_group_ping(const struct work *work)
{
    group_ping(work, &of_strands);
}

void work_overburdened(const struct work *work)
{
    overburdened(work, &of_strands);
}

void work_groups_idle(const struct work *work)
{
    groups_idle(work, &of_strands);
}

} // namespace

const struct work works[] = {
    {"run-now", "1x1", work_run_now},
    {"run-now", "1x2", work_run_now},
    {"run-now", "1x8", work_run_now},
    {"run-now", "2x1", work_run_now},
    {"run-now", "2x2", work_run_now},
    {"run-now", "2x8", work_run_now},
    {"run-now-window", "1x1", work_run_now},
    {"run-now-window", "1x2", work_run_now},
    {"run-now-window", "2x2", work_run_now},
    {"hand-off", "busy", work_hand_off},
    {"hand-off", "idle", work_hand_off},
    {"rearm", "1", work_rearm},
    {"rearm", "4", work_rearm},
    {"rearm", "64", work_rearm},
    {"echo-loop", "1", work_echo_loop},
    {"echo-loop", "32", work_echo_loop},
    {"echo-loop", "1000", work_echo_loop},
    {"echo-workers", "1", work_echo_workers},
    {"echo-workers", "32", work_echo_workers},
    {"echo-workers", "1000", work_echo_workers},
    {"echo-loop-tcp", "32", work_echo_loop},
    {"echo-workers-tcp", "32", work_echo_workers},
    {"accept", "16", work_accept},
    {"timers", "1000", work_timers},
    {"timers", "10000", work_timers},
    {"timers", "100000", work_timers},
    {"timers", "1000000", work_timers},
    {"timers-fire", "100000", work_timers_fire},
    {"timers-fire", "1000000", work_timers_fire},
    {"timers-due", "200000", work_timers_due},
    {"idle", "100", work_idle},
    {"idle", "1000", work_idle},
    {"idle", "19000", work_idle},
    {"signals", "1", work_signals},
    {"start-stop", "2", work_start_stop},
    {"group-post", "1x1", work_groups},
    {"group-post", "1x2", work_groups},
    {"group-post", "2x2", work_groups},
    {"group-post-window", "1x1", work_groups},
    {"group-post-window", "1x2", work_groups},
    {"groups", "1000:1x1", work_groups},
    {"groups", "1000:1x2", work_groups},
    {"groups", "1000:2x1", work_groups},
    {"groups", "1000:2x2", work_groups},
    {"groups", "10000:1x1", work_groups},
    {"groups", "10000:1x2", work_groups},
    {"groups", "10000:2x1", work_groups},
    {"groups", "10000:2x2", work_groups},
    {"groups-window", "1000:1x1", work_groups},
    {"groups-window", "1000:2x2", work_groups},
    {"groups-window", "10000:2x2", work_groups},
    {"groups-idle", "1000", work_groups_idle},
    {"groups-idle", "10000", work_groups_idle},
    {"group-ping", "1", work_group_ping},
    {"group-ping", "2", work_group_ping},
    {"overburdened", "one-loop", work_overburdened},
    {"overburdened", "all-loops", work_overburdened},
    {nullptr, nullptr, nullptr},
};
