/*
 * Groups
 *
 * A group is a set of jobs of one pool, with a rule for how many of them run at once. A group of
 * width 1 is what others call a strand or a serial queue: one callback at a time, in order, on
 * whichever thread is free, with no lock and no thread of its own. Give each connection one, put
 * all its jobs in it, whatever their kind, and nothing that belongs to the connection needs a lock.
 * A group of width n runs at most n of its callbacks at once. Width 0 sets no limit and keeps no order:
 * use it to cancel many jobs together, or to wait for them.
 *
 * Order. A job that fires, or a run-now job when it is armed, joins the end of the group's queue. It
 * begins when it is at the head and fewer than `width` of the group's callbacks run, in a worker or
 * in the loop as its flags say. The loop never waits for a group. What one thread adds begins in
 * the order in which it adds it; a PERSIST or rearmed run-now job goes to the end. To the
 * application a job in the queue is armed.
 *
 * Exclusion. In a group of width 1 no two callbacks run at once, done callbacks included, and each
 * sees all that those before it wrote. The done callback of a job takes its turn in the queue, and runs
 * in the loop or in a worker. The job's descriptor is closed earlier, without waiting for that turn.
 *
 * Lifetime. The maker of a group has one hold on it, and each job in it is another. When the last
 * is gone, the group's done callback runs once, after those of all its jobs, and then the library frees
 * the group. So the group's done callback may free what all the callbacks use. A thread that calls a function
 * with a group must have a hold, or be in a callback of one of its jobs. ns_thrpool_destroy ends the
 * groups that are still held, and logs how many there were.
 *
 * In a forked child the functions return NS_SHUTDOWN, ns_group_hold and ns_group_release do nothing,
 * and the getters answer.
 */

struct ns_group_t;
typedef struct ns_group_t ns_group_t;
