// SPDX-License-Identifier: GPL-3.0-or-later
//! An echo server of tasks: `echo-async PORT`. It ends on SIGTERM. The first half, to copy, makes of a pool an
//! executor, and of its jobs futures, which other executors can await as well.

use std::future::Future;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use nunc_stans_rs::{Error, Event, Group, Handle, Job, Pool, Result};

/// A wait: `Ok(false)` if the time was up first, `Err` if the pool ends. Dropping it ends it.
struct Ready {
    _job: Option<Job>,
    outcome: Arc<Mutex<Outcome>>,
}

#[derive(Default)]
struct Outcome {
    result: Option<Result<bool>>,
    waker: Option<Waker>,
}

/// The job's side. If the job goes without having fired, the pool ends, or nobody waits any more.
struct Promise(Arc<Mutex<Outcome>>);

impl Promise {
    fn keep(&self, result: Result<bool>) {
        let mut outcome = self.0.lock().unwrap();
        outcome.result.get_or_insert(result);
        let waker = outcome.waker.take();
        drop(outcome);
        waker.into_iter().for_each(Waker::wake);
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        self.keep(Err(Error::Shutdown));
    }
}

impl Future for Ready {
    type Output = Result<bool>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<bool>> {
        let mut outcome = self.outcome.lock().unwrap();
        outcome.waker = Some(context.waker().clone());
        outcome.result.map_or(Poll::Pending, Poll::Ready)
    }
}

fn promise(add: impl FnOnce(Box<dyn FnMut(&Event<'_>) + Send>) -> Result<Job>) -> Ready {
    let promise = Promise(Arc::default());
    let outcome = promise.0.clone();
    let job = add(Box::new(move |event| promise.keep(Ok(!event.is_timed_out()))));
    Ready { _job: job.map_err(|error| outcome.lock().unwrap().result = Some(Err(error))).ok(), outcome }
}

/// Until a descriptor is readable, or the handle's time-out is up.
fn readable<S: AsFd + Send + Sync + 'static>(pool: &Handle, source: &Arc<S>) -> Ready {
    promise(|mut fired| pool.in_loop().on_readable(source.clone(), move |event, _| fired(event)))
}

/// A future in a group of width 1, in which polls never overlap.
struct Task {
    group: Group,
    /// A poll is on its way: one more wake makes no other.
    queued: AtomicBool,
    future: Mutex<Option<Pin<Box<dyn Future<Output = ()> + Send>>>>,
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        if !self.queued.swap(true, Ordering::AcqRel) {
            let task = self.clone();
            // Refused when the pool ends: then this was the last reference, and the future is dropped.
            let _ = self.group.post(move || task.poll());
        }
    }
}

impl Task {
    fn poll(self: Arc<Self>) {
        self.queued.store(false, Ordering::Release);
        let Some(mut future) = self.future.lock().unwrap().take() else { return };
        let waker = Waker::from(self.clone());
        if future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
            *self.future.lock().unwrap() = Some(future);
        }
    }
}

fn spawn(pool: &Handle, future: impl Future<Output = ()> + Send + 'static) -> Result<()> {
    let future: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(future);
    let (group, future) = (pool.group(1)?, Mutex::new(Some(future)));
    Arc::new(Task { group, queued: AtomicBool::new(false), future }).wake();
    Ok(())
}

async fn serve(pool: Handle, client: TcpStream) {
    let client = Arc::new(client);
    let mut bytes = [0; 4096];
    while let Ok(true) = readable(&pool.timeout(Duration::from_secs(30)), &client).await {
        match (&*client).read(&mut bytes) {
            Ok(n) if n > 0 && (&*client).write_all(&bytes[..n]).is_ok() => {}
            _ => return,
        }
    }
}

async fn accept(pool: Handle, listener: TcpListener) {
    let listener = Arc::new(listener);
    while readable(&pool, &listener).await.is_ok() {
        match listener.accept() {
            Ok((client, _)) => _ = spawn(&pool, serve(pool.clone(), client)),
            // Out of descriptors: rest, rather than spin.
            Err(_) => _ = promise(|fired| pool.in_loop().after(Duration::from_millis(100), fired)).await,
        }
    }
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let port = std::env::args().nth(1).unwrap_or("7007".into()).parse()?;
    let pool = Pool::new(2)?;
    let listener = TcpListener::bind(("127.0.0.1", port))?;
    println!("listening on port {}", listener.local_addr()?.port());
    spawn(&pool, accept(pool.to_handle(), listener))?;
    let handle = pool.to_handle();
    let _stop = pool.on_signal(libc::SIGTERM, move |_| handle.shutdown())?;
    pool.wait()?;
    println!("done");
    Ok(())
}
