// SPDX-License-Identifier: GPL-3.0-or-later
//! Groups.

mod common;

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use common::*;
use nunc_stans_rs::{Error, Pool};

#[test]
fn one_at_a_time_and_in_order() {
    let pool = Pool::new(4).unwrap();
    let n = scaled(20_000);
    let group = pool.group(1).unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let inside = Arc::new(AtomicBool::new(false));
    for i in 0..n {
        let (seen, inside, own) = (seen.clone(), inside.clone(), group.clone());
        let handle = if i % 7 == 0 { group.in_loop() } else { group.to_handle() };
        let call = move || {
            assert!(!inside.swap(true, Ordering::SeqCst));
            assert!(own.is_current());
            seen.try_lock().unwrap().push(i);
            inside.store(false, Ordering::SeqCst);
        };
        handle.post(call).unwrap();
    }
    assert!(!group.is_current());
    group.wait(Some(LONG)).unwrap();
    assert_eq!(*seen.lock().unwrap(), (0..n).collect::<Vec<_>>());
    // Once nobody holds it, what it used goes.
    drop(group);
    eventually(|| Arc::strong_count(&seen) == 1);
}

#[test]
fn a_width_is_a_limit() {
    let pool = Pool::new(4).unwrap();
    let group = pool.group(2).unwrap();
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let both = Count::default();
    for _ in 0..scaled(2000) {
        let (now, most, both) = (now.clone(), most.clone(), both.clone());
        let call = move || {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            both.up();
            both.wait(2); // so two of them do overlap
            now.fetch_sub(1, Ordering::SeqCst);
        };
        group.post(call).unwrap();
    }
    group.wait(Some(LONG)).unwrap();
    assert_eq!(most.load(Ordering::SeqCst), 2);
}

#[test]
fn suspended_limited_and_resumed() {
    let pool = Pool::new(2).unwrap();
    let group = pool.group(1).unwrap();
    let ran = Count::default();
    assert_eq!(group.resume(), Err(Error::InvalidState));
    group.suspend().unwrap();
    group.set_limit(3);
    for _ in 0..3 {
        let ran = ran.clone();
        group.post(move || ran.up()).unwrap();
    }
    assert_eq!((group.queue_length(), group.post(|| unreachable!())), (3, Err(Error::Overloaded)));
    assert_eq!(group.wait(Some(Duration::from_millis(5))), Err(Error::Timeout));
    group.resume().unwrap();
    ran.wait(3);
    group.wait(Some(LONG)).unwrap();
    assert_eq!(group.queue_length(), 0);
    let own = group.clone();
    let (tell, told) = mpsc::channel();
    // It would wait for itself, if another of its jobs were armed.
    let other = group.after(LONG, |_| unreachable!()).unwrap();
    group.post(move || tell.send(own.wait(None)).unwrap()).unwrap();
    assert_eq!(told.recv_timeout(LONG).unwrap(), Err(Error::InvalidState));
    drop(other);
}

#[test]
fn jobs_of_every_kind_in_a_cancelled_group() {
    let alive = Alive::default();
    let pool = Pool::new(2).unwrap();
    let group = pool.group(1).unwrap();
    let (here, there) = UnixStream::pair().unwrap();
    let (idle_ran, token) = (Count::default(), alive.token());
    let seen = idle_ran.clone();
    let idle = group.run(move |_| touch((&token, seen.up()))).unwrap();
    idle_ran.wait(1);
    group.wait(Some(LONG)).unwrap();
    let token = alive.token();
    let timer = group.after(LONG, move |_| touch(&token)).unwrap();
    let token = alive.token();
    let reader = group.persist().on_readable(here, move |_, _| touch(&token)).unwrap();
    let token = alive.token();
    let signal = group.on_signal(libc::SIGUSR2, move |_| touch(&token)).unwrap();
    group.suspend().unwrap();
    let token = alive.token();
    group.post(move || drop(token)).unwrap();
    assert_eq!(alive.get(), 5);
    group.cancel().unwrap();
    assert_eq!(group.cancel(), Ok(()));
    alive.wait_for_none();
    assert_eq!(group.post(|| {}), Err(Error::Deleting));
    assert_eq!(group.run(|_| {}).err(), Some(Error::Deleting));
    assert_eq!((idle.rearm(), timer.is_over()), (Err(Error::Deleting), true));
    assert_eq!((reader.cancel(), signal.cancel()), (Err(Error::Deleting), Err(Error::Deleting)));
    // The socket is closed.
    eventually(|| (&there).write(b"x").is_err());
    group.wait(Some(LONG)).unwrap();
}

#[test]
fn a_cancel_tells_of_callbacks_that_run() {
    let pool = Pool::new(2).unwrap();
    let group = pool.group(0).unwrap();
    let (begun, go) = (Count::default(), Count::default());
    let (tell, wait) = (begun.clone(), go.clone());
    let job = group.run(move |_| touch((tell.up(), wait.wait(1)))).unwrap();
    begun.wait(1);
    assert_eq!(group.cancel(), Err(Error::Running));
    // From now on nobody may name the group's jobs, though this one is still there.
    assert_eq!((job.rearm(), job.is_over()), (Err(Error::Deleting), true));
    assert_eq!(job.cancel(), Err(Error::Deleting));
    go.up();
    eventually(|| group.cancel() == Ok(()));
    // In a callback of its own.
    let group = pool.group(1).unwrap();
    let (own, (tell, told)) = (group.clone(), mpsc::channel());
    group.post(move || tell.send(own.cancel()).unwrap()).unwrap();
    assert_eq!(told.recv_timeout(LONG).unwrap(), Ok(()));
}

#[test]
fn adds_race_cancels() {
    let alive = Alive::default();
    let pool = Pool::new(2).unwrap();
    for _ in 0..scaled(500) {
        let group = pool.group(1).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for i in 0.. {
                        let token = alive.token();
                        let refused = match i % 2 {
                            0 => group.post(move || drop(token)).is_err(),
                            _ => {
                                group.run(move |event| touch((&token, event.rearm()))).map(|job| job.detach()).is_err()
                            }
                        };
                        if refused {
                            break;
                        }
                    }
                });
            }
            eventually(|| alive.get() > 4);
            let _ = group.cancel();
        });
        drop(group);
    }
    alive.wait_for_none();
}
