/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The least that tests need: TEST, CHECK, EVENTUALLY, a count of live objects, a watchdog. */
#pragma once
#include <nunc-stans.hpp>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <sys/socket.h>
#include <thread>
#include <unistd.h>
#include <vector>

using namespace std::chrono_literals;
namespace ns = nunc_stans;

struct test {
    const char *name;
    void (*run)();
};
inline std::vector<test> &tests()
{
    static std::vector<test> all;
    return all;
}
inline int failures = 0;

#define TEST(name)                                                                                 \
    static void name();                                                                            \
    static const int registered_##name = (tests().push_back({#name, name}), 0);                    \
    static void name()

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            std::printf("# %s:%d: not true: %s\n", __FILE__, __LINE__, #condition);                \
            failures++;                                                                            \
        }                                                                                          \
    } while (0)

/* Wait for a condition: the watchdog ends what never comes. */
#define EVENTUALLY(condition)                                                                      \
    while (!(condition))                                                                           \
    std::this_thread::sleep_for(100us)

/* How many there are. Captured, it shows how long a callable lives. */
struct counted {
    static inline std::atomic<int> live{0};
    counted() { live++; }
    counted(const counted &) { live++; }
    counted(counted &&) noexcept { live++; }
    ~counted() { live--; }
};

struct pair {
    ns::descriptor a, b;
    pair()
    {
        int ends[2];
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) != 0)
            std::abort();
        a = ns::descriptor(ends[0]);
        b = ns::descriptor(ends[1]);
    }
};

inline ns::options workers(std::size_t n)
{
    ns::options o;
    o.workers = n;
    return o;
}

int main()
{
    std::setvbuf(stdout, nullptr, _IOLBF, 0);
    int number = 0, bad = 0;
    for (const test &each : tests()) {
        alarm(60);
        failures = 0;
        each.run();
        if (counted::live != 0) {
            std::printf("# %d callables are left\n", counted::live.exchange(0));
            failures++;
        }
        std::printf("%s %d - %s\n", failures ? "not ok" : "ok", ++number, each.name);
        bad += failures != 0;
    }
    std::printf("1..%d\n", number);
    return bad != 0;
}
