/* SPDX-License-Identifier: GPL-3.0-or-later */
/* With additional permission to link OpenSSL: see COPYING.openssl. */
/*
 * nunc-stans-coroutines.hpp - C++20 coroutines on a pool; nunc-stans.hpp includes it
 *
 *     ns::task<> serve(ns::pool &pool, ns::descriptor fd)
 *     {
 *         co_await pool.sleep(1s);
 *         while (co_await pool.readable(fd.get(), 30s))       false: the time is up
 *             if (!co_await answer(fd.get()))                 another task, of bool
 *                 break;
 *     }
 *     pool.spawn(serve(pool, std::move(fd)));
 *
 * A task begins when it is spawned or awaited. One that is spawned runs in the pool's workers: each wait
 * is a job, and the task goes on in that job's callback. If it is spawned on a group, or has awaited
 * group.enter(), all its later waits on the pool are jobs in that group: it shares the group's width with
 * callbacks and other tasks, until it awaits pool.enter(). Await only the waits of one pool.
 *
 * The end. A wait that can't begin throws ns::error into the task; after a shutdown, or in a group that is
 * cancelled, it throws ns::ended, which is an ns::error and ends a spawned task without a report. If the pool is destroyed, or the group cancelled, while a task waits, the wait never
 * returns: the task is destroyed where it stands, in one of the pool's threads; the destructors of its
 * locals run, and nothing after. So let locals own what is to be freed, as ns::descriptor does. An
 * exception that leaves a spawned task goes to options.on_exception; one that leaves an awaited task, to
 * who awaits it.
 *
 * Parameters live in the task; what they refer to may not. A lambda's captures live in the lambda, so do
 * not spawn a lambda that captures: pass what it needs.
 */
#ifndef NUNC_STANS_COROUTINES_HPP
#define NUNC_STANS_COROUTINES_HPP

#include "nunc-stans.hpp"

#if defined(__cpp_impl_coroutine)

namespace nunc_stans {

/** No wait begins any more: NS_SHUTDOWN, or NS_DELETING in a cancelled group. */
class ended : public error {
public:
    using error::error;
};

namespace detail {

/*
 * A spawned task with all that it awaits: one stack of coroutines, of which the innermost runs or waits.
 * Destroying the root destroys all, since each holds the one that it awaits as a temporary.
 */
struct fiber {
    std::shared_ptr<pool_state> pool;
    std::shared_ptr<group_hold> group;
    std::coroutine_handle<> root;

    static void destroy(fiber *who) noexcept
    {
        who->root.destroy();
        delete who;
    }
};

/* A wait, in the frame of the coroutine that waits. */
struct waiter {
    fiber *who = nullptr;
    std::coroutine_handle<> where;
    ns_job_type_t fired = 0;
};

/*
 * The data of a wait's job. As long as it points to the waiter, nobody but the job may resume or destroy
 * the fiber, and the job does one of the two, once: it fires, or is disposed of without. When it fires, it
 * forgets the waiter before it resumes, for then the frame may go at any moment. The ticket goes last, in
 * the done callback. (The job's own data pointer can't be what is forgotten: ns_job_set_data refuses when
 * another thread has just cancelled the job.)
 */
struct ticket {
    waiter *waits;
};

extern "C" {

inline void nunc_stans_hpp_resume(ns_job_t *raw) noexcept
{
    waiter *waits = std::exchange(static_cast<ticket *>(ns_job_get_data(raw))->waits, nullptr);
    auto pool = waits->who->pool;
    auto where = waits->where;
    waits->fired = ns_job_get_output_type(raw);
    ns_job_done(raw);
    in_callback here(*pool, raw);
    where.resume();
}

inline void nunc_stans_hpp_abandon(ns_job_t *raw) noexcept
{
    std::unique_ptr<ticket> mine(static_cast<ticket *>(ns_job_get_data(raw)));
    if (mine->waits)
        fiber::destroy(mine->waits->who);
}

} // extern "C"

/*
 * Make the job of a wait and arm it. On success another thread may have resumed the coroutine, and
 * destroyed it with the waiter, before this returns: nothing of it is touched after ns_job_rearm. The
 * group's mutex, on which ns_group_cancel waits here, is kept by a pointer on the stack. Not inlined, so
 * that no compiler moves the stack's variables into the coroutine's frame.
 */
[[gnu::noinline]] inline ns_result_t begin(waiter &waits, const trigger &by,
                                           std::shared_ptr<group_hold> hold)
{
    std::shared_ptr<group_state> group = hold ? hold->state : nullptr;
    hold.reset();
    std::unique_lock<std::mutex> guard;
    if (group) {
        guard = std::unique_lock<std::mutex>(group->mutex);
        if (group->gone || group->cancelled)
            return group->gone ? NS_SHUTDOWN : NS_DELETING;
    }
    std::unique_ptr<ticket> mine(new (std::nothrow) ticket{&waits});
    if (!mine)
        return NS_ALLOCATION_FAILURE;
    ns_job_t *raw = nullptr;
    ns_result_t code = by.add(waits.who->pool->tp, nunc_stans_hpp_resume, mine.get(), &raw);
    if (code != NS_SUCCESS)
        return code;
    ticket *with_job = mine.release();
    ns_job_set_done_cb(raw, nunc_stans_hpp_abandon);
    if (group)
        code = ns_job_set_group(raw, group->raw);
    if (code == NS_SUCCESS)
        code = ns_job_rearm(raw);
    if (code != NS_SUCCESS) {
        with_job->waits = nullptr;
        ns_job_done(raw);
    }
    return code;
}

struct promise_base {
    fiber *who = nullptr;
    std::coroutine_handle<> awaited_by;
    std::exception_ptr thrown;

    struct last {
        bool await_ready() noexcept { return false; }
        template <class P>
        [[gnu::noinline]] std::coroutine_handle<> await_suspend(std::coroutine_handle<P> self) noexcept
        {
            promise_base &promise = self.promise();
            if (promise.awaited_by)
                return promise.awaited_by;
            fiber *all = promise.who;
            try {
                if (promise.thrown)
                    std::rethrow_exception(std::move(promise.thrown));
            } catch (const ended &) {
            } catch (...) {
                all->pool->report(std::current_exception());
            }
            fiber::destroy(all);
            return std::noop_coroutine();
        }
        void await_resume() noexcept {}
    };
    std::suspend_always initial_suspend() noexcept { return {}; }
    last final_suspend() noexcept { return {}; }
    void unhandled_exception() noexcept { thrown = std::current_exception(); }
};

template <class T> struct promise : promise_base {
    std::optional<T> value;
    task<T> get_return_object();
    void return_value(T returned) { value.emplace(std::move(returned)); }
    T take() { return std::move(*value); }
};
template <> struct promise<void> : promise_base {
    /* The wait for the first run of a spawned task. */
    waiter begins;
    task<void> get_return_object();
    void return_void() noexcept {}
    void take() noexcept {}
};

} // namespace detail

/** A coroutine that has not begun. Spawn it, or await it in another, once. */
template <class T> class [[nodiscard]] task {
public:
    using promise_type = detail::promise<T>;

    task(task &&other) noexcept : self_(std::exchange(other.self_, nullptr)) {}
    task &operator=(task &&other) noexcept
    {
        std::swap(self_, other.self_);
        return *this;
    }
    ~task()
    {
        if (self_)
            self_.destroy();
    }

    bool await_ready() const noexcept { return false; }
    template <class P> std::coroutine_handle<> await_suspend(std::coroutine_handle<P> outer) noexcept
    {
        self_.promise().who = outer.promise().who;
        self_.promise().awaited_by = outer;
        return self_;
    }
    T await_resume()
    {
        if (self_.promise().thrown)
            std::rethrow_exception(std::move(self_.promise().thrown));
        return self_.promise().take();
    }

private:
    friend class scheduler;
    friend promise_type;
    explicit task(std::coroutine_handle<promise_type> self) : self_(self) {}
    std::coroutine_handle<promise_type> self_;
};

template <class T> task<T> detail::promise<T>::get_return_object()
{
    return task<T>(std::coroutine_handle<promise>::from_promise(*this));
}
inline task<void> detail::promise<void>::get_return_object()
{
    return task<void>(std::coroutine_handle<promise>::from_promise(*this));
}

/** What a wait on a pool or group is. Await it at once: it is not to be kept. */
class wait_for_event {
public:
    wait_for_event(const detail::trigger &by, std::shared_ptr<detail::group_hold> in, bool enters)
        : by_(by), in_(std::move(in)), enters_(enters)
    {
    }
    wait_for_event(const wait_for_event &) = delete;

    bool await_ready() const noexcept { return false; }
    template <class P> [[gnu::noinline]] bool await_suspend(std::coroutine_handle<P> outer)
    {
        static_assert(std::is_base_of_v<detail::promise_base, P>, "await it in an ns::task");
        waits_.who = outer.promise().who;
        waits_.where = outer;
        ns_result_t code = detail::begin(waits_, by_, in_ || enters_ ? in_ : waits_.who->group);
        if (code == NS_SUCCESS)
            return true;
        code_ = code;
        return false;
    }
    void await_resume()
    {
        if (code_ == NS_SHUTDOWN || code_ == NS_DELETING)
            throw ended(code_, "co_await");
        if (code_ != NS_SUCCESS)
            throw error(code_, "co_await");
        if (enters_)
            waits_.who->group = std::move(in_);
    }

protected:
    detail::trigger by_;
    detail::waiter waits_;
    std::shared_ptr<detail::group_hold> in_;
    bool enters_;
    ns_result_t code_ = NS_SUCCESS;
};

/** A wait for a descriptor: true if it is ready, false if the time is up. */
class wait_for_io : public wait_for_event {
public:
    using wait_for_event::wait_for_event;
    bool await_resume()
    {
        wait_for_event::await_resume();
        return !(waits_.fired & NS_JOB_TIMER);
    }
};

inline wait_for_io scheduler::readable(int fd, timeout t) const
{
    return {{detail::trigger::io, NS_JOB_READ | NS_JOB_THREAD | NS_JOB_PRESERVE_FD, fd,
             detail::c_timeout(t)}, hold_, false};
}
inline wait_for_io scheduler::writable(int fd, timeout t) const
{
    return {{detail::trigger::io, NS_JOB_WRITE | NS_JOB_THREAD | NS_JOB_PRESERVE_FD, fd,
             detail::c_timeout(t)}, hold_, false};
}
template <class D> wait_for_event scheduler::sleep(D d) const
{
    return {{detail::trigger::time, NS_JOB_THREAD, -1, detail::c_time(d)}, hold_, false};
}
inline wait_for_event scheduler::signal(int number) const
{
    return {{detail::trigger::signal, NS_JOB_THREAD, number}, hold_, false};
}
inline wait_for_event scheduler::enter() const
{
    return {{detail::trigger::now, NS_JOB_THREAD}, hold_, true};
}

inline void scheduler::spawn(task<> t)
{
    auto *who = new detail::fiber{pool_, hold_, t.self_};
    auto &waits = t.self_.promise().begins;
    t.self_.promise().who = who;
    waits.who = who;
    waits.where = std::exchange(t.self_, nullptr);
    ns_result_t code =
        detail::begin(waits, {detail::trigger::now, NS_JOB_THREAD}, who->group);
    if (code != NS_SUCCESS) {
        detail::fiber::destroy(who);
        throw error(code, "spawn");
    }
}

} // namespace nunc_stans

#endif /* __cpp_impl_coroutine */
#endif /* NUNC_STANS_COROUTINES_HPP */
