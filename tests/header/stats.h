/* ---- Looking in: statistics ---- */

/*
 * What a pool counts of itself, all the time: it costs a few instructions a job, and no system call. Any
 * thread may ask, callbacks included, at any time until ns_thrpool_destroy begins.
 *
 *     struct ns_thrpool_stats stats;
 *     ns_thrpool_stats_init(&stats, sizeof stats);
 *     ns_thrpool_get_stats(tp, &stats);
 *
 * ns_thrpool_format_stats writes the same as text for Prometheus. docs/OBSERVING.md tells what to look at.
 *
 * How long jobs wait and callbacks take is not measured in this version: the histograms and times at the
 * end of the struct are zero.
 */
