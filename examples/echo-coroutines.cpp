/* SPDX-License-Identifier: GPL-3.0-or-later */
/* echo-coroutines [port] - sends back what TCP clients send, on 127.0.0.1, until SIGTERM; C++20 */
#include <arpa/inet.h>
#include <csignal>
#include <nunc-stans.hpp>
using namespace std::chrono_literals;
namespace ns = nunc_stans;

static ns::task<> serve(ns::pool &pool, ns::descriptor fd)
{
    char data[16384];
    for (ssize_t n; co_await pool.readable(fd.get(), 30s) && (n = read(fd.get(), data, sizeof data)) > 0;)
        for (ssize_t at = 0, sent; at < n; at += sent > 0 ? sent : 0) {
            sent = send(fd.get(), data + at, static_cast<size_t>(n - at), MSG_NOSIGNAL);
            if (sent < 0 && (errno != EAGAIN || !co_await pool.writable(fd.get(), 30s)))
                co_return; /* the client is gone, or has not read for half a minute */
        }
}

static ns::task<> listen_on(ns::pool &pool, ns::descriptor listener)
{
    while (co_await pool.readable(listener.get())) {
        ns::descriptor client(accept4(listener.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
        if (client.get() >= 0)
            pool.spawn(serve(pool, std::move(client)));
        else if (errno == EMFILE || errno == ENFILE)
            co_await pool.sleep(100ms);
    }
}

int main(int argc, char **argv)
{
    ns::descriptor listener(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    sockaddr_in at{AF_INET, htons(argc > 1 ? static_cast<in_port_t>(atoi(argv[1])) : 7007),
                   {htonl(INADDR_LOOPBACK)}, {}};
    int on = 1;
    setsockopt(listener.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener.get(), reinterpret_cast<sockaddr *>(&at), sizeof at) || listen(listener.get(), 128))
        return perror("echo-coroutines"), 1;
    ns::options options;
    options.workers = 2;
    ns::pool pool(options);
    ns::job stop = pool.on_signal(SIGTERM, [&pool] { pool.shutdown(); }, ns::how::in_loop);
    pool.spawn(listen_on(pool, std::move(listener)));
    pool.wait();
}
