/* SPDX-License-Identifier: GPL-3.0-or-later */
/* With additional permission to link OpenSSL: see COPYING.openssl. */
/*
 * nunc-stans.hpp - nunc-stans.h for C++17 and later: pools, jobs and groups as objects
 * (results, jobs and events are in nunc-stans-jobs.hpp, coroutines in nunc-stans-coroutines.hpp: both are
 * included here)
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

#include "nunc-stans-jobs.hpp"

#include <unistd.h>

#include <vector>
#if defined(__cpp_impl_coroutine)
#include <coroutine>
#endif

namespace nunc_stans {

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
