/* ---- Looking in: where a pool is stuck ---- */

/*
 * Two ways from inside the process; docs/OBSERVING.md has those from outside (ns-top, gdb, probes).
 *
 * Ask. ns_thrpool_dump tells what each job and each thread of a pool does, also when the loop is stuck.
 *
 * Be told. A pool with `slow` in its options has a watchdog: a thread that reports each callback that runs
 * longer, while it still runs and again when it has returned, to slow_fct or to the log. The watchdog
 * sleeps while all threads of the pool do.
 *
 *     options.slow = (struct timeval){1, 0};
 *     options.slow_fct = on_slow_callback;
 *
 * Without a watchdog the pool does not note when a callback begins. Then a dump and ns-top tell how long it
 * has been running since they saw it first.
 */
