// SPDX-License-Identifier: GPL-3.0-or-later
//! Jobs of each kind, on real sockets, timers and signals.

mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use common::*;
use nunc_stans_rs::{Error, Event, Interest, Options, Pool};

const MS: Duration = Duration::from_millis(1);

#[test]
fn what_is_posted_runs_once_and_is_dropped() {
    let (alive, ran) = (Alive::default(), Count::default());
    let pool = Pool::new(2).unwrap();
    for _ in 0..1000 {
        for handle in [pool.to_handle(), pool.in_loop()] {
            let (token, ran) = (alive.token(), ran.clone());
            handle.post(move || touch((token, ran.up()))).unwrap();
        }
    }
    pool.shutdown();
    assert_eq!(pool.post(|| unreachable!()), Err(Error::Shutdown));
    pool.wait().unwrap();
    assert_eq!(ran.get(), 2000); // what was queued still runs
    drop(pool);
    assert_eq!(alive.get(), 0);
}

fn thread_name() -> String {
    std::fs::read_to_string("/proc/thread-self/comm").unwrap().trim().into()
}

#[test]
fn callbacks_run_where_they_are_told() {
    let pool = Pool::with(Options { workers: 1, name: Some("crab".into()), ..Options::default() }).unwrap();
    let (tell, told) = mpsc::channel();
    for (handle, name) in [(pool.to_handle(), "crab-worker"), (pool.in_loop(), "crab-loop")] {
        let tell = tell.clone();
        handle.post(move || tell.send(thread_name()).unwrap()).unwrap();
        assert_eq!(told.recv_timeout(LONG).unwrap(), name);
    }
}

/// An echo server: its clients are served in workers.
fn serve(pool: &Pool, alive: &Alive) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (handle, alive) = (pool.to_handle(), alive.clone());
    let accept = pool.in_loop().persist().on_readable(listener, move |event, listener| {
        assert!(event.is_readable() && !event.is_writable() && !event.is_timed_out());
        let (client, _) = listener.accept().unwrap();
        client.set_nonblocking(true).unwrap();
        let token = alive.token();
        let serve = move |event: &Event<'_>, client: &mut TcpStream| {
            let _ = &token;
            let mut bytes = [0; 4096];
            match client.read(&mut bytes) {
                Ok(n) if n > 0 => client.write_all(&bytes[..n]).unwrap(),
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                _ => return, // the end: not armed again, nobody's, so it is gone
            }
            event.rearm().unwrap();
        };
        handle.timeout(LONG).on_readable(client, serve).unwrap().detach();
    });
    accept.unwrap().detach();
    port
}

#[test]
fn echo_to_many_clients() {
    let alive = Alive::default();
    let pool = Pool::new(2).unwrap();
    let port = serve(&pool, &alive);
    let clients: Vec<_> = (0..10)
        .map(|i| {
            std::thread::spawn(move || {
                let mut socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
                socket.set_read_timeout(Some(LONG)).unwrap();
                for n in 0..scaled(200) {
                    let text = format!("client {i} says {n}");
                    socket.write_all(text.as_bytes()).unwrap();
                    let mut back = vec![0; text.len()];
                    socket.read_exact(&mut back).unwrap();
                    assert_eq!(back, text.as_bytes());
                }
                // The server closes its end when it has seen ours.
                socket.shutdown(std::net::Shutdown::Write).unwrap();
                assert_eq!(socket.read(&mut [0; 16]).unwrap(), 0);
            })
        })
        .collect();
    for client in clients {
        client.join().unwrap();
    }
    alive.wait_for_none();
}

#[test]
fn a_connection_that_is_idle_when_the_pool_goes_is_closed() {
    let alive = Alive::default();
    let pool = Pool::new(1).unwrap();
    let mut client = TcpStream::connect(("127.0.0.1", serve(&pool, &alive))).unwrap();
    client.write_all(b"x").unwrap();
    client.read_exact(&mut [0]).unwrap();
    drop(pool);
    client.set_read_timeout(Some(LONG)).unwrap();
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    assert_eq!(alive.get(), 0);
}

#[test]
fn one_job_reads_then_writes_and_has_a_time_out() {
    let pool = Pool::new(1).unwrap();
    let (here, mut there) = UnixStream::pair().unwrap();
    let (tell, told) = mpsc::channel();
    let job = pool.on_io(here, Interest::READ, move |event, socket| {
        tell.send((event.is_readable(), event.is_writable(), event.is_timed_out())).unwrap();
        if event.is_readable() {
            socket.read_exact(&mut [0; 4]).unwrap();
            event.rearm_for(Interest::WRITE, None).unwrap();
        } else if event.is_writable() {
            socket.write_all(b"pong").unwrap();
            event.rearm_for(Interest::READ, Some(20 * MS)).unwrap();
        }
    });
    let job = job.unwrap();
    assert_eq!(job.rearm(), Err(Error::InvalidState));
    there.write_all(b"ping").unwrap();
    for fired in [(true, false, false), (false, true, false), (false, false, true)] {
        assert_eq!(told.recv_timeout(LONG).unwrap(), fired);
    }
    let mut text = [0; 4];
    there.read_exact(&mut text).unwrap();
    assert_eq!(&text, b"pong");
    eventually(|| job.rearm().is_ok()); // it is idle, and its owner's
    there.write_all(b"ping").unwrap();
    assert_eq!(told.recv_timeout(LONG).unwrap(), (true, false, false));
}

#[test]
fn what_is_asked_for_wrongly_is_refused() {
    let pool = Pool::new(1).unwrap();
    let (here, _there) = UnixStream::pair().unwrap();
    let refused = pool.on_io(here.try_clone().unwrap(), Interest::UNCHANGED, |_, _| {}).err();
    assert_eq!(refused, Some(Error::InvalidRequest));
    assert_eq!(pool.on_signal(libc::SIGKILL, |_| {}).err(), Some(Error::InvalidRequest));
    assert_eq!(pool.cadence().after(Duration::ZERO, |_| {}).err(), Some(Error::InvalidRequest));
    assert_eq!(Pool::new(usize::MAX).err(), Some(Error::InvalidRequest));
    let options = Options { framework: Some("none such".into()), ..Options::default() };
    assert_eq!(Pool::with(options).err(), Some(Error::InvalidRequest));
    assert!(pool.turn(Some(Duration::ZERO)) == Err(Error::InvalidState) && pool.wait_fd().is_none());
}

#[test]
fn timers_fire_and_never_early() {
    let pool = Pool::new(1).unwrap();
    let (tell, told) = mpsc::channel();
    let begun = Instant::now();
    let once = pool.after(20 * MS, move |event| {
        assert!(event.is_timed_out());
        tell.send(begun.elapsed()).unwrap();
    });
    let once = once.unwrap();
    assert!(told.recv_timeout(LONG).unwrap() >= 20 * MS);
    let again = Instant::now();
    eventually(|| once.rearm().is_ok());
    told.recv_timeout(LONG).unwrap();
    assert!(again.elapsed() >= 20 * MS);

    let ticks = Count::default();
    for handle in [pool.to_handle(), pool.cadence(), pool.in_loop()] {
        let (begun, seen, mut n) = (Instant::now(), ticks.clone(), 0);
        let tick = handle.every(5 * MS, move |event| {
            n += 1;
            assert!(begun.elapsed() >= n * 5 * MS);
            seen.up();
            if n == 5 {
                event.done();
            }
        });
        let tick = tick.unwrap();
        eventually(|| tick.is_over());
        assert_eq!(tick.cancel(), Err(Error::Deleting));
    }
    assert_eq!(ticks.get(), 15);

    let (rests, begun, mut n) = (Count::default(), Instant::now(), 0);
    let seen = rests.clone();
    let rest = pool.after(Duration::ZERO, move |event| {
        n += 1;
        seen.up();
        match n {
            1 => event.rearm_after(10 * MS).unwrap(),
            2 => event.rearm_for(Interest::UNCHANGED, Some(10 * MS)).unwrap(),
            _ => assert!(begun.elapsed() >= 20 * MS),
        }
    });
    rest.unwrap().detach();
    rests.wait(3);
    // One that never fires costs nothing, and goes with the pool.
    pool.after(Duration::MAX, |_| unreachable!()).unwrap().detach();
}

#[test]
fn signals_are_jobs() {
    let pool = Pool::new(1).unwrap();
    let (tell, told) = mpsc::channel();
    let hup = pool.persist().on_signal(libc::SIGHUP, move |_| tell.send(thread_name()).unwrap()).unwrap();
    for _ in 0..3 {
        // SAFETY: the job watches it.
        assert_eq!(unsafe { libc::kill(libc::getpid(), libc::SIGHUP) }, 0);
        assert_eq!(told.recv_timeout(LONG).unwrap(), "ns-worker");
    }
    drop(hup);
    let handle = pool.to_handle();
    let _term = pool.on_signal(libc::SIGTERM, move |_| handle.shutdown()).unwrap();
    assert_eq!(pool.wait_timeout(10 * MS), Err(Error::Timeout));
    assert!(!pool.is_shutdown());
    // SAFETY: the job watches it.
    assert_eq!(unsafe { libc::kill(libc::getpid(), libc::SIGTERM) }, 0);
    pool.wait().unwrap();
    assert!(pool.is_shutdown());
}

#[test]
fn detached_jobs_end_by_themselves_and_owned_ones_stay() {
    let (alive, ran) = (Alive::default(), Count::default());
    let pool = Pool::new(2).unwrap();
    let make = || {
        let (token, ran) = (alive.token(), ran.clone());
        pool.run(move |_| touch((&token, ran.up()))).unwrap()
    };
    let kept = make();
    ran.wait(1);
    kept.rearm().unwrap(); // while it runs, or after
    ran.wait(2);
    make().detach(); // before, while or after it runs
    ran.wait(3);
    eventually(|| alive.get() == 1);
    assert!(!kept.is_over());
    kept.detach(); // idle: gone
    alive.wait_for_none();
}

#[test]
fn a_cancel_that_succeeds_is_the_end() {
    let pool = Pool::new(2).unwrap();
    let ran = Arc::new(AtomicUsize::new(0));
    let (mut ended, mut running) = (0, 0);
    for round in 0..scaled(10_000) {
        let seen = ran.clone();
        let job = pool.run(move |_| _ = seen.fetch_add(1, Ordering::SeqCst)).unwrap();
        if round % 3 == 0 {
            std::thread::yield_now();
        }
        match job.cancel() {
            Ok(()) => ended += 1,
            Err(Error::Running) => running += 1,
            other => panic!("{other:?}"),
        }
    }
    let handle = pool.to_handle();
    drop(pool);
    assert_eq!(ended + running, scaled(10_000));
    assert!(ran.load(Ordering::SeqCst) >= running && ran.load(Ordering::SeqCst) <= scaled(10_000));
    assert_eq!(handle.post(|| {}), Err(Error::Shutdown));

    // While it runs, and after.
    let pool = Pool::new(1).unwrap();
    let (begun, go) = (Count::default(), Count::default());
    let (tell_begun, wait_go) = (begun.clone(), go.clone());
    let alive = Alive::default();
    let token = alive.token();
    let job = pool.persist().run(move |_| {
        let _ = &token;
        tell_begun.up();
        wait_go.wait(1);
    });
    begun.wait(1);
    assert_eq!(job.unwrap().cancel(), Err(Error::Running));
    assert_eq!(alive.get(), 1); // what it captured lives as long as it runs
    go.up();
    alive.wait_for_none();
    assert_eq!(begun.get(), 1);
}

#[test]
fn the_loop_in_the_callers_thread() {
    let pool = Pool::with(Options { caller_loop: true, ..Options::default() }).unwrap();
    let me = std::thread::current().id();
    let ran = Count::default();
    let seen = ran.clone();
    assert_eq!(pool.post(|| {}), Err(Error::InvalidRequest)); // there are no workers
    let looped = pool.in_loop();
    looped.post(move || touch((seen.up(), assert_eq!(std::thread::current().id(), me)))).unwrap();
    assert!(is_readable(&pool));
    assert_eq!(pool.turn(Some(Duration::ZERO)), Ok(true));
    assert_eq!(ran.get(), 1);
    while pool.turn(Some(Duration::ZERO)).unwrap() {}
    assert!(!is_readable(&pool));
    let begun = Instant::now();
    assert_eq!(pool.turn(Some(5 * MS)), Ok(false));
    assert!(begun.elapsed() >= 5 * MS);
    let handle = pool.to_handle();
    looped.after(MS, move |_| handle.shutdown()).unwrap().detach();
    pool.run_loop().unwrap();
    assert_eq!(pool.turn(None), Err(Error::Shutdown));

    // One that nobody ran, and one that another thread ran, end as well.
    let alive = Alive::default();
    for elsewhere in [false, true] {
        let pool = Pool::with(Options { workers: 1, caller_loop: true, ..Options::default() }).unwrap();
        for handle in [pool.to_handle(), pool.in_loop()] {
            let token = alive.token();
            handle.post(move || drop(token)).unwrap();
        }
        let token = alive.token();
        pool.after(Duration::MAX, move |_| touch(&token)).unwrap().detach();
        if elsewhere {
            std::thread::scope(|scope| {
                scope.spawn(|| assert!(pool.turn(None).is_ok()));
            });
        }
        drop(pool);
        assert_eq!(alive.get(), 0);
    }
}

fn is_readable(pool: &Pool) -> bool {
    use std::os::fd::AsRawFd;
    let mut poll = libc::pollfd { fd: pool.wait_fd().unwrap().as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: it is one pollfd.
    unsafe { libc::poll(&mut poll, 1, 0) == 1 }
}
