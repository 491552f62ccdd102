/** The time of ns_job_timedwait is up. */
#define NS_TIMEOUT ((ns_result_t)7)
/** ns_job_cancel: a run had begun on another thread. */
#define NS_RUNNING ((ns_result_t)8)
