#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Debian's krb5kdc on libverto-nunc-stans.so: as a daemon, with four workers, and under valgrind. In each of the
# first two, 20 clients at once run 10,000 times kinit with NS_COUNT=full, else 200 times, half of them by TCP.
# Run in the project's root; VERTO_MODULE is the module. Nothing outside of a folder of its own is changed.
. c-tests/tap.sh
. adapters/tests/verto.sh
trap 'kill $(pids) 2>/dev/null; rm -rf "$work"' EXIT
PATH=$PATH:/usr/sbin
clients=20
total=200
[ "${NS_COUNT:-}" != full ] || total=10000
[ -z "${NS_SLOW:-}" ] || total=100

# holds CONDITION...: wait until it does, two minutes at most.
holds() {
    tries=0
    until "$@" 2>/dev/null; do
        tries=$((tries + 1))
        [ $tries -lt 1200 ] || return 1
        sleep 0.1
    done
}

# The daemon, which its file names, and its workers.
pids() {
    [ ! -s "$work/pid" ] || { cat "$work/pid" && pgrep -P "$(cat "$work/pid")"; }
}

# configure PORT: the same realm for UDP first and for TCP first.
configure() {
    for way in udp tcp; do
        cat >"$work/$way.conf" <<END
[libdefaults]
 default_realm = TEST.EXAMPLE
 dns_lookup_kdc = false
 dns_canonicalize_hostname = false
 udp_preference_limit = $([ $way = tcp ] && echo 1 || echo 1465)
[realms]
 TEST.EXAMPLE = {
  kdc = 127.0.0.1:$1
 }
[dbmodules]
 TEST.EXAMPLE = {
  db_library = db2
  disable_last_success = true
  disable_lockout = true
 }
[logging]
 kdc = FILE:$work/kdc.log
 admin_server = FILE:$work/kadmin.log
END
    done
    cat >"$work/kdc.conf" <<END
[kdcdefaults]
 kdc_listen = 127.0.0.1:$1
 kdc_tcp_listen = 127.0.0.1:$1
 spake_preauth_kdc_challenge = edwards25519
[realms]
 TEST.EXAMPLE = {
  database_name = $work/principal
  key_stash_file = $work/stash
  acl_file = $work/acl
  default_principal_flags = +preauth
 }
END
}

# A realm with a principal for each client, and their keys in one file.
realm() {
    configure 0
    kdb5_util create -s -r TEST.EXAMPLE -P "$(od -An -N16 -tx1 /dev/urandom | tr -d ' ')" || return 1
    for client in $(seq $clients); do
        echo "addprinc -randkey user$client"
        echo "ktadd -k $work/keytab user$client"
    done >"$work/commands"
    kadmin.local <"$work/commands" && [ -s "$work/keytab" ]
}

# start COMMAND...: on a port that is free. Leaves the log of this start alone.
start() {
    for try in 1 2 3 4 5 6 7 8; do
        configure $((20000 + ($$ + try * 997) % 30000))
        rm -f "$work/kdc.log" "$work/kdc.log.1" "$work/pid"
        "$@" && holds grep -q 'commencing operation\|set up 0\|Failed\|Cannot\|Address' "$work/kdc.log" &&
            grep -q 'set up 2 sockets' "$work/kdc.log" && holds grep -q . "$work/pid" && return
        kill $(pids)
    done
    cat "$work/kdc.log"
    return 1
}

# client NUMBER TIMES: it tells in a file how often kinit got a ticket.
client() {
    KRB5_CONFIG=$work/udp.conf
    [ $(($1 % 2)) -eq 0 ] || KRB5_CONFIG=$work/tcp.conf
    good=0
    for _ in $(seq "$2"); do
        kinit -c "$work/cc$1" -k -t "$work/keytab" "user$1" && [ -s "$work/cc$1" ] && good=$((good + 1))
        rm -f "$work/cc$1"
        echo $good >"$work/good$1"
    done
}

issued() { cat "$work"/kdc.log* | grep -c ISSUE; }
has_issued() { [ "$(issued)" -ge "$1" ]; }
all_gone() { for pid; do ! kill -0 "$pid" || return 1; done; }
all_mapped() { for pid; do grep -q libnunc-stans "/proc/$pid/maps" || return 1; done; }

# All clients at once; in the middle the log is moved away, as logrotate does, and SIGHUP makes a new one.
load() {
    rm -f "$work"/good*
    begin=$(date +%s)
    clients_pids=
    for client in $(seq $clients); do
        client "$client" $((total / clients)) &
        clients_pids="$clients_pids $!"
    done
    holds has_issued $((total / 3))
    mv "$work/kdc.log" "$work/kdc.log.1"
    kill -HUP "$(cat "$work/pid")"
    wait $clients_pids
    sum=$(cat "$work"/good* | awk '{ sum += $1 } END { print sum }')
    echo "# $sum of $total tickets in $(($(date +%s) - begin)) s, by $(cat "$work"/kdc.log* |
        sed -n 's/.*krb5kdc\[\([0-9]*\)\].*ISSUE.*/\1/p' | sort -u | wc -l) processes" | tee -a "$work/numbers"
    [ "$sum" -eq $total ] && has_issued $total
}

# stop: SIGTERM, and all its processes end, which the log says of each that serves.
stop() {
    everybody=$(pids)
    kill "$(cat "$work/pid")" && holds all_gone $everybody && grep -q 'shutting down' "$work/kdc.log"
}

export KRB5_KDC_PROFILE="$work/kdc.conf" KRB5_CONFIG="$work/udp.conf"
# krb5kdc asks for no module by name: in the folder there is only this one.
{ verto_folder "$work/folder" && realm; } >"$work/why" 2>&1
tap $? "a realm of its own"
for workers in 0 4; do
    options=
    [ $workers -eq 0 ] || options="-w $workers"
    what="krb5kdc $options${options:+ }"
    start krb5kdc $options -P "$work/pid" >"$work/why" 2>&1 && [ "$(pids | wc -l)" -eq $((workers + 1)) ]
    tap $? "${what}runs as a daemon"
    serving=$(pids)
    [ $workers -eq 0 ] || serving=$(pgrep -P "$(cat "$work/pid")")
    holds all_mapped $serving
    tap $? "${what}runs on the module"
    load >"$work/why" 2>&1
    tap $? "${what}gives $clients clients at once $total tickets"
    grep -q ISSUE "$work/kdc.log" && grep -q ISSUE "$work/kdc.log.1"
    tap $? "${what}begins a new log on SIGHUP, under load"
    stop >"$work/why" 2>&1
    tap $? "${what}ends on SIGTERM"
done
cat "$work/numbers"

# In the foreground, under valgrind. One of its reports is krb5kdc's own: it comes with libverto-libev, too.
memcheck() {
    cat >"$work/suppressions" <<'END'
{
    a UDP request's address
    Memcheck:Cond
    obj:*/krb5kdc
    obj:*/krb5kdc
    fun:verto_fire
}
END
    valgrind -q --suppressions="$work/suppressions" --leak-check=full --errors-for-leak-kinds=definite --error-exitcode=9 \
        --log-file="$work/valgrind" krb5kdc -n -P "$work/pid" &
    daemon=$!
}
start memcheck >"$work/why" 2>&1
tap $? "krb5kdc runs under valgrind"
total=$((clients * 2))
load >"$work/why" 2>&1
tap $? "krb5kdc gives tickets under valgrind"
stop >"$work/why" 2>&1 && wait "$daemon"
status=$?
cat "$work/valgrind" >>"$work/why"
[ $status -eq 0 ]
tap $? "krb5kdc ends with 0, and valgrind finds nothing"
echo "1..$count"
