/* The results that 0.2 does not have. See enum _ns_result_t for NS_EXTENDED_RESULTS. #ifdef works
 * either way. */
#ifndef NS_EXTENDED_RESULTS
/** The time of ns_job_timedwait is up. */
#define NS_TIMEOUT ((ns_result_t)7)
/** ns_job_cancel, ns_group_cancel: a run had begun on another thread. */
#define NS_RUNNING ((ns_result_t)8)
/** Too many jobs wait already. Nothing happened. */
#define NS_OVERLOADED ((ns_result_t)9)
#else
#define NS_TIMEOUT NS_TIMEOUT
#define NS_RUNNING NS_RUNNING
#define NS_OVERLOADED NS_OVERLOADED
#endif
