/*
 * The loop in the caller's thread
 *
 * A pool that is made with NS_POOL_CALLER_LOOP starts no loop thread. Instead, a thread of the application
 * acts as the loop while it is inside ns_thrpool_run or ns_thrpool_turn, and callbacks without
 * NS_JOB_THREAD run there. So a pool can live in another event loop (GLib, libuv, Qt, libevent), or serve a
 * language whose callbacks must all come on one thread:
 *
 *     options.flags = NS_POOL_CALLER_LOOP;
 *     tp = ns_thrpool_new_with(&config, &options);
 *     watch(ns_thrpool_get_wait_fd(tp), READABLE, on_ready);
 *
 *     void on_ready(void) { ns_thrpool_turn(tp, &zero); }
 *
 * A thread with nothing else to do can call ns_thrpool_run instead, which returns when the pool has
 * stopped.
 *
 * Who is the loop. Whatever this header says of "the loop thread" applies to the thread that is inside one
 * of these calls. While no thread is inside, work for the loop waits. Different threads may be the loop one
 * after the other; each sees what the one before wrote. For ns_job_wait and the other waits, the thread that
 * was last inside counts as the loop thread: there they return NS_INVALID_STATE, because they would wait for
 * work that only this thread could run.
 *
 * Threads. The library does not touch the caller's signal mask and thread name, and does not call
 * thread_start_fct and thread_end_fct for it. A signal that a job watches must be unblocked in some thread.
 * max_threads may be 0: then the pool starts no thread at all, and adding a job with NS_JOB_THREAD returns
 * NS_INVALID_REQUEST. The loop then also does closes that linger. A callback must not end the thread
 * (pthread_exit): the process would end.
 *
 * The end. Before the shutdown, ns_thrpool_wait only waits. After the shutdown (also if that comes during
 * the wait) it acts as the loop itself until the pool has stopped, if its caller was the last thread inside,
 * if no thread ever was inside, or if the thread that was last inside has ended. If several threads wait,
 * one of them is the loop. In all other cases ns_thrpool_wait waits for the thread that was last inside to
 * go on turning the pool. ns_thrpool_destroy acts as the loop whichever thread calls it; it first waits for
 * a thread that is inside. So a thread that calls shutdown, wait and destroy without another turn does not
 * hang. Once ns_thrpool_turn has returned NS_SHUTDOWN, the wait descriptor is readable only for jobs and
 * groups that were finished with. Stop watching it before ns_thrpool_destroy, which closes it.
 *
 * Pools with this flag ignore NUNC_STANS_FRAMEWORK: they are native unless their options say otherwise.
 */
