/* The results that 0.2 does not have: see there for the other way. #ifdef finds them in both. */
#ifndef NS_EXTENDED_RESULTS
/** The time of ns_job_timedwait is up. */
#define NS_TIMEOUT ((ns_result_t)7)
/** ns_job_cancel: a run had begun on another thread. */
#define NS_RUNNING ((ns_result_t)8)
#else
#define NS_TIMEOUT NS_TIMEOUT
#define NS_RUNNING NS_RUNNING
#endif
