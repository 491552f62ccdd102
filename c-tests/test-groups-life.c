/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Groups: how long they live. Holds and jobs keep them; when the last is gone the done callback runs, once,
 * and the memory goes. */
#include "fm.h"
#include "groups.h"

TEST(the_last_release_ends_it_and_not_inside_the_call)
{
    struct ns_thrpool_t *tp = checked_pool(1);
    struct crew crew;
    struct gate gates[2] = {GATE_INIT, GATE_INIT};
    /* Neither the loop nor a worker is free: so if it were inside the call, it would be seen. */
    struct ns_job_t *in_loop = occupy(tp, NS_JOB_NONE, &gates[0]);
    struct ns_job_t *in_worker = occupy(tp, NS_JOB_THREAD, &gates[1]);
    crew_begin(&crew, tp, 1);
    ns_group_hold(crew.group);
    ns_group_hold(crew.group);
    for (int i = 0; i < 2; i++) {
        ns_group_release(crew.group);
        assert_ptr_equal(ns_group_get_data(crew.group), &crew);
    }
    ns_group_release(crew.group);
    assert_int_equal(latch_count(&crew.ended), 0);
    for (int i = 0; i < 2; i++) {
        latch_add(&gates[i].leave, 1);
    }
    assert_latch(&crew.ended, 1);
    crew_check(&crew);
    finish_idle(in_loop);
    finish_idle(in_worker);
    checked_end(tp);
    assert_int_equal(latch_count(&crew.ended), 1);
}

TEST(each_job_holds_its_group_whatever_its_state)
{
    struct ns_thrpool_t *tp = checked_pool(2);
    int ends[2];
    socket_pair(ends);
    const struct trigger on = {&far_away, ends[0], NS_JOB_READ | NS_JOB_PRESERVE_FD};
    for (int kind = 0; kind < KINDS; kind++) {
        for (int state = 0; state < 4; state++) { /* idle, armed, running, queued */
            struct crew crew;
            struct gate gate = GATE_INIT;
            crew_begin(&crew, tp, 1);
            struct member member = {.crew = &crew, .gate = state == 2 ? &gate : NULL};
            struct ns_job_t *job = NULL;
            if (state >= 2) {
                if (kind != KIND_NOW) {
                    crew_end(&crew);
                    continue;
                }
                if (state == 3) {
                    assert_int_equal(ns_group_suspend(crew.group), NS_SUCCESS);
                }
                job = member_add(&member, NS_JOB_THREAD);
                if (state == 2) {
                    assert_latch(&gate.begun, 1);
                }
            } else {
                job = member_make_kind(&member, kind, &on, NS_JOB_THREAD);
                if (state == 1 && kind != KIND_NOW) {
                    assert_int_equal(ns_job_rearm(job), NS_SUCCESS);
                }
            }
            ns_group_release(crew.group);
            everyone_passes(tp, state == 2 ? 1 : 2);
            assert_int_equal(latch_count(&crew.ended), 0);
            assert_ptr_equal(ns_job_get_group(job), crew.group);
            latch_add(&gate.leave, 1);
            if (state != 2) {
                assert_int_equal(ns_job_cancel(job), NS_SUCCESS);
            }
            assert_latch(&crew.ended, 1);
            assert_int_equal(latch_count(&crew.disposals), 1);
            crew_check(&crew);
        }
    }
    checked_end(tp);
    close(ends[0]);
    close(ends[1]);
}

/* It may free what all callbacks used: it comes after the last of them has returned. */
struct owned {
    struct ns_group_t *group;
    atomic_int users;
    long payload;
    struct latch *ended;
    atomic_int *bad;
};

static void use_owned(struct ns_job_t *job)
{
    struct owned *owned = ns_job_get_data(job);
    atomic_fetch_add(&owned->users, 1);
    owned->payload++;
    atomic_fetch_sub(&owned->users, 1);
    ns_job_done(job);
}

static void owned_job_gone(struct ns_job_t *job)
{
    struct owned *owned = ns_job_get_data(job);
    atomic_fetch_add(&owned->users, 1);
    owned->payload++;
    atomic_fetch_sub(&owned->users, 1);
}

static void free_owned(struct ns_group_t *group)
{
    struct owned *owned = ns_group_get_data(group);
    struct latch *ended = owned->ended;
    atomic_fetch_add(owned->bad, atomic_load(&owned->users) != 0 || owned->group != group);
    memset(owned, 0xee, sizeof *owned);
    free(owned);
    latch_add(ended, 1);
}

TEST(the_done_callback_frees_what_all_callbacks_used)
{
    struct ns_thrpool_t *tp = checked_pool(3);
    struct latch ended = LATCH_INIT;
    atomic_int bad = 0;
    int rounds = scaled(5000);
    for (int i = 0; i < rounds; i++) {
        struct owned *owned = calloc(1, sizeof *owned);
        struct ns_group_t *group = NULL;
        owned->ended = &ended;
        owned->bad = &bad;
        assert_int_equal(ns_group_new(tp, 1, owned, free_owned, &group), NS_SUCCESS);
        owned->group = group;
        for (int n = 0; n < 4; n++) {
            struct ns_job_t *job = NULL;
            assert_int_equal(ns_add_group_job(group, where[(n + i) % 2] | NS_JOB_UNARMED, use_owned,
                                              owned, &job), NS_SUCCESS);
            assert_int_equal(ns_job_set_done_cb(job, owned_job_gone), NS_SUCCESS);
            assert_int_equal(ns_job_rearm(job), NS_SUCCESS);
        }
        ns_group_release(group);
    }
    assert_latch(&ended, rounds);
    assert_int_equal(atomic_load(&bad), 0);
    checked_end(tp);
    assert_int_equal(latch_count(&ended), rounds);
}

/* The last hold goes in a callback of the group's own, in a done callback of a job, in another's. */
static void release_own(struct ns_job_t *job)
{
    struct member *member = ns_job_get_data(job);
    ns_group_release(member->crew->group);
    crew_expect(member->crew, latch_count(&member->crew->ended) == 0);
    ns_job_done(job);
}

static void gone_and_release(struct ns_job_t *job)
{
    struct member *member = ns_job_get_data(job);
    struct crew *crew = member->crew;
    ns_group_release(crew->group);
    crew_expect(crew, latch_count(&crew->ended) == 0);
    crew_expect(crew, ns_group_is_current(crew->group) == 1);
    member_gone(job);
}

static void release_others(struct ns_job_t *job)
{
    struct crew *crew = ns_job_get_data(job);
    ns_group_release(crew->group);
    ns_job_done(job);
}

TEST(the_last_hold_may_go_in_any_callback)
{
    struct ns_thrpool_t *tp = checked_pool(1);
    for (int i = 0; i < 6; i++) {
        struct crew crew;
        crew_begin(&crew, tp, (size_t)i / 2);
        struct member member = {.crew = &crew, .act = i < 2 ? release_own : NULL};
        if (i < 4) {
            struct ns_job_t *job = member_make(&member, where[i % 2]);
            if (i >= 2) {
                assert_int_equal(ns_job_set_done_cb(job, gone_and_release), NS_SUCCESS);
            }
            assert_int_equal(ns_job_rearm(job), NS_SUCCESS);
        } else {
            assert_int_equal(ns_add_job(tp, where[i % 2], release_others, &crew, NULL), NS_SUCCESS);
        }
        assert_latch(&crew.ended, 1);
        crew_check(&crew);
    }
    checked_end(tp);
}

/* Holds and releases from several threads, against adds: the last to go ends it, once. */
static void use_and_count(struct ns_job_t *job)
{
    struct crew *crew = ns_job_get_data(job);
    latch_add(&crew->runs, 1);
    ns_job_done(job);
}

struct sharer {
    struct crew *crew;
    atomic_long *adds;
    int rounds;
};

static void *share(void *arg)
{
    struct sharer *sharer = arg;
    for (int i = 0; i < sharer->rounds; i++) {
        ns_group_hold(sharer->crew->group);
        if (i % 3 == 0 &&
            ns_add_group_job(sharer->crew->group, where[i % 2], use_and_count, sharer->crew, NULL) ==
                NS_SUCCESS) {
            atomic_fetch_add(sharer->adds, 1);
        }
        ns_group_release(sharer->crew->group);
    }
    ns_group_release(sharer->crew->group);
    return NULL;
}

TEST(several_threads_hold_add_and_release)
{
    enum { THREADS = 4 };
    struct ns_thrpool_t *tp = checked_pool(2);
    for (int round = 0; round < 5 + scaled(500); round++) {
        struct crew crew;
        atomic_long adds = 0;
        pthread_t threads[THREADS];
        struct sharer sharers[THREADS];
        crew_begin(&crew, tp, (size_t)round % 3);
        for (int i = 0; i < THREADS; i++) {
            ns_group_hold(crew.group);
            sharers[i] = (struct sharer){&crew, &adds, 30};
        }
        for (int i = 0; i < THREADS; i++) {
            threads[i] = start_thread(share, &sharers[i]);
        }
        ns_group_release(crew.group);
        for (int i = 0; i < THREADS; i++) {
            pthread_join(threads[i], NULL);
        }
        assert_latch(&crew.ended, 1);
        assert_int_equal(latch_count(&crew.runs), atomic_load(&adds));
        crew_check(&crew);
    }
    checked_end(tp);
}

/* Destroy ends the groups that the application still holds, and says how many. */
static pthread_mutex_t said_lock = PTHREAD_MUTEX_INITIALIZER;
static char said[8][256];
static int said_count;

static void note_warnings(int priority, const char *format, va_list args)
{
    if (priority != LOG_WARNING) {
        return;
    }
    pthread_mutex_lock(&said_lock);
    vsnprintf(said[said_count++ % 8], sizeof said[0], format, args);
    pthread_mutex_unlock(&said_lock);
}

TEST(destroy_ends_the_groups_that_are_held_and_says_how_many)
{
    enum { GROUPS = 37 };
    static struct crew crews[GROUPS];
    static struct member members[GROUPS];
    static const int all[] = {0, GROUPS, 23};
    for (int n = 0; n < 3; n++) {
        int held = all[n];
        char number[16];
        snprintf(number, sizeof number, "%d", held);
        struct ns_thrpool_t *tp = pool_with(2, note_warnings, the_calloc, the_free);
        said_count = 0;
        for (int i = 0; i < GROUPS; i++) {
            crew_begin(&crews[i], tp, (size_t)i % 3);
            if (i % 4 == 0) {
                ns_group_hold(crews[i].group); /* twice held is one group all the same */
            }
            members[i] = (struct member){.crew = &crews[i]};
            if (i % 5 == 0) {
                const struct trigger on = {&far_away, -1, 0};
                member_add_kind(&members[i], KIND_TIMER, &on, where[i % 2]);
            } else if (i % 5 == 1) {
                assert_int_equal(ns_group_suspend(crews[i].group), NS_SUCCESS);
                member_add(&members[i], NS_JOB_THREAD);
            } else if (i % 5 == 2) {
                assert_int_equal(ns_group_cancel(crews[i].group), NS_SUCCESS);
            }
            if (i >= held) {
                if (i % 4 == 0) {
                    ns_group_release(crews[i].group);
                }
                ns_group_release(crews[i].group);
            }
        }
        ns_thrpool_destroy(tp);
        for (int i = 0; i < GROUPS; i++) {
            assert_int_equal(latch_count(&crews[i].ended), 1);
            assert_int_equal(atomic_load(&members[i].disposals), i % 5 <= 1);
            assert_int_equal(atomic_load(&members[i].runs), 0);
            crew_check(&crews[i]);
        }
        heap_check(&the_heap);
        int found = 0;
        for (int i = 0; i < said_count && i < 8; i++) {
            found += strstr(said[i], number) != NULL && strstr(said[i], "group") != NULL;
        }
        assert_int_equal(found, held > 0);
    }
}

/* One that is released by the done callback of its last job, which destroy disposes of, is not held. */
TEST(destroy_does_not_count_a_group_that_a_done_callback_releases)
{
    for (int i = 0; i < 6; i++) {
        struct ns_thrpool_t *tp = pool_with(1, note_warnings, the_calloc, the_free);
        struct crew crew;
        const struct trigger on = {&far_away, -1, 0};
        said_count = 0;
        crew_begin(&crew, tp, (size_t)i % 3);
        struct member member = {.crew = &crew};
        if (i >= 3) {
            assert_int_equal(ns_group_suspend(crew.group), NS_SUCCESS);
        }
        struct ns_job_t *job = i < 3 ? member_make_kind(&member, KIND_TIMER, &on, NS_JOB_THREAD)
                                     : member_make(&member, where[i % 2]);
        assert_int_equal(ns_job_set_done_cb(job, gone_and_release), NS_SUCCESS);
        assert_int_equal(ns_job_rearm(job), NS_SUCCESS);
        ns_thrpool_destroy(tp);
        assert_int_equal(latch_count(&crew.ended), 1);
        assert_int_equal(atomic_load(&member.disposals), 1);
        crew_check(&crew);
        assert_int_equal(said_count, 0);
        heap_check(&the_heap);
    }
}

/* A group outlives the shutdown and the wait: its done callback runs after them, too. */
TEST(a_group_that_is_released_after_shutdown_and_wait_ends)
{
    for (int i = 0; i < 3; i++) {
        struct ns_thrpool_t *tp = checked_pool(2);
        struct crew crew;
        crew_begin(&crew, tp, (size_t)i);
        struct member member = {.crew = &crew};
        struct ns_job_t *job = member_make(&member, NS_JOB_THREAD);
        ns_thrpool_shutdown(tp);
        assert_int_equal(ns_thrpool_wait(tp), NS_SUCCESS);
        assert_int_equal(ns_job_done(job), NS_SUCCESS);
        crew_end(&crew);
        assert_int_equal(atomic_load(&member.disposals), 1);
        ns_thrpool_destroy(tp);
        heap_check(&the_heap);
    }
}

/* The done callback may use the pool: make another group, and add to it. */
static struct crew second;
static struct member second_member;

static void begin_another(struct ns_group_t *group)
{
    struct crew *crew = ns_group_get_data(group);
    second = (struct crew)CREW_INIT;
    second.tp = ns_group_get_tp(group);
    crew_expect(crew, ns_group_new(second.tp, 1, &second, crew_ended, &second.group) == NS_SUCCESS);
    second_member = (struct member){.crew = &second};
    struct ns_job_t *job = NULL;
    crew_expect(crew, ns_add_group_job(second.group, NS_JOB_THREAD | NS_JOB_UNARMED, member_run,
                                       &second_member, &job) == NS_SUCCESS);
    ns_job_set_done_cb(job, member_gone);
    crew_expect(crew, ns_job_rearm(job) == NS_SUCCESS);
    crew_expect(crew, ns_group_is_current(second.group) == 0);
    crew_expect(crew, ns_group_is_current(group) == 1);
    latch_add(&crew->ended, 1);
}

TEST(the_done_callback_may_use_the_pool)
{
    struct ns_thrpool_t *tp = checked_pool(1);
    struct crew crew = CREW_INIT;
    assert_int_equal(ns_group_new(tp, 1, &crew, begin_another, &crew.group), NS_SUCCESS);
    ns_group_release(crew.group);
    assert_latch(&crew.ended, 1);
    crew_check(&crew);
    crew_end(&second);
    checked_end(tp);
}

TEST(many_short_lives_leave_nothing)
{
    struct ns_thrpool_t *tp = checked_pool(2);
    for (int i = 0; i < scaled(200000); i++) {
        struct ns_group_t *group = NULL;
        assert_int_equal(ns_group_new(tp, (size_t)i % 3, NULL, NULL, &group), NS_SUCCESS);
        if (i % 3 == 0) {
            assert_int_equal(ns_add_group_job(group, where[i % 2], finish_job, NULL, NULL), NS_SUCCESS);
        }
        ns_group_release(group);
        if (i % 1000 == 0) {
            everyone_passes(tp, 1);
        }
    }
    checked_end(tp);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_last_release_ends_it_and_not_inside_the_call),
        cmocka_unit_test(each_job_holds_its_group_whatever_its_state),
        cmocka_unit_test(the_done_callback_frees_what_all_callbacks_used),
        cmocka_unit_test(the_last_hold_may_go_in_any_callback),
        cmocka_unit_test(several_threads_hold_add_and_release),
        cmocka_unit_test(destroy_ends_the_groups_that_are_held_and_says_how_many),
        cmocka_unit_test(destroy_does_not_count_a_group_that_a_done_callback_releases),
        cmocka_unit_test(a_group_that_is_released_after_shutdown_and_wait_ends),
        cmocka_unit_test(the_done_callback_may_use_the_pool),
        cmocka_unit_test(many_short_lives_leave_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
