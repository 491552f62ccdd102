/* SPDX-License-Identifier: GPL-3.0-or-later */
/* With additional permission to link OpenSSL: see COPYING.openssl. */
/*
 * nunc-stans.hpp - nunc-stans.h for C++17 and later: pools, jobs and groups as objects
 *
 *     namespace ns = nunc_stans;
 *     ns::pool pool({.workers = 4});                      (C++17: ns::options options; ...)
 *     pool.post([] { work(); });                          once, in a worker
 *     ns::job clock = pool.every(1s, [] { tick(); });     until `clock` is destroyed
 *     ns::group group(pool);                              one at a time and in order
 *     ns::job reader = group.on_readable(fd, ns::member(&connection::on_data, this));
 *
 * and, with C++20's coroutines,
 *
 *     ns::task<> serve(ns::pool &pool, ns::descriptor fd)
 *     {
 *         while (co_await pool.readable(fd.get(), 30s)) ...
 *     }
 *     pool.spawn(serve(pool, std::move(fd)));
 *
 * Errors, as you choose. What adds a job returns a result<job>: made into a job, as above, it throws
 * ns::error if there is none; kept as `auto added`, it is asked: if (!added) log(added.code()). post(),
 * rearm() and the like throw, and their twins try_post() and try_rearm() return the code. Besides, any
 * add may throw std::bad_alloc.
 *
 * Exceptions. One that leaves a callback or a task goes to options.on_exception, in the thread where it
 * was thrown, or else to the standard error output. The job is then finished with. The pool goes on.
 *
 * Lifetime. The library keeps the callable from the add until the job is gone. It destroys it then, once,
 * after the last run, in one of the pool's threads: what a lambda captures by value lives exactly as
 * long. A job object owns its job: destroying it cancels the job and does not wait. So let the callable
 * own what it uses, or destroy the pool before what its callbacks refer to. Job and group objects may
 * outlive the pool: they then refuse. The pool's destructor shuts down, waits for the callbacks, and ends
 * every job and coroutine that is left; as for ns_thrpool_destroy, no other call may be under way then,
 * but in callbacks. A pool that is destroyed by one of its own threads can't end: it leaks.
 *
 * Threads. Every member function of pool, group and job may be called from any thread, but one object is
 * not to be assigned or destroyed while another thread uses it. Callbacks run in workers, or, with
 * how::in_loop, in the loop. No lock is held while callables run or are destroyed.
 */
#ifndef NUNC_STANS_HPP
#define NUNC_STANS_HPP

#include "nunc-stans.h"

#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <new>
#include <optional>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>
#if defined(__cpp_impl_coroutine)
#include <coroutine>
#endif

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

/** How to make a pool. */
struct options {
    std::size_t workers = 1;
    std::size_t stack_size = 0;
    /** As in ns_thrpool_options; empty: the default. */
    std::string name = {}, framework = {};
    /** post() in a worker is refused with ns::overloaded when so many wait. 0: no limit. */
    std::size_t queue_limit = 0;
    void (*log)(int, const char *, va_list) = nullptr;
    /** No loop thread: who calls pool::run or pool::turn is the loop meanwhile. Then workers may be 0. */
    bool caller_loop = false;
    /** Gets what leaves callbacks and tasks. Any thread, several at once. */
    std::function<void(std::exception_ptr)> on_exception = {};
};

/** A member function and its object, as one callable: member(&connection::on_data, this). */
template <class C, class R, class... A> auto member(R (C::*function)(A...), C *object)
{
    return [function, object](A... arguments) -> R {
        return (object->*function)(std::forward<A>(arguments)...);
    };
}

/** A descriptor that is closed with the object. */
class descriptor {
public:
    explicit descriptor(int fd = -1) noexcept : fd_(fd) {}
    descriptor(descriptor &&other) noexcept : fd_(other.release()) {}
    descriptor &operator=(descriptor &&other) noexcept
    {
        std::swap(fd_, other.fd_);
        return *this;
    }
    ~descriptor()
    {
        if (fd_ >= 0)
            ::close(fd_);
    }
    int get() const noexcept { return fd_; }
    int release() noexcept { return std::exchange(fd_, -1); }

private:
    int fd_;
};

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

#if defined(__cpp_impl_coroutine)
template <class T = void> class task;
class wait_for_io;
class wait_for_event;
#endif

/** What pools and groups have in common: they are where jobs are added. A group's jobs are in it. */
class scheduler {
public:
    /** Run f once. ns::overloaded: too many wait (options.queue_limit, group::limit). */
    template <class F> ns_result_t try_post(F f, how h = how::in_worker)
    {
        auto state = std::make_shared<detail::job_of<F>>(std::move(f));
        state->detached = true;
        return start(state, {detail::trigger::now, detail::c_type(h)}, true);
    }
    template <class F> void post(F f, how h = how::in_worker)
    {
        if (ns_result_t code = try_post(std::move(f), h); code != NS_SUCCESS)
            throw error(code, "post");
    }
    /** As post, with an owner, who may rearm it. */
    template <class F> result<job> run(F f, how h = how::in_worker)
    {
        return add(std::move(f), {detail::trigger::now, detail::c_type(h)}, "run");
    }
    /** When a time has passed; every(): whenever. */
    template <class D, class F> result<job> after(D d, F f, how h = how::in_worker)
    {
        return add(std::move(f), {detail::trigger::time, detail::c_type(h), -1, detail::c_time(d)}, "after");
    }
    template <class D, class F> result<job> every(D d, F f, how h = how::in_worker)
    {
        return after(d, std::move(f), h | how::persist);
    }
    template <class F> result<job> on_signal(int number, F f, how h = how::in_worker)
    {
        return add(std::move(f), {detail::trigger::signal, detail::c_type(h), number}, "on_signal");
    }
    /** When a descriptor is ready in NS_JOB_READ, NS_JOB_WRITE or NS_JOB_CONNECT, or the time is up. */
    template <class F>
    result<job> on_io(int fd, ns_job_type_t directions, F f, how h = how::in_worker, timeout t = {})
    {
        auto type = detail::c_type(h) | directions |
                    (static_cast<ns_job_type_t>(h) & 2 ? NS_JOB_NONE : NS_JOB_PRESERVE_FD);
        return add(std::move(f), {detail::trigger::io, type, fd, detail::c_timeout(t)}, "on_io");
    }
    template <class F> result<job> on_readable(int fd, F f, how h = how::in_worker, timeout t = {})
    {
        return on_io(fd, NS_JOB_READ, std::move(f), h, t);
    }
    template <class F> result<job> on_writable(int fd, F f, how h = how::in_worker, timeout t = {})
    {
        return on_io(fd, NS_JOB_WRITE, std::move(f), h, t);
    }

#if defined(__cpp_impl_coroutine)
    /** Start a task, in a worker; in a group, if this is one. It owns itself from here on. */
    void spawn(task<> t);
    /** co_await: until the descriptor is ready: true; or the time is up: false. */
    wait_for_io readable(int fd, timeout t = {}) const;
    wait_for_io writable(int fd, timeout t = {}) const;
    /** co_await: until the time has passed, or the signal has arrived. */
    template <class D> wait_for_event sleep(D d) const;
    wait_for_event signal(int number) const;
    /** co_await: go on in this group, and after each later wait as well; in a pool, outside groups. */
    wait_for_event enter() const;
#endif

protected:
    friend class group;
    scheduler() = default;
    std::shared_ptr<detail::pool_state> pool_;
    std::shared_ptr<detail::group_hold> hold_;

private:
    template <class F> result<job> add(F f, const detail::trigger &by, const char *call)
    {
        std::shared_ptr<detail::job_state> state =
            std::make_shared<detail::job_of<F>>(std::move(f));
        ns_result_t code = start(state, by, false);
        if (code != NS_SUCCESS)
            return {code, call};
        return job(std::move(state));
    }
    /*
     * Unarmed, then done callback and group, then armed: nothing of it can run before all is set. The
     * group's mutex keeps a cancel out meanwhile, as ns_job_rearm from outside asks.
     */
    ns_result_t start(const std::shared_ptr<detail::job_state> &state, const detail::trigger &by,
                      bool posted)
    {
        if (!pool_)
            return NS_INVALID_REQUEST;
        state->pool = pool_;
        state->group = hold_ ? hold_->state : nullptr;
        state->persist = by.type & NS_JOB_PERSIST;
        detail::group_state *group = state->group.get();
        std::lock_guard<std::mutex> guard(state->lock());
        if (group && group->gone)
            return NS_SHUTDOWN;
        if (group && group->cancelled)
            return NS_DELETING;
        bool refusable = posted && detail::working != pool_.get();
        if (refusable && group && group->limit && ns_group_get_length(group->raw) >= group->limit)
            return overloaded;
        if (posted && !group && pool_->queue_limit && by.type & NS_JOB_THREAD) {
            state->counted = true;
            if (pool_->queued.fetch_add(1, std::memory_order_relaxed) >= pool_->queue_limit &&
                refusable) {
                state->uncount();
                return overloaded;
            }
        }
        ns_job_t *raw = nullptr;
        ns_result_t code = by.add(pool_->tp, detail::nunc_stans_hpp_run, state.get(), &raw);
        if (code != NS_SUCCESS) {
            state->uncount();
            return code;
        }
        state->self = state;
        state->raw = raw;
        state->armings = 1;
        ns_job_set_done_cb(raw, detail::nunc_stans_hpp_gone);
        if (group)
            code = ns_job_set_group(raw, group->raw);
        if (!posted)
            state->link();
        if (code == NS_SUCCESS)
            code = ns_job_rearm(raw);
        /* A shutdown came between. What has an owner stays idle until the pool ends, as if it had been
         * armed just before; so the library still closes the descriptor that it was given. */
        if (code == NS_SHUTDOWN && !posted)
            return NS_SUCCESS;
        if (code != NS_SUCCESS) {
            state->raw = nullptr;
            ns_job_done(raw);
        }
        return code;
    }
};

/** A pool. Its destructor ends it. */
class pool : public scheduler {
public:
    /** Throws ns::error if it can't be made; the log says why. */
    explicit pool(const options &o = {})
    {
        ns_thrpool_config config;
        ns_thrpool_config_init(&config);
        config.max_threads = o.workers;
        config.stacksize = o.stack_size;
        config.log_fct = o.log;
        ns_thrpool_options more;
        ns_thrpool_options_init(&more, sizeof more);
        more.name = o.name.empty() ? nullptr : o.name.c_str();
        more.framework = o.framework.empty() ? nullptr : o.framework.c_str();
        more.queue_limit = o.queue_limit;
        more.flags = o.caller_loop ? NS_POOL_CALLER_LOOP : 0;
        adopt(o, ns_thrpool_new_with(&config, &more));
    }
    /** Take over a pool that was made in C; of the options on_exception and queue_limit count. */
    pool(ns_thrpool_t *made, const options &o) { adopt(o, made); }
    pool(pool &&) noexcept = default;
    pool &operator=(pool &&other) noexcept
    {
        std::swap(pool_, other.pool_);
        return *this;
    }
    ~pool()
    {
        if (!pool_)
            return;
        ns_thrpool_shutdown(pool_->tp);
        if (ns_thrpool_wait(pool_->tp) == NS_THREAD_FAILURE) {
            static_cast<void>(new std::shared_ptr<detail::pool_state>(std::move(pool_)));
            return;
        }
        /* No callback runs any more. Idle jobs are ours to finish with; the library ends the others. */
        std::vector<std::shared_ptr<detail::job_state>> left;
        {
            std::lock_guard<std::mutex> guard(pool_->mutex);
            for (auto *state = pool_->jobs; state; state = state->next)
                left.push_back(state->shared_from_this());
        }
        for (auto &state : left)
            state->cancel();
        left.clear();
        ns_thrpool_destroy(pool_->tp);
    }

    void shutdown() noexcept { ns_thrpool_shutdown(pool_->tp); }
    bool is_shutdown() const noexcept { return ns_thrpool_is_shutdown(pool_->tp) != 0; }
    /** Until it is shut down and no callback runs any more. Throws in the pool's own threads. */
    void wait() { check(ns_thrpool_wait(pool_->tp)); }
    /** The same, for no longer than a time: whether it has ended. */
    template <class D> bool wait_for(D d)
    {
        timeval tv = detail::c_time(d);
        ns_result_t code = ns_thrpool_timedwait(pool_->tp, &tv);
        if (code != timed_out)
            check(code);
        return code == NS_SUCCESS;
    }
    /** With options.caller_loop: be the loop until the pool has stopped. */
    void run_loop() { check(ns_thrpool_run(pool_->tp)); }
    /** Be the loop for one turn: NS_SUCCESS, ns::timed_out if there was nothing to do, NS_SHUTDOWN. */
    template <class D> ns_result_t turn(D most)
    {
        timeval tv = detail::c_time(most);
        return ns_thrpool_turn(pool_->tp, &tv);
    }
    /** Polls readable when a turn would find something to do; for another event loop. */
    int wait_fd() const noexcept { return ns_thrpool_get_wait_fd(pool_->tp); }
    std::string framework() const { return ns_thrpool_get_framework(pool_->tp); }
    ns_thrpool_t *native() const noexcept { return pool_->tp; }

private:
    static void check(ns_result_t code)
    {
        if (code != NS_SUCCESS)
            throw error(code, "pool::wait");
    }
    void adopt(const options &o, ns_thrpool_t *tp)
    {
        if (tp == nullptr)
            throw error(NS_INVALID_REQUEST, "pool");
        pool_ = std::make_shared<detail::pool_state>();
        pool_->tp = tp;
        pool_->on_exception = o.on_exception;
        pool_->queue_limit = o.queue_limit;
    }
};

/** A group; copies are handles of the same one. It lives until they and its jobs are gone. */
class group : public scheduler {
public:
    /** width: how many of its callbacks may run at once; 0: no limit and no order. */
    explicit group(const scheduler &in, std::size_t width = 1)
    {
        pool_ = in.pool_;
        auto state = std::make_shared<detail::group_state>();
        state->pool = pool_;
        ns_result_t code = ns_group_new(pool_->tp, width, state.get(),
                                        detail::nunc_stans_hpp_group_gone, &state->raw);
        if (code != NS_SUCCESS)
            throw error(code, "group");
        state->self = state;
        hold_ = std::make_shared<detail::group_hold>(std::move(state));
    }

    /** As ns_group_cancel. Coroutines that wait in it are destroyed. */
    ns_result_t cancel() noexcept
    {
        return with([](detail::group_state &state) {
            state.cancelled = true;
            return ns_group_cancel(state.raw);
        });
    }
    /** As ns_group_wait: whether none of its jobs is armed, queued or running. Throws what it refuses. */
    bool wait(timeout t = {})
    {
        ns_group_t *raw = nullptr;
        with([&](detail::group_state &state) {
            raw = state.raw;
            return NS_SUCCESS;
        });
        timeval tv = t ? detail::c_time(*t) : timeval{};
        ns_result_t code = raw ? ns_group_wait(raw, t ? &tv : nullptr) : NS_SHUTDOWN;
        if (code != NS_SUCCESS && code != timed_out)
            throw error(code, "group::wait");
        return code == NS_SUCCESS;
    }
    ns_result_t suspend() noexcept
    {
        return with([](detail::group_state &state) { return ns_group_suspend(state.raw); });
    }
    ns_result_t resume() noexcept
    {
        return with([](detail::group_state &state) { return ns_group_resume(state.raw); });
    }
    /** post() is refused with ns::overloaded when so many wait, but in a worker. 0: no limit. */
    void limit(std::size_t most) noexcept
    {
        with([&](detail::group_state &state) {
            state.limit = most;
            return NS_SUCCESS;
        });
    }
    std::size_t length() const noexcept
    {
        std::size_t n = 0;
        with([&](detail::group_state &state) {
            n = ns_group_get_length(state.raw);
            return NS_SUCCESS;
        });
        return n;
    }
    /** Whether the caller is inside one of its callbacks, or a coroutine that runs in it. */
    bool is_current() const noexcept
    {
        return with([](detail::group_state &state) {
                   return ns_group_is_current(state.raw) ? running : NS_SUCCESS;
               }) == running;
    }

private:
    template <class Call> ns_result_t with(Call call) const noexcept
    {
        std::lock_guard<std::mutex> guard(hold_->state->mutex);
        return hold_->state->gone ? NS_SHUTDOWN : call(*hold_->state);
    }
};

} // namespace nunc_stans

#if defined(__cpp_impl_coroutine)
#include "nunc-stans-coroutines.hpp"
#endif

#endif /* NUNC_STANS_HPP */
