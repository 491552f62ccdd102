// SPDX-License-Identifier: GPL-3.0-or-later
//! Panics, the log, and the ends of pools.

mod common;

use std::os::unix::net::UnixStream;
use std::panic::panic_any;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use common::*;
use nunc_stans_rs::{Error, Event, Group, Handle, Job, Options, Pool, set_log};

/// Panics when it is dropped.
struct Trap;

impl Drop for Trap {
    fn drop(&mut self) {
        panic!("a trap");
    }
}

#[test]
fn a_panic_ends_the_job_and_nothing_else() {
    let (tell, told) = mpsc::channel();
    let tell = Mutex::new(tell);
    let on_panic = move |thrown: Box<dyn std::any::Any + Send>| {
        let text = thrown.downcast_ref::<&str>().map_or("another".into(), |text| text.to_string());
        tell.lock().unwrap().send(text).unwrap();
        if thrown.is::<&str>() {
            panic_any(Trap); // the hook may panic, and so may what it throws, or drops
        }
    };
    let pool = Pool::with(Options { on_panic: Some(Box::new(on_panic)), ..Options::default() }).unwrap();
    let alive = Alive::default();
    for handle in [pool.to_handle(), pool.in_loop()] {
        let token = alive.token();
        let post = move || {
            touch(&token);
            panic!("posted")
        };
        handle.post(post).unwrap();
        assert_eq!(told.recv_timeout(LONG).unwrap(), "posted");
        let token = alive.token();
        let tick = move |_: &Event<'_>| {
            touch(&token);
            panic!("a timer")
        };
        let job = handle.every(Duration::ZERO, tick).unwrap();
        assert_eq!(told.recv_timeout(LONG).unwrap(), "a timer");
        eventually(|| job.is_over());
        assert_eq!(job.rearm(), Err(Error::Deleting));
        let trap = Trap;
        handle.post(move || panic_any(trap)).unwrap();
        assert_eq!(told.recv_timeout(LONG).unwrap(), "another");
    }
    // What is dropped in the pool's threads may panic.
    let (trap, token) = (Trap, alive.token());
    drop(pool.after(LONG, move |_| touch((&trap, &token))).unwrap());
    assert_eq!(told.recv_timeout(LONG).unwrap(), "a trap");
    alive.wait_for_none();
    assert!(told.try_recv().is_err());
}

#[test]
fn the_log_is_a_function_that_is_kept_out() {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let (seen, inside) = (lines.clone(), Arc::new(Mutex::new(None::<(Handle, Job)>)));
    let used = inside.clone();
    set_log(move |priority, line| {
        // Calls here are refused, rather than waiting for what the caller of the log holds.
        let calls = used.try_lock().ok().and_then(|used| {
            let (handle, job) = used.as_ref()?;
            let pool = Pool::new(1).err();
            Some([handle.post(|| {}).err(), job.rearm().err(), handle.group(1).err(), pool])
        });
        seen.lock().unwrap().push((priority, line.to_string(), calls));
    });
    let options = Options { framework: Some("none such".into()), ..Options::default() };
    assert_eq!(Pool::with(options).err(), Some(Error::InvalidRequest));
    let has = |priority, text: &str, refused: bool| {
        let expected = refused.then_some([Some(Error::InvalidState); 4]);
        let here = |line: &(i32, String, _)| line.0 == priority && line.1.contains(text) && line.2 == expected;
        lines.lock().unwrap().iter().any(here)
    };
    assert!(has(libc::LOG_ERR, "none such", false), "{lines:?}");
    let pool = Pool::new(1).unwrap();
    let job = pool.after(LONG, |_| {}).unwrap();
    *inside.lock().unwrap() = Some((pool.to_handle(), job));
    pool.post(|| panic!("for the log")).unwrap();
    eventually(|| has(libc::LOG_ERR, "panicked", true));
    let (here, _there) = UnixStream::pair().unwrap();
    assert!(pool.cadence().on_readable(here, |_, _| {}).is_err());
    eventually(|| has(libc::LOG_ERR, "NS_JOB_CADENCE", true) || has(libc::LOG_ERR, "job_type", true));
    lines.lock().unwrap().clear();
    *inside.lock().unwrap() = None;
}

/// What is dropped in some order.
enum Thing {
    Pool(Pool),
    Jobs(Vec<Job>),
    Group(Group),
    Handle(Handle),
}

#[test]
fn drops_in_every_order() {
    for order in orders(vec![0, 1, 2, 3]) {
        for caller_loop in [false, true] {
            let alive = Alive::default();
            let pool = Pool::with(Options { workers: 2, caller_loop, ..Options::default() }).unwrap();
            let group = pool.group(1).unwrap();
            let (here, there) = UnixStream::pair().unwrap();
            let token = || alive.token();
            let (a, b, c, d, e) = (token(), token(), token(), token(), token());
            let jobs = vec![
                pool.persist().on_readable(here, move |_, _| touch(&a)).unwrap(),
                group.on_readable(there, move |_, _| touch(&b)).unwrap(),
                group.every(Duration::from_micros(50), move |_| touch(&c)).unwrap(),
                pool.run(move |_| touch(&d)).unwrap(),
                pool.after(Duration::MAX, move |_| touch(&e)).unwrap(),
            ];
            // Cycles: what these capture refers to pool and group.
            let (own, token) = ((pool.to_handle(), group.clone()), alive.token());
            group.persist().on_signal(libc::SIGUSR1, move |_| touch((&own, &token))).unwrap().detach();
            let (own, token) = (group.clone(), alive.token());
            group.suspend().unwrap();
            group.post(move || touch((own, token))).unwrap();
            let handle = pool.to_handle();
            let mut things = [
                Some(Thing::Pool(pool)),
                Some(Thing::Jobs(jobs)),
                Some(Thing::Group(group)),
                Some(Thing::Handle(handle)),
            ];
            for &i in &order {
                match things[i].take().unwrap() {
                    Thing::Pool(pool) => {
                        drop(pool);
                        assert_eq!(alive.get(), 0, "{order:?} {caller_loop}");
                    }
                    Thing::Jobs(jobs) => jobs.into_iter().for_each(|job| touch((job.rearm(), job.is_over(), job))),
                    Thing::Group(group) => drop((group.post(|| {}), group.queue_length(), group)),
                    Thing::Handle(handle) => drop((handle.post(|| {}), handle.group(0).is_ok(), handle)),
                }
            }
        }
    }
}

fn orders(of: Vec<usize>) -> Vec<Vec<usize>> {
    if of.is_empty() {
        return vec![of];
    }
    let with = |&first: &usize| {
        let rest = of.iter().copied().filter(|&i| i != first).collect();
        orders(rest).into_iter().map(move |rest| [vec![first], rest].concat())
    };
    of.iter().flat_map(with).collect()
}

#[test]
fn a_pool_is_dropped_by_its_own_callbacks() {
    for in_loop in [false, true] {
        let alive = Alive::default();
        let pool = Arc::new(Pool::new(2).unwrap());
        let handle = if in_loop { pool.in_loop() } else { pool.to_handle() };
        let (token, mine) = (alive.token(), Mutex::new(Some(pool.clone())));
        let ready = Count::default();
        let wait = ready.clone();
        let job = handle.run(move |_| {
            let _ = &token;
            wait.wait(1); // the other one is gone by then
            drop(mine.lock().unwrap().take());
        });
        drop(pool);
        ready.up();
        alive.wait_for_none();
        assert_eq!(job.unwrap().rearm(), Err(Error::Shutdown));

        // Or by what a callback captured, when that goes.
        let pool = Arc::new(Pool::new(1).unwrap());
        let handle = if in_loop { pool.in_loop() } else { pool.to_handle() };
        let (token, mine) = (alive.token(), pool.clone());
        let ready = Count::default();
        let wait = ready.clone();
        handle.post(move || touch((wait.wait(1), &mine, &token))).unwrap();
        drop(pool);
        ready.up();
        alive.wait_for_none();
        eventually(|| handle.is_shutdown());
    }
}

#[test]
fn a_pool_goes_while_others_wait_and_add() {
    for caller_loop in [false, true] {
        let pool = Pool::with(Options { workers: 2, caller_loop, ..Options::default() }).unwrap();
        let (alive, begun) = (Alive::default(), Count::default());
        let group = pool.group(1).unwrap();
        let (token, kept) = (alive.token(), group.clone());
        kept.after(LONG, move |_| touch(&token)).unwrap().detach();
        let threads: Vec<_> = (0..4)
            .map(|i| {
                let (handle, group, alive, begun) = (pool.to_handle(), group.clone(), alive.clone(), begun.clone());
                std::thread::spawn(move || {
                    begun.up();
                    if i == 0 {
                        return group.wait(None); // its timer has a minute to go
                    }
                    loop {
                        let token = alive.token();
                        let add = match i {
                            1 => handle.post(move || drop(token)),
                            2 => handle.run(move |event| touch((event.rearm(), &token))).map(drop),
                            _ => group.after(Duration::ZERO, move |_| touch(&token)).map(Job::detach),
                        };
                        add?;
                    }
                })
            })
            .collect();
        begun.wait(4);
        std::thread::yield_now();
        drop(pool);
        for thread in threads {
            assert_eq!(thread.join().unwrap(), Err(Error::Shutdown));
        }
        assert_eq!(alive.get(), 0);
    }
}

#[test]
fn many_pools_end_under_fire() {
    let alive = Alive::default();
    for round in 0..scaled(2000) {
        let pool = Pool::new(1 + round % 2).unwrap();
        let (here, there) = UnixStream::pair().unwrap();
        let (a, b) = (alive.token(), alive.token());
        pool.in_loop().every(Duration::ZERO, move |_| touch(&a)).unwrap().detach();
        pool.persist().on_io(here, nunc_stans_rs::Interest::WRITE, move |_, _| touch(&b)).unwrap().detach();
        let handle = pool.to_handle();
        let token = alive.token();
        pool.run(move |event| touch((event.rearm(), handle.post(|| {}), &token))).unwrap().detach();
        drop((pool, there));
        assert_eq!(alive.get(), 0, "{round}");
    }
}
