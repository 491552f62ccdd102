# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=sh
#
# Sourced by demo.sh and by the test: a PostgreSQL server of one's own, in a folder that goes when
# it is over. It listens on a socket in that folder only, and is found by $conninfo. PostgreSQL
# refuses to run as root: then the user postgres runs it, whom Debian's package makes.

# as_user COMMAND...: as the user who runs the server.
as_user() {
    if [ "$(id -u)" -eq 0 ]; then
        (cd / && exec runuser -u postgres -- "$@")
    else
        "$@"
    fi
}

# postgres_new FOLDER: make a server's data in a new folder. It does not run yet.
postgres_new() {
    pg=$1
    pg_bin=$(pg_config --bindir)
    # Debian's pg_config is that of the client; the server's programs are beside those of its version.
    [ -x "$pg_bin/initdb" ] || pg_bin=$(dirname "$(ls /usr/lib/postgresql/*/bin/initdb | tail -n 1)")
    mkdir -m 700 "$pg" || return 1
    [ "$(id -u)" -ne 0 ] || chown postgres "$pg" || return 1
    conninfo="host=$pg user=gateway dbname=postgres"
    as_user "$pg_bin/initdb" -D "$pg/data" -A trust -U gateway -E UTF8 --locale=C --no-sync \
        >"$pg.log" 2>&1 || return 1
    as_user tee -a "$pg/data/postgresql.conf" >/dev/null <<END
listen_addresses = ''
unix_socket_directories = '$pg'
max_connections = 40
shared_buffers = 16MB
fsync = off
END
}

# postgres_start: returns when it takes connections.
postgres_start() {
    as_user "$pg_bin/pg_ctl" -D "$pg/data" -l "$pg/log" -w -t 60 start >>"$pg.log" 2>&1 ||
        { as_user tail -n 20 "$pg/log" >>"$pg.log"; return 1; }
}

# postgres_stop MODE: fast, or immediate, which is what a crash is like.
postgres_stop() {
    as_user "$pg_bin/pg_ctl" -D "$pg/data" -m "$1" -w -t 60 stop >>"$pg.log" 2>&1
}

# postgres_kill: kill -9 its main process. Returns when all its processes have gone.
postgres_kill() {
    pg_main=$(as_user head -n 1 "$pg/data/postmaster.pid") || return 1
    pg_all="$pg_main $(pgrep -P "$pg_main")"
    as_user kill -KILL "$pg_main" || return 1
    for pg_one in $pg_all; do
        pg_tries=0
        while kill -0 "$pg_one" 2>/dev/null && ! grep -qs '^State:.Z' "/proc/$pg_one/status"; do
            pg_tries=$((pg_tries + 1))
            [ $pg_tries -lt 600 ] || return 1
            sleep 0.05
        done
    done
    # A new server would take a process that is dead, but that nobody has waited for, for a live one.
    as_user sh -c 'rm -f "$1/data/postmaster.pid" "$1"/.s.PGSQL.*' sh "$pg"
}

# postgres_end: stop it, if it runs, and remove what it made.
postgres_end() {
    [ -n "${pg:-}" ] || return 0
    postgres_stop immediate
    rm -rf "$pg" "$pg.log"
    pg=
}

# sql TEXT: what psql says to it.
sql() { psql -X -q -A -t -d "$conninfo" -c "$1"; }
