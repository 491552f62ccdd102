/* Whether a type has a flag. */
#define NS_JOB_IS_ACCEPT(type) ((type) & NS_JOB_ACCEPT)
#define NS_JOB_IS_READ(type) ((type) & NS_JOB_READ)
#define NS_JOB_IS_CONNECT(type) ((type) & NS_JOB_CONNECT)
#define NS_JOB_IS_WRITE(type) ((type) & NS_JOB_WRITE)
#define NS_JOB_IS_TIMER(type) ((type) & NS_JOB_TIMER)
#define NS_JOB_IS_SIGNAL(type) ((type) & NS_JOB_SIGNAL)
#define NS_JOB_IS_PERSIST(type) ((type) & NS_JOB_PERSIST)
#define NS_JOB_IS_THREAD(type) ((type) & NS_JOB_THREAD)
#define NS_JOB_IS_PRESERVE_FD(type) ((type) & NS_JOB_PRESERVE_FD)
#define NS_JOB_IS_SHUTDOWN_WORKER(type) ((type) & NS_JOB_SHUTDOWN_WORKER)

/* Whether a type has any direction of a descriptor. */
#define NS_JOB_IS_IO(type) ((type) & (NS_JOB_ACCEPT | NS_JOB_READ | NS_JOB_CONNECT | NS_JOB_WRITE))

/* Give a flag to a variable of type ns_job_type_t, or take it away: these assign. */
#define NS_JOB_SET_READ(type) ((type) |= NS_JOB_READ)
#define NS_JOB_SET_WRITE(type) ((type) |= NS_JOB_WRITE)
#define NS_JOB_SET_THREAD(type) ((type) |= NS_JOB_THREAD)
#define NS_JOB_UNSET_READ(type) ((type) &= ~(ns_job_type_t)NS_JOB_READ)
#define NS_JOB_UNSET_WRITE(type) ((type) &= ~(ns_job_type_t)NS_JOB_WRITE)
#define NS_JOB_UNSET_THREAD(type) ((type) &= ~(ns_job_type_t)NS_JOB_THREAD)

/*
 * Results
 */
