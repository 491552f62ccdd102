/* SPDX-License-Identifier: GPL-3.0-or-later */
/* With additional permission to link OpenSSL: see COPYING.openssl. */
/*
 * nunc-stans-jobs.hpp - what nunc-stans.hpp, which includes it, says of results, jobs and events
 *
 * In `detail`, what a job's owner and the library share, and what a job needs of its pool and group. Include
 * nunc-stans.hpp.
 */
#ifndef NUNC_STANS_JOBS_HPP
#define NUNC_STANS_JOBS_HPP

#include "nunc-stans.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>

namespace nunc_stans {

/** The results that nunc-stans.h has as macros with casts. */
inline constexpr ns_result_t timed_out{7u}, running{8u}, overloaded{9u};

/** A call was refused. */
class error : public std::runtime_error {
public:
    error(ns_result_t code, const char *call)
        : std::runtime_error(std::string(call) + ": " + ns_result_name(code) + ", " +
                             ns_result_message(code)),
          code_(code)
    {
    }
    ns_result_t code() const noexcept { return code_; }

private:
    ns_result_t code_;
};

/** A value, or why there is none. Converts to the value, or throws ns::error. */
template <class T> class [[nodiscard]] result {
public:
    result(T value) : value_(std::move(value)) {}
    result(ns_result_t code, const char *call) : code_(code), call_(call) {}
    explicit operator bool() const noexcept { return value_.has_value(); }
    ns_result_t code() const noexcept { return code_; }
    T &operator*() & { return *value_; }
    T *operator->() { return &*value_; }
    T value() &&
    {
        if (!value_)
            throw error(code_, call_);
        return std::move(*value_);
    }
    operator T() && { return std::move(*this).value(); }

private:
    std::optional<T> value_;
    ns_result_t code_ = NS_SUCCESS;
    const char *call_ = "";
};

/** How a job runs; or them together. By default once, in a worker; its descriptor stays open. */
enum class how : ns_job_type_t {
    in_worker = 0,
    /** In the loop, where nothing may block. */
    in_loop = 1,
    /** Again whenever its callback has returned. */
    persist = NS_JOB_PERSIST,
    /** every(): at multiples of the time, without drift. */
    cadence = NS_JOB_CADENCE,
    /** The library closes the descriptor when the job is gone. */
    closes = 2,
};
constexpr how operator|(how a, how b)
{
    return static_cast<how>(static_cast<ns_job_type_t>(a) | static_cast<ns_job_type_t>(b));
}

/** A time-out of an I/O job or wait, or none. */
using timeout = std::optional<std::chrono::microseconds>;

class event;
class job;
class group;
class scheduler;

namespace detail {

struct job_state;

/* What outlives a pool for the sake of the handles that do. */
struct pool_state {
    ns_thrpool_t *tp = nullptr;
    std::function<void(std::exception_ptr)> on_exception;
    std::size_t queue_limit = 0;
    std::atomic<std::size_t> queued{0};
    /* Guards the list of jobs. Taken last, and never while others' code runs. */
    std::mutex mutex;
    job_state *jobs = nullptr;

    void report(std::exception_ptr thrown) noexcept
    {
        try {
            if (on_exception) {
                on_exception(thrown);
                return;
            }
            std::rethrow_exception(thrown);
        } catch (const std::exception &e) {
            std::fprintf(stderr, "nunc-stans: exception in a callback: %s\n", e.what());
        } catch (...) {
            std::fprintf(stderr, "nunc-stans: exception in a callback\n");
        }
    }
};

/* The pool whose worker this thread is, while it is in a callback. */
inline thread_local const pool_state *working = nullptr;

class in_callback {
public:
    in_callback(const pool_state &pool, ns_job_t *raw) : before_(working)
    {
        working = ns_job_get_type(raw) & NS_JOB_THREAD ? &pool : nullptr;
    }
    ~in_callback() { working = before_; }
    in_callback(const in_callback &) = delete;

private:
    const pool_state *before_;
};

/*
 * A group's part that its handles and jobs share. The mutex is that of all calls on the group's jobs from
 * outside their callbacks, and of ns_group_cancel: after that nobody may name the jobs any more, so who
 * names one looks at `cancelled` under the mutex first. No call under it waits.
 */
struct group_state {
    std::shared_ptr<pool_state> pool;
    ns_group_t *raw = nullptr;
    std::mutex mutex;
    bool cancelled = false;
    /* Its done callback has run: raw is no more. */
    bool gone = false;
    std::size_t limit = 0;
    /* Keeps this until the done callback. */
    std::shared_ptr<group_state> self;
};

/* The handles' hold; the jobs have their own. */
struct group_hold {
    std::shared_ptr<group_state> state;
    explicit group_hold(std::shared_ptr<group_state> held) : state(std::move(held)) {}
    group_hold(const group_hold &) = delete;
    ~group_hold()
    {
        std::lock_guard<std::mutex> guard(state->mutex);
        if (!state->gone)
            ns_group_release(state->raw);
    }
};

/*
 * A job's part that its handle and the library's job share. `raw` is what may be finished with: whoever
 * finishes with the job takes it, under lock(). So the handle dangles never: it finds null. The job's
 * own callback needs no such care: in it the job lives.
 */
struct job_state : std::enable_shared_from_this<job_state> {
    std::shared_ptr<pool_state> pool;
    std::shared_ptr<group_state> group;
    ns_job_t *raw = nullptr;
    bool listed = false, detached = false, persist = false, counted = false;
    /* A job that is not PERSIST is idle when it has run as often as it was armed. */
    unsigned long armings = 0, runs = 0;
    std::mutex own;
    /* The library's share in this: from the add until the done callback. */
    std::shared_ptr<job_state> self;
    job_state *next = nullptr, *previous = nullptr;

    virtual ~job_state() = default;
    virtual void call(event &) = 0;
    virtual void drop() noexcept = 0;

    std::mutex &lock() { return group ? group->mutex : own; }
    /* Under lock(). */
    ns_job_t *live() const { return group && group->cancelled ? nullptr : raw; }

    void link()
    {
        std::lock_guard<std::mutex> guard(pool->mutex);
        listed = true;
        next = pool->jobs;
        if (next)
            next->previous = this;
        pool->jobs = this;
    }
    void unlink()
    {
        std::lock_guard<std::mutex> guard(pool->mutex);
        if (!std::exchange(listed, false))
            return;
        (previous ? previous->next : pool->jobs) = next;
        if (next)
            next->previous = previous;
    }
    void uncount()
    {
        if (std::exchange(counted, false))
            pool->queued.fetch_sub(1, std::memory_order_relaxed);
    }
    ns_result_t cancel()
    {
        std::lock_guard<std::mutex> guard(lock());
        ns_job_t *mine = live();
        raw = nullptr;
        return mine ? ns_job_cancel(mine) : NS_DELETING;
    }
};

template <class F> struct job_of : job_state {
    std::optional<F> function;
    explicit job_of(F f) : function(std::move(f)) {}
    void call(event &e) override
    {
        if constexpr (std::is_invocable_v<F &, event &>)
            (*function)(e);
        else
            (*function)();
    }
    void drop() noexcept override { function.reset(); }
};

/* A duration for C: rounded up, not negative, at most a century. */
template <class R, class P> timeval c_time(std::chrono::duration<R, P> d)
{
    using namespace std::chrono;
    timeval tv{};
    if (duration<double>(d).count() > 3.2e9)
        tv.tv_sec = 3200000000;
    else if (d > d.zero()) {
        auto us = ceil<microseconds>(d).count();
        tv.tv_sec = static_cast<time_t>(us / 1000000);
        tv.tv_usec = static_cast<suseconds_t>(us % 1000000);
    }
    return tv;
}

/* A time-out for C, where zero is none: what is over already is a microsecond. */
inline timeval c_timeout(const timeout &t)
{
    return t ? c_time(std::max(*t, std::chrono::microseconds(1))) : timeval{};
}

/* What triggers a job. */
struct trigger {
    enum { now, time, io, signal } kind = now;
    ns_job_type_t type = 0;
    int number = -1;
    timeval tv{};

    ns_result_t add(ns_thrpool_t *tp, ns_job_func_t func, void *data, ns_job_t **raw) const
    {
        timeval copy = tv;
        ns_job_type_t unarmed = type | NS_JOB_UNARMED;
        switch (kind) {
        case time:
            return ns_add_timeout_job(tp, &copy, unarmed, func, data, raw);
        case io:
            return ns_add_fd_timeout_job(tp, number, &copy, unarmed, func, data, raw);
        case signal:
            return ns_add_signal_job(tp, number, unarmed, func, data, raw);
        default:
            return ns_add_job(tp, unarmed, func, data, raw);
        }
    }
};

constexpr ns_job_type_t c_type(how h)
{
    auto bits = static_cast<ns_job_type_t>(h);
    return (bits & (NS_JOB_PERSIST | NS_JOB_CADENCE)) | (bits & 1 ? 0 : NS_JOB_THREAD);
}

} // namespace detail

/**
 * A job in its callback, which may take it as `ns::event &`. Use it only there. A job that neither rearms
 * nor is done stays idle, its owner's; if it has none (detach()), it is then finished with.
 */
class event {
public:
    event(ns_job_t *raw, detail::job_state &state) : raw_(raw), state_(state) {}
    event(const event &) = delete;

    bool readable() const noexcept { return ns_job_get_output_type(raw_) & NS_JOB_READ; }
    bool writable() const noexcept { return ns_job_get_output_type(raw_) & NS_JOB_WRITE; }
    bool timed_out() const noexcept { return ns_job_get_output_type(raw_) & NS_JOB_TIMER; }
    int fd() const noexcept { return ns_job_get_native_fd(raw_); }
    ns_job_t *native() const noexcept { return raw_; }

    /** Arm it again when the callback returns. These throw nothing: NS_SHUTDOWN says that all ends. */
    ns_result_t rearm() noexcept
    {
        return armed([this] { return ns_job_rearm(raw_); });
    }
    /** The same for NS_JOB_READ, NS_JOB_WRITE, or both; with a time-out or without. */
    ns_result_t rearm_for(ns_job_type_t directions, timeout t = {}) noexcept
    {
        timeval tv = detail::c_timeout(t);
        return armed([&] { return ns_job_rearm_for(raw_, directions, &tv); });
    }
    /** The same, once the delay is over. */
    template <class D> ns_result_t rearm_after(D delay) noexcept
    {
        timeval tv = detail::c_time(delay);
        return armed([&] { return ns_job_rearm_after(raw_, &tv); });
    }
    /** Finish with it: this is its last run. */
    void done() noexcept
    {
        std::lock_guard<std::mutex> guard(state_.lock());
        state_.raw = nullptr;
        ns_job_done(raw_);
    }

private:
    template <class Call> ns_result_t armed(Call call) noexcept
    {
        std::lock_guard<std::mutex> guard(state_.lock());
        ns_result_t code = call();
        if (code == NS_SUCCESS)
            state_.armings++;
        return code;
    }
    ns_job_t *raw_;
    detail::job_state &state_;
};

namespace detail {
extern "C" {

inline void nunc_stans_hpp_run(ns_job_t *raw) noexcept
{
    auto &state = *static_cast<job_state *>(ns_job_get_data(raw));
    event e(raw, state);
    state.uncount();
    try {
        in_callback here(*state.pool, raw);
        state.call(e);
    } catch (...) {
        state.pool->report(std::current_exception());
        e.done();
    }
    std::lock_guard<std::mutex> guard(state.lock());
    if (++state.runs == state.armings && !state.persist && state.detached && state.raw) {
        state.raw = nullptr;
        ns_job_done(raw);
    }
}

/* The last that the library does with a job, in one of its threads. */
inline void nunc_stans_hpp_gone(ns_job_t *raw) noexcept
{
    auto &state = *static_cast<job_state *>(ns_job_get_data(raw));
    auto self = std::move(state.self);
    {
        std::lock_guard<std::mutex> guard(state.lock());
        state.raw = nullptr;
    }
    state.unlink();
    state.uncount();
    state.drop();
}

inline void nunc_stans_hpp_group_gone(ns_group_t *raw) noexcept
{
    auto self = std::move(static_cast<group_state *>(ns_group_get_data(raw))->self);
    std::lock_guard<std::mutex> guard(self->mutex);
    self->gone = true;
}

} // extern "C"
} // namespace detail

/**
 * A job and its owner. Destroyed, it cancels the job: afterwards no run begins; one that another thread
 * is in goes on, on its own copy of what the callable captured. Empty after a move.
 */
class [[nodiscard]] job {
public:
    job() noexcept = default;
    job(job &&) noexcept = default;
    job &operator=(job &&other) noexcept
    {
        job old(std::exchange(state_, std::move(other.state_)));
        return *this;
    }
    ~job() { cancel(); }

    /**
     * NS_SUCCESS: no run is in progress, but perhaps the caller's own, and none will begin. ns::running:
     * one is in progress on another thread, and is the last. NS_DELETING: it was finished with before.
     */
    ns_result_t cancel() noexcept { return state_ ? state_->cancel() : NS_DELETING; }
    /** Let it live on without an owner, until it is done, or returns without having been armed again. */
    void detach() noexcept
    {
        auto state = std::move(state_);
        if (!state)
            return;
        std::lock_guard<std::mutex> guard(state->lock());
        state->detached = true;
        ns_job_t *raw = state->live();
        if (raw && !state->persist && state->runs == state->armings) {
            state->raw = nullptr;
            ns_job_done(raw);
        }
    }
    /** Arm an idle job again. NS_INVALID_STATE: it is armed. NS_DELETING: it is finished with. */
    ns_result_t try_rearm() noexcept
    {
        if (!state_)
            return NS_DELETING;
        std::lock_guard<std::mutex> guard(state_->lock());
        ns_job_t *raw = state_->live();
        ns_result_t code = raw ? ns_job_rearm(raw) : NS_DELETING;
        if (code == NS_SUCCESS)
            state_->armings++;
        return code;
    }
    void rearm()
    {
        if (ns_result_t code = try_rearm(); code != NS_SUCCESS)
            throw error(code, "job::rearm");
    }
    /** Whether it is not finished with. Another thread may finish with it right after. */
    explicit operator bool() const noexcept
    {
        if (!state_)
            return false;
        std::lock_guard<std::mutex> guard(state_->lock());
        return state_->live() != nullptr;
    }

private:
    friend class scheduler;
    explicit job(std::shared_ptr<detail::job_state> state) : state_(std::move(state)) {}
    std::shared_ptr<detail::job_state> state_;
};

} // namespace nunc_stans

#endif /* NUNC_STANS_JOBS_HPP */
