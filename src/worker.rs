// SPDX-License-Identifier: GPL-3.0-or-later
//! A worker: it runs what the work queue holds, until nothing more comes.

use std::sync::atomic::Ordering;

use crate::job::state::{self, After, Work};
use crate::job::{JobPtr, Kind};
use crate::perturb::perturb;
use crate::run;
use crate::shared::free::Spent;
use crate::shared::{Shared, queue_of};
use crate::workq::Seat;

/// A worker's life: run what comes, until nothing more does.
pub(crate) fn work(pool: &Shared) {
    pool.enter(false);
    let mut seat = pool.work.seat(pool.seats.fetch_add(1, Ordering::Relaxed));
    let mut spent = Spent::new();
    while let Some(job) = pool.work.next(&mut seat, || spent.give_back()) {
        match job.state.take_work() {
            Work::Run => run_job(pool, job, &seat, &mut spent),
            Work::Leave => {}
            Work::Close => close(pool, job),
            // SAFETY: disposed of, and the work queue was the last that held it.
            Work::Free => unsafe { spent.free(job) },
        }
    }
    debug_assert!(spent.is_empty());
}

/// The loop left it to a worker to close the descriptor of `job`, which may block.
#[cold]
#[inline(never)]
fn close(pool: &Shared, job: JobPtr) {
    // Once more: a job that was made for the number since the loop counted was made for what is
    // closed now.
    pool.fds.entry(job.fd()).count_close();
    job.close();
    job.state.closed();
    perturb("closed by a worker, and the loop not asked for the rest");
    pool.request(job);
}

fn run_job(pool: &Shared, job: JobPtr, seat: &Seat, spent: &mut Spent) {
    let now = job.kind() == Kind::Now;
    // Descriptors and signals are the loop's to let go of; the others nobody else knows.
    let own = now || job.kind() == Kind::Timer;
    let arm = queue_of(job.kind());
    let dispose = if own { 0 } else { state::REQ };
    match run::run(job, arm, dispose) {
        After::Idle => run::count_idle(pool),
        After::Armed if now => pool.work.push_near(seat, job),
        After::Dispose if own => {
            if run::dispose(job) {
                // SAFETY: `dispose` says so.
                unsafe { spent.free(job) };
            }
        }
        After::Armed | After::Dispose => pool.request(job),
    }
}
