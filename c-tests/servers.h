/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The example servers as processes: started, asked where they listen, and stopped by SIGTERM. */
#ifndef SERVERS_H
#define SERVERS_H

#include "harness.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/prctl.h>
#include <sys/wait.h>

struct served {
    pid_t pid;
    FILE *told; /* what it prints */
    struct sockaddr_in at;
};

/* Where an example is, or the test is skipped: it was not built. */
static inline const char *example(const char *name)
{
    static char program[512];
    snprintf(program, sizeof program, "%s", __FILE__);
    char *end = strrchr(program, '/');
    assert_non_null(end);
    /* Another architecture has them elsewhere. */
    const char *among = getenv("NS_EXAMPLES");
    snprintf(end, sizeof program - (size_t)(end - program), "/../%s/%s",
             among != NULL ? among : "build/examples", name);
    if (access(program, X_OK) != 0) {
        skip();
    }
    return program;
}

/* The head of a command that runs a program under valgrind. */
#define VALGRIND "valgrind", "-q", "--error-exitcode=99", "--leak-check=full", \
                 "--errors-for-leak-kinds=definite", "--fair-sched=yes"
enum { VALGRIND_WORDS = 6 };

static inline int have_valgrind(void)
{
    return system("command -v valgrind >/dev/null") == 0;
}

/* Start a server. argv[0] is looked for in PATH, if it has no slash. */
static inline struct served server_start(const char *const argv[])
{
    struct served served = {0};
    int out[2];
    assert_int_equal(pipe(out), 0);
    fflush(NULL);
    served.pid = fork();
    assert_true(served.pid >= 0);
    if (served.pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* it does not outlive a test that fails */
        dup2(out[1], 1);
        for (int fd = 3; fd < 1024; fd++) {
            close(fd); /* it inherits nothing that would count against its limit */
        }
        execvp(argv[0], (char *const *)argv);
        _exit(127);
    }
    close(out[1]);
    served.told = fdopen(out[0], "r");
    char line[256] = "";
    assert_non_null(fgets(line, sizeof line, served.told));
    assert_non_null(strrchr(line, ':'));
    served.at = (struct sockaddr_in){.sin_family = AF_INET,
                                     .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                                     .sin_port = htons((uint16_t)atoi(strrchr(line, ':') + 1))};
    return served;
}

/* Stop it. Returns its wait status. It prints its own account, which is shown if it does not exit
 * with 0. */
static inline int server_stop(struct served *served)
{
    char line[512] = "";
    int status = -1;
    kill(served->pid, SIGTERM);
    while (fgets(line, sizeof line, served->told) != NULL) {
    }
    fclose(served->told);
    assert_int_equal(waitpid(served->pid, &status, 0), served->pid);
    if (status != 0) {
        print_message("# it ended with wait status %#x, having said: %s\n", status, line);
    }
    return status;
}

/* Connect to it. What a client then waits for in vain fails after LIMIT_SECONDS. */
static inline int server_connect(const struct served *served)
{
    struct timeval patience = {LIMIT_SECONDS, 0};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    assert_int_equal(connect(fd, (const struct sockaddr *)&served->at, sizeof served->at), 0);
    return fd;
}

#endif
