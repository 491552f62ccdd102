/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * chat - a chat server with many rooms and no lock: how groups are used
 *
 *     chat [-p port] [-t workers] [-w seconds]
 *
 *     $ nc 127.0.0.1 7008
 *     JOIN garden anna           the room and your name, first
 *     hello                      a line that everybody in the room gets, you too
 *     /end                       ends the room for all who are in it
 *
 * Port 0 lets the kernel choose. SIGTERM or SIGINT ends the server in good order; the exit status
 * is 0 only if every client, room and descriptor is gone.
 *
 * A group of width 1 runs one callback of its jobs at a time, done callbacks included, each in
 * whichever worker is free. So what only one group's callbacks touch needs no lock. There are two
 * kinds of group here, and each field of the structures below says which of them owns it:
 *
 *   the hall    has the list of rooms, and one job for each client: the greeter. It reads the line
 *               that names the room. After that it is idle, and its done callback, which comes
 *               after all others of the client, frees the client.
 *   a room      has the list of its members, and two jobs for each: one reads lines, one waits
 *               until the socket takes more. A line goes to all members in one callback, so all
 *               members see all lines in the same order.
 *
 * Rooms run side by side in the workers. A busy room delays no other, and no room has a thread.
 *
 * The two talk to each other by jobs: the hall adds a job to the room's group to send a client in,
 * and the room finishes the greeter to send it out. The second can't fail for lack of memory,
 * because the job is already there.
 */
#define _GNU_SOURCE
#include "server.h"

enum {
    NAME_SIZE = 32,
    LINE_SIZE = 1024,       /* the longest line from a client, and what is read at once */
    OUTPUT_SIZE = 64 << 10, /* bytes that may wait for a client; with more it is dropped */
    SOCKET_SIZE = 64 << 10, /* and as many in the kernel */
    /* Of all jobs of a client: they share its socket, which the greeter's done callback closes. */
    TYPE = NS_JOB_THREAD | NS_JOB_PRESERVE_FD | NS_JOB_UNARMED,
};

struct room {
    struct ns_group_t *group;
    /* The hall's. */
    struct room *next;
    size_t clients; /* that the hall has sent in and that have not come out */
    char name[NAME_SIZE];
    /* The room's own. */
    struct client *members;
};

struct client {
    int fd;
    struct ns_job_t *greeter; /* in the hall's group */
    struct room *room;        /* NULL until the hall has sent it in */
    char name[NAME_SIZE];
    /* The hall's before, the room's after that. */
    struct ns_job_t *reader, *writer; /* in the room's group; NULL when they are gone */
    size_t in_len; /* full when all lines are out of it: then the next one is too long */
    char in[LINE_SIZE];
    /* The room's. */
    struct client *next;
    bool present;    /* it is in the list of members */
    bool left;       /* it was, and has left while the room goes on */
    bool ends_room;  /* and takes the room with it */
    bool waits;      /* the writer is armed */
    size_t from, to; /* out[from] to out[to - 1] is to be sent */
    char out[OUTPUT_SIZE];
};

static struct ns_group_t *hall;
/* The hall's. */
static struct room *rooms;
static size_t inside; /* clients that it has sent in and that have not come out */
static bool stops;    /* none goes in any more; when all have come out, the server ends */

static struct timeval patience = {10, 0}; /* with those who name no room, or do not read */
static atomic_ulong clients_served, clients_dropped, clients_left, rooms_made, rooms_left;

/*
 * 1. Lines
 */

/* Take the first line out of the input, without its end. False: there is no whole line. */
static bool next_line(struct client *c, char line[LINE_SIZE])
{
    char *end = memchr(c->in, '\n', c->in_len);

    if (!end) {
        return false;
    }
    size_t length = (size_t)(end - c->in);
    memcpy(line, c->in, length);
    line[length] = '\0';
    line[strcspn(line, "\r")] = '\0';
    c->in_len -= length + 1;
    memmove(c->in, end + 1, c->in_len);
    return true;
}

/* Read what there is, as far as it fits. Returns 1; 0 at the client's end; -1 when it is lost. */
static int receive(struct client *c)
{
    ssize_t n = recv(c->fd, c->in + c->in_len, sizeof c->in - c->in_len, 0);

    if (n <= 0) {
        return n == 0 ? 0 : errno == EAGAIN || errno == EINTR ? 1 : -1;
    }
    c->in_len += (size_t)n;
    return 1;
}

/*
 * 2. The room. Everything here runs in the group of the client's room.
 */

/* Take a client out of the list: it gets no more lines. */
static void unseat(struct client *c)
{
    if (c->present) {
        struct client **at = &c->room->members;
        while (*at != c) {
            at = &(*at)->next;
        }
        *at = c->next;
        c->present = false;
    }
}

/* End a client. Neither of its jobs runs again. Their done callbacks do the rest, after the
 * callback that calls this, because all of them are in one group. */
static void drop(struct client *c)
{
    unseat(c);
    c->left = true;
    if (c->reader) {
        ns_job_cancel(c->reader);
    }
    if (c->writer) {
        ns_job_cancel(c->writer);
    }
}

/* Send as much as the socket takes. The writer waits for the rest. */
static void flush(struct client *c)
{
    while (c->from < c->to) {
        ssize_t n = send(c->fd, c->out + c->from, c->to - c->from, MSG_NOSIGNAL);
        if (n >= 0) {
            c->from += (size_t)n;
        } else if (errno == EAGAIN) {
            c->waits = c->waits || ns_job_rearm(c->writer) == NS_SUCCESS;
            return;
        } else if (errno != EINTR) {
            drop(c);
            return;
        }
    }
    c->from = c->to = 0;
    if (!c->present) {
        drop(c); /* it has left, and everything has been sent */
    }
}

/* Put a line into the output of every member. One that has no room for it is too slow. */
static void say(struct room *room, const char *format, ...)
{
    char line[LINE_SIZE + 2 * NAME_SIZE];
    va_list args;

    va_start(args, format);
    size_t length = (size_t)vsnprintf(line, sizeof line, format, args);
    va_end(args);
    for (struct client *c = room->members, *next; c; c = next) {
        next = c->next;
        if (length > sizeof c->out - c->to) {
            c->to -= c->from;
            memmove(c->out, c->out + c->from, c->to);
            c->from = 0;
        }
        if (length > sizeof c->out - c->to) {
            atomic_fetch_add(&clients_dropped, 1);
            drop(c);
        } else {
            memcpy(c->out + c->to, line, length);
            c->to += length;
        }
    }
}

/* Send what was said, at the end of each callback: several lines go out in one packet. */
static void deliver(struct room *room)
{
    for (struct client *c = room->members, *next; c; c = next) {
        next = c->next;
        if (!c->waits) {
            flush(c);
        }
    }
}

/* Do what a client's lines say, and wait for more of them. */
static void hear(struct client *c)
{
    char line[LINE_SIZE];

    while (c->present && next_line(c, line)) {
        if (strcmp(line, "/end") == 0) {
            say(c->room, "* %s has ended the room\n", c->name);
            c->ends_room = true;
            unseat(c);
        } else {
            say(c->room, "%s: %s\n", c->name, line);
        }
    }
    if (c->present && c->in_len == LINE_SIZE) {
        atomic_fetch_add(&clients_dropped, 1);
        drop(c);
    }
    deliver(c->room);
    if (c->ends_room) {
        flush(c);
        drop(c);
    } else if (c->present) {
        ns_job_rearm(c->reader);
    }
}

/* The reader's callback. It reads once, then others in the room have their turn. */
static void on_readable(struct ns_job_t *job)
{
    struct client *c = ns_job_get_data(job);
    int got = receive(c);

    if (got > 0) {
        hear(c);
    } else if (got < 0) {
        drop(c);
    } else {
        /* Perhaps it has closed one direction only, as `nc -N` does: send it the rest. */
        unseat(c);
        flush(c);
    }
}

/* The writer's callback: the socket takes more, or has taken nothing for too long. */
static void on_writable(struct ns_job_t *job)
{
    struct client *c = ns_job_get_data(job);

    c->waits = false;
    if (NS_JOB_IS_TIMER(ns_job_get_output_type(job))) {
        atomic_fetch_add(&clients_dropped, 1);
        drop(c);
    } else {
        flush(c);
    }
}

/* The hall has sent a client in. Lines that came behind the first are waiting already. */
static void on_join(struct ns_job_t *job)
{
    struct client *c = ns_job_get_data(job);

    c->next = c->room->members;
    c->room->members = c;
    c->present = true;
    say(c->room, "* %s has joined\n", c->name);
    hear(c);
    ns_job_done(job);
}

/* The done callback of reader and writer, whatever ended them. A member leaves the list before the
 * first of its jobs is freed: nobody arms a writer that is gone. */
static void on_member_job_gone(struct ns_job_t *job)
{
    struct client *c = ns_job_get_data(job);

    job_disposed(job);
    unseat(c);
    if (job == c->reader) {
        c->reader = NULL;
    } else {
        c->writer = NULL;
    }
    if (!c->reader && !c->writer) {
        if (c->left) {
            say(c->room, "* %s has left\n", c->name);
            deliver(c->room);
        }
        ns_job_done(c->greeter); /* out, into the hall */
    }
}

/*
 * 3. The hall. Everything here runs in its group, but for on_room_gone.
 */

/* The group's done callback: the last job of the room is gone, and the hall has let go of it. */
static void on_room_gone(struct ns_group_t *group)
{
    atomic_fetch_sub(&rooms_left, 1);
    free(ns_group_get_data(group));
}

/* Take a room out of the list, if it is there: then no name leads to it. */
static void unlist(struct room *room)
{
    struct room **at = &rooms;

    while (*at && *at != room) {
        at = &(*at)->next;
    }
    if (*at) {
        *at = room->next;
    }
}

/*
 * End a room with all that is in it, in one call. Readers and writers are cancelled, armed or idle;
 * their done callbacks send the clients out, and the last client out releases the room. Only the
 * hall cancels a room, and only the hall adds to it from outside: so the two never meet.
 */
static void end_room(struct room *room)
{
    unlist(room);
    ns_group_cancel(room->group);
}

static struct room *find_room(const char *name)
{
    struct room *room;

    for (room = rooms; room; room = room->next) {
        if (strcmp(room->name, name) == 0) {
            return room;
        }
    }
    room = calloc(1, sizeof *room);
    if (!room || ns_group_new(server.pool, 1, room, on_room_gone, &room->group) != NS_SUCCESS) {
        free(room);
        return NULL;
    }
    strcpy(room->name, name);
    room->next = rooms;
    rooms = room;
    atomic_fetch_add(&rooms_made, 1);
    atomic_fetch_add(&rooms_left, 1);
    return room;
}

/* Send a client in. */
static void enter(struct client *c, struct room *room)
{
    c->room = room;
    room->clients++;
    inside++;
    if (job_made(ns_add_fd_job(server.pool, c->fd, TYPE | NS_JOB_READ, on_readable, c, &c->reader),
                 &c->reader, on_member_job_gone, room->group) &&
        job_made(ns_add_fd_timeout_job(server.pool, c->fd, &patience, TYPE | NS_JOB_WRITE,
                                       on_writable, c, &c->writer),
                 &c->writer, on_member_job_gone, room->group) &&
        ns_add_group_job(room->group, NS_JOB_THREAD, on_join, c, NULL) == NS_SUCCESS) {
        return; /* the client is the room's now */
    }
    /* No memory: out again at once. A job that was made comes back through the room, which sets the
     * pointer to it to NULL. Without a reader there is no writer. */
    struct ns_job_t *writer = c->writer;
    if (!c->reader) {
        ns_job_done(c->greeter);
        return;
    }
    ns_job_done(c->reader);
    if (writer) {
        ns_job_done(writer);
    }
}

/* The greeter's callback: read lines until one names a room. */
static void on_greet(struct ns_job_t *job)
{
    static const char help[] = "? JOIN room name\n";
    struct client *c = ns_job_get_data(job);
    char line[LINE_SIZE], name[NAME_SIZE], rest;
    bool goes_on = !stops && !NS_JOB_IS_TIMER(ns_job_get_output_type(job)) && receive(c) > 0;

    while (goes_on && next_line(c, line)) {
        struct room *room = NULL;
        if (sscanf(line, "JOIN %31[A-Za-z0-9_-] %31[A-Za-z0-9_-]%c", name, c->name, &rest) == 2) {
            room = find_room(name);
        }
        if (room) {
            enter(c, room);
            return;
        }
        goes_on = send(c->fd, help, sizeof help - 1, MSG_NOSIGNAL) == sizeof help - 1;
    }
    if (!goes_on || c->in_len == LINE_SIZE || ns_job_rearm(job) != NS_SUCCESS) {
        ns_job_done(job);
    }
}

/* The greeter's done callback: the client has come out of its room, or never went into one. */
static void on_client_gone(struct ns_job_t *job)
{
    struct client *c = ns_job_get_data(job);
    struct room *room = c->room;

    job_disposed(job);
    if (room) {
        if (c->ends_room) {
            end_room(room);
        }
        if (--room->clients == 0) {
            unlist(room);
            ns_group_release(room->group); /* on_room_gone frees it */
        }
        if (--inside == 0 && stops) {
            ns_thrpool_shutdown(server.pool);
        }
    }
    close(c->fd);
    free(c);
    atomic_fetch_sub(&clients_left, 1);
}

/* On SIGTERM. The signal jobs are in the hall's group, so this may go through the rooms. The
 * shutdown comes when all clients are out of them. Those who never went in end with the pool. */
static void on_stop(void)
{
    stops = true;
    while (rooms) {
        end_room(rooms);
    }
    if (inside == 0) {
        ns_thrpool_shutdown(server.pool);
    }
}

/* A new client, from the listener, which is in no group: it shares nothing with the hall. */
static void on_client(int fd)
{
    struct client *c = calloc(1, sizeof *c);

    if (!c || !job_made(ns_add_fd_timeout_job(server.pool, fd, &patience, TYPE | NS_JOB_READ,
                                              on_greet, c, &c->greeter),
                        &c->greeter, on_client_gone, hall)) {
        close(fd);
        free(c);
        return;
    }
    c->fd = fd;
    atomic_fetch_add(&clients_served, 1);
    atomic_fetch_add(&clients_left, 1);
    if (ns_job_rearm(c->greeter) != NS_SUCCESS) {
        ns_job_done(c->greeter);
    }
}

/*
 * 4. The server
 */

int main(int argc, char **argv)
{
    struct ns_thrpool_config config;
    uint16_t port = 7008;
    int option, size = SOCKET_SIZE, fds = count_fds();

    ns_thrpool_config_init(&config);
    config.max_threads = 2;
    config.log_fct = log_message;
    while ((option = getopt(argc, argv, "p:t:w:")) != -1) {
        switch (option) {
        case 'p': port = (uint16_t)number(optarg, 0, 65535); break;
        case 't': config.max_threads = (size_t)number(optarg, 1, 1024); break;
        case 'w': patience.tv_sec = number(optarg, 1, 86400); break;
        default: argc = 0;
        }
    }
    if (optind != argc) {
        errx(2, "usage: chat [-p port] [-t workers] [-w seconds]");
    }
    open_listener(port);
    setsockopt(server.listen_fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size); /* inherited */
    server.pool = ns_thrpool_new(&config);
    if (!server.pool || ns_group_new(server.pool, 1, NULL, NULL, &hall) != NS_SUCCESS) {
        errx(1, "no pool");
    }
    bool ran = server_run(on_client, on_stop, hall);
    server_end(hall); /* destroys the pool: those who are in the hall go */
    unsigned long left = atomic_load(&clients_left) + atomic_load(&rooms_left);
    printf("clients: %lu, dropped: %lu, rooms: %lu, clients and rooms left: %lu, ",
           atomic_load(&clients_served), atomic_load(&clients_dropped), atomic_load(&rooms_made),
           left);
    return nothing_left(fds) && left == 0 && ran ? 0 : 1;
}
