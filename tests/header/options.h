/*
 * Options of a pool
 *
 * In addition to its config, a pool can have options. Later versions may add more:
 *
 *     struct ns_thrpool_options options;
 *     ns_thrpool_options_init(&options, sizeof options);
 *     options.name = "ldap";
 *     options.queue_limit = 1000;
 *     tp = ns_thrpool_new_with(&config, &options);
 *
 * Overload. queue_limit limits how many armed run-now jobs with NS_JOB_THREAD may wait for workers. When so
 * many wait, adding another returns NS_OVERLOADED and has no effect: a daemon can answer "busy" instead of
 * running out of memory. The refusal is logged at LOG_DEBUG. What waits in groups does not count: see
 * ns_group_set_limit. The queue may exceed the limit by as many jobs as there are threads that add at that
 * moment. The limit never refuses a job that fires, a job that is armed again (the first rearm of an unarmed
 * job included), or a job that a worker of the pool adds in a callback. It may refuse what a callback in
 * the loop adds, because that is where daemons take requests in.
 *
 * Environment. NUNC_STANS_FRAMEWORK names the event framework of each pool that has no options or whose
 * options name none. Privileged programs (setuid, file capabilities) and pools with NS_POOL_CALLER_LOOP
 * ignore it. An empty value counts as unset.
 */

struct ns_slow_call;
