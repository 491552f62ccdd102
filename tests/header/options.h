/*
 * Options of a pool
 *
 * Beside its config, a pool can be given options, which grow from version to version:
 *
 *     struct ns_thrpool_options options;
 *     ns_thrpool_options_init(&options, sizeof options);
 *     options.name = "ldap";
 *     options.queue_limit = 1000;
 *     tp = ns_thrpool_new_with(&config, &options);
 *
 * Overload. With queue_limit, an add of an armed run-now job with NS_JOB_THREAD that finds so many of
 * those waiting for workers returns NS_OVERLOADED, and nothing has happened: a daemon answers "busy"
 * instead of running out of memory. It is logged at LOG_DEBUG. What waits in groups does not count: see
 * ns_group_set_limit. The limit may be passed by as many jobs as there are threads that add at that
 * moment. Never refused are a job that fires or is armed again, the first rearm of an unarmed job
 * included, and what a worker of the pool adds in a callback. What the loop adds may be refused: that is
 * where daemons take requests in.
 *
 * Environment. NUNC_STANS_FRAMEWORK names the event framework of each pool whose options name none, or
 * that has no options. A program with privileges of its own (setuid, file capabilities) does not look
 * at it. Empty is as if it were not set. It does not count for pools with NS_POOL_CALLER_LOOP.
 */

struct ns_slow_call;
