#ifdef NS_TIME32
#undef timeval

/* A time as the library takes it, at place; NULL for NULL. What is too large becomes the largest. */
static inline struct ns_time32 *ns_time32_of(const struct timeval *tv, struct ns_time32 *place)
{
    const long most = 0x7fffffffL;
    if (tv == NULL) {
        return NULL;
    }
    place->tv_sec = tv->tv_sec > most ? most : tv->tv_sec < -most ? -most : (long)tv->tv_sec;
    place->tv_usec = tv->tv_usec > most ? most : tv->tv_usec < -most ? -most : (long)tv->tv_usec;
    return place;
}

static inline ns_result_t ns_add_timeout_job_time64(struct ns_thrpool_t *tp, struct timeval *tv,
                                                    ns_job_type_t job_type, ns_job_func_t func,
                                                    void *data, struct ns_job_t **job)
{
    struct ns_time32 time;
    return ns_add_timeout_job(tp, ns_time32_of(tv, &time), job_type, func, data, job);
}

static inline ns_result_t ns_add_io_timeout_job_time64(struct ns_thrpool_t *tp,
                                                       struct PRFileDesc *fd, struct timeval *tv,
                                                       ns_job_type_t job_type, ns_job_func_t func,
                                                       void *data, struct ns_job_t **job)
{
    struct ns_time32 time;
    return ns_add_io_timeout_job(tp, fd, ns_time32_of(tv, &time), job_type, func, data, job);
}

static inline ns_result_t ns_add_fd_timeout_job_time64(struct ns_thrpool_t *tp, int fd,
                                                       struct timeval *tv, ns_job_type_t job_type,
                                                       ns_job_func_t func, void *data,
                                                       struct ns_job_t **job)
{
    struct ns_time32 time;
    return ns_add_fd_timeout_job(tp, fd, ns_time32_of(tv, &time), job_type, func, data, job);
}

static inline ns_result_t ns_job_timedwait_time64(struct ns_job_t *job, const struct timeval *tv)
{
    struct ns_time32 time;
    return ns_job_timedwait(job, ns_time32_of(tv, &time));
}

static inline ns_result_t ns_job_rearm_after_time64(struct ns_job_t *job, const struct timeval *tv)
{
    struct ns_time32 time;
    return ns_job_rearm_after(job, ns_time32_of(tv, &time));
}

static inline ns_result_t ns_job_rearm_for_time64(struct ns_job_t *job, ns_job_type_t directions,
                                                  const struct timeval *tv)
{
    struct ns_time32 time;
    return ns_job_rearm_for(job, directions, ns_time32_of(tv, &time));
}

static inline ns_result_t ns_thrpool_timedwait_time64(struct ns_thrpool_t *tp,
                                                      const struct timeval *tv)
{
    struct ns_time32 time;
    return ns_thrpool_timedwait(tp, ns_time32_of(tv, &time));
}

static inline ns_result_t ns_thrpool_turn_time64(struct ns_thrpool_t *tp, const struct timeval *tv)
{
    struct ns_time32 time;
    return ns_thrpool_turn(tp, ns_time32_of(tv, &time));
}

static inline ns_result_t ns_group_wait_time64(struct ns_group_t *group, const struct timeval *tv)
{
    struct ns_time32 time;
    return ns_group_wait(group, ns_time32_of(tv, &time));
}

#define ns_add_timeout_job ns_add_timeout_job_time64
#define ns_add_io_timeout_job ns_add_io_timeout_job_time64
#define ns_add_fd_timeout_job ns_add_fd_timeout_job_time64
#define ns_job_timedwait ns_job_timedwait_time64
#define ns_job_rearm_after ns_job_rearm_after_time64
#define ns_job_rearm_for ns_job_rearm_for_time64
#define ns_thrpool_timedwait ns_thrpool_timedwait_time64
#define ns_thrpool_turn ns_thrpool_turn_time64
#define ns_group_wait ns_group_wait_time64
#endif
