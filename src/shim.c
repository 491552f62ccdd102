/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What stable Rust cannot do: make a va_list, catch pthread_exit, and refer to functions that may
 * not exist. */
#include <pthread.h>
#include <stdarg.h>
#include <stdlib.h>

/* Call log_fct as vsyslog is called. */
static void call_log(void (*log_fct)(int, const char *, va_list), int priority,
                     const char *format, ...)
{
    va_list args;
    va_start(args, format);
    log_fct(priority, format, args);
    va_end(args);
}

/* Pass one finished message to log_fct, as the argument of "%s", so that no '%' in it is taken for
 * a conversion. */
void nunc_stans_shim_log(void (*log_fct)(int, const char *, va_list), int priority,
                         const char *message)
{
    call_log(log_fct, priority, "%s", message);
}

static void thread_left(void *unused)
{
    (void)unused;
    abort();
}

/* Run a thread of the pool. If a callback ended the thread (pthread_exit), its job would count as
 * running for ever and the pool would wait for it, so we abort instead. */
void nunc_stans_shim_thread(void (*body)(void *), void *arg)
{
    pthread_cleanup_push(thread_left, NULL);
    body(arg);
    pthread_cleanup_pop(0);
}

/* ThreadSanitizer's functions; NULL if the process does not run under it. */
extern void __tsan_acquire(void *at) __attribute__((weak));
extern void __tsan_release(void *at) __attribute__((weak));

int nunc_stans_shim_has_tsan(void)
{
    return __tsan_acquire != NULL && __tsan_release != NULL;
}

void nunc_stans_shim_tsan_acquire(void *at)
{
    __tsan_acquire(at);
}

void nunc_stans_shim_tsan_release(void *at)
{
    __tsan_release(at);
}
