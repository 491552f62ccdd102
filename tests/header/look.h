/* ---- Looking in: where a pool is stuck ---- */

/*
 * There are two ways from inside the process. docs/OBSERVING.md describes those from outside: ns-top, gdb
 * and probes.
 *
 * Ask. ns_thrpool_dump reports what each job and each thread of a pool is doing, even when the loop is stuck.
 *
 * Be told. If a pool has `slow` in its options, it has a watchdog: a thread that reports each callback that
 * runs longer, while it is still running and again when it has returned, to slow_fct or to the log. The
 * watchdog sleeps while all threads of the pool sleep.
 *
 *     options.slow = (struct timeval){1, 0};
 *     options.slow_fct = on_slow_callback;
 *
 * Without a watchdog the pool does not record when a callback begins. Then a dump and ns-top show how long
 * the callback has been running since they first saw it.
 */
