/* ---- Looking in: statistics ---- */

/*
 * A pool always keeps statistics. They cost a few instructions per job, and no system call. Any thread may
 * read them, callbacks included, at any time until ns_thrpool_destroy begins.
 *
 *     struct ns_thrpool_stats stats;
 *     ns_thrpool_stats_init(&stats, sizeof stats);
 *     ns_thrpool_get_stats(tp, &stats);
 *
 * ns_thrpool_format_stats writes the same as text for Prometheus. docs/OBSERVING.md says what to look at.
 *
 * This version does not measure how long jobs wait and how long callbacks take: the histograms and times at
 * the end of the struct are zero.
 */
