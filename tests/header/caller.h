/*
 * The loop in the caller's thread
 *
 * A pool that is made with NS_POOL_CALLER_LOOP starts no loop thread. A thread of the application's is
 * the loop while it is inside ns_thrpool_run or ns_thrpool_turn, and callbacks without NS_JOB_THREAD run
 * there. So a pool can live in another event loop (GLib, libuv, Qt, libevent), or serve a language whose
 * callbacks must all come on one thread:
 *
 *     options.flags = NS_POOL_CALLER_LOOP;
 *     tp = ns_thrpool_new_with(&config, &options);
 *     watch(ns_thrpool_get_wait_fd(tp), READABLE, on_ready);
 *
 *     void on_ready(void) { ns_thrpool_turn(tp, &zero); }
 *
 * Turn the pool until it is quiet, or be the loop for good: ns_thrpool_run(tp).
 *
 * Who is the loop. Whatever this header says of "the loop thread" goes for the thread that is inside.
 * While nobody is, what is due waits. Threads may be the loop one after the other, and each sees what
 * the one before wrote. To ns_job_wait and the other waits, the thread that was last inside counts as
 * the loop: they return NS_INVALID_STATE there rather than wait for what only the caller could run.
 *
 * Threads. The caller's signal mask and name are not touched, and thread_start_fct and thread_end_fct
 * are not called for it. A signal that a job watches must be unblocked in some thread. max_threads may
 * be 0: then no thread is started at all, and a job with NS_JOB_THREAD is NS_INVALID_REQUEST. A close
 * that lingers is then done in the loop. A callback must not end the thread (pthread_exit): the process
 * would end.
 *
 * The end. ns_thrpool_wait before the shutdown only waits. After the shutdown, also one that comes while
 * it waits, it is the loop itself until the pool is quiet: if its caller was the last inside, or nobody
 * ever was, or the thread that was has ended. Of several that wait, one is. Else it waits for the thread
 * that was last inside to turn the pool on. ns_thrpool_destroy is the loop whoever calls it, and waits
 * for a thread that is inside. So a thread that calls shutdown, wait and destroy without another turn
 * does not hang. Once ns_thrpool_turn has returned NS_SHUTDOWN, the wait descriptor tells only of jobs
 * and groups that were finished with: stop watching it before ns_thrpool_destroy, which closes it.
 *
 * NUNC_STANS_FRAMEWORK is not for such pools: they are native unless their options say otherwise.
 */
