// SPDX-License-Identifier: GPL-3.0-or-later
//! Groups. The rule of a group, [`Core`], is the library's own; jobs, queues and agents are rewritten
//! here, as short as possible.
//!
//! Agents that are sent wait in queues. A worker, or the loop, serves what it finds there and then
//! goes; at the end of a model the main thread serves what is left, alone. A job that waits without
//! an agent is then found not to have run.

mod cancel;
mod end;
mod job;
mod run;

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize as Counter, Ordering::Relaxed};

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread::{self, JoinHandle};

use super::explore;
use crate::group::core::{Arrived, Came, Core, Guard, Next, Place, Refused, Send as Agents};
use crate::job::state::{self, After, Arm, End, State};
use crate::job::wait::{Outcome, Waiters};
use crate::list::Link;
use crate::sync::{AtomicBool, AtomicUsize, Memory, Ordering};
use crate::workq::Queue;
use job::{Job, Kind, NOW, Ptr};

enum Request {
    Job(Ptr),
    /// The members of a cancelled group.
    Members,
}

/// A pool with one group.
struct Pool {
    core: Core<Ptr>,
    width: usize,
    waiters: Waiters,
    /// The group's memory.
    memory: Memory,
    jobs: Vec<Box<Job>>,
    /// Agents for workers, and for the loop.
    work: Queue<()>,
    loop_work: Queue<()>,
    requests: Queue<Request>,
    /// The workers have left.
    late: Cell<bool>,
    /// After so many jobs an agent gives way.
    turn: usize,
    /// The numbers of the jobs that ran, in order. With width 1 only the group keeps threads apart.
    log: UnsafeCell<Vec<usize>>,
    /// With another width this is what callbacks write.
    inside: Counter,
    /// The workers need not stay for the group any more.
    let_go: AtomicBool,
    /// Something that makes other threads run meanwhile.
    step: AtomicUsize,
    /// The done callback of the group ran.
    ended: UnsafeCell<bool>,
}

// SAFETY: as for `Ptr`; `late` is the main thread's.
unsafe impl Sync for Pool {}
// SAFETY: as above.
unsafe impl Send for Pool {}

impl Pool {
    /// A pool with these jobs, none of which is in the group yet.
    fn new(width: usize, kinds: &[Kind]) -> Arc<Self> {
        Self::with_turn(width, kinds, 64)
    }

    fn with_turn(width: usize, kinds: &[Kind], turn: usize) -> Arc<Self> {
        let job = |(number, kind): (usize, &Kind)| {
            let queue = if kind.watched {
                state::REQ
            } else {
                state::WORK
            };
            Box::new(Job {
                link: Link::new(),
                state: if kind.idle {
                    State::waiting()
                } else {
                    State::armed(queue)
                },
                marks: Cell::new(0),
                kind: *kind,
                number,
                runs: Counter::new(0),
                disposals: Counter::new(0),
                data: UnsafeCell::new(0),
            })
        };
        Arc::new(Self {
            core: Core::new(width),
            width,
            waiters: Waiters::new(),
            memory: Memory::new(),
            jobs: kinds.iter().enumerate().map(job).collect(),
            work: Queue::new(),
            loop_work: Queue::new(),
            requests: Queue::new(),
            late: Cell::new(false),
            turn,
            log: UnsafeCell::new(Vec::new()),
            inside: Counter::new(0),
            let_go: AtomicBool::new(false),
            step: AtomicUsize::new(0),
            ended: UnsafeCell::new(false),
        })
    }

    fn job(&self, number: usize) -> Ptr {
        Ptr(std::ptr::from_ref(&*self.jobs[number]))
    }

    fn lock(&self) -> Guard<'_, Ptr> {
        self.memory.used();
        self.core.lock(&self.waiters)
    }

    fn send(&self, agents: Agents) {
        if agents.to_worker {
            self.memory.used();
            self.work.push(());
        }
        if agents.to_loop {
            self.memory.used();
            self.loop_work.push(());
        }
        if agents.let_go {
            assert!(!self.let_go.swap(true, Ordering::AcqRel));
        }
    }

    /// Something under the lock.
    fn change<R>(&self, change: impl FnOnce(&Guard<'_, Ptr>) -> R) -> R {
        let guard = self.lock();
        let result = change(&guard);
        let agents = guard.unlock();
        self.send(agents);
        result
    }

    // The application's calls.

    fn add(&self, number: usize) -> Result<(), Refused> {
        let job = self.job(number);
        job.own();
        if job.kind.idle || job.kind.watched || self.width != 1 {
            // A job with a trigger joins before it is armed.
            let armed = !job.kind.idle && !job.kind.watched;
            return self.change(|group| group.add(job, armed, false));
        }
        let to_loop = job.kind.in_loop;
        if self.core.push(job)? {
            self.send(Agents {
                to_worker: !to_loop,
                to_loop,
                let_go: false,
            });
        }
        Ok(())
    }

    fn rearm(&self, number: usize) -> Arm {
        let job = self.job(number);
        let queue = job.queue();
        let armed = self.change(|group| group.arm(job, queue, false));
        if armed == Arm::Push && queue == state::REQ {
            self.requests.push(Request::Job(job));
        }
        armed
    }

    fn cancel(&self, number: usize) -> End {
        let job = self.job(number);
        let end = self.change(|group| group.end(job, true));
        if matches!(end, End::Push | End::PushIdle) {
            // No callback of its runs, or will.
            job.own();
            self.requests.push(Request::Job(job));
        }
        end
    }

    /// Cancel the group. Returns whether a callback runs.
    fn cancel_group(&self) -> bool {
        let (first, running) = self.change(|group| (group.cancel(), group.running() > 0));
        if first {
            self.requests.push(Request::Members);
        }
        running
    }

    fn release(&self) {
        assert!(self.change(|group| group.release()));
    }

    fn wait(&self, deadline: Option<u64>) -> Outcome {
        let group = self.lock();
        if group.is_quiet(0) {
            let agents = group.unlock();
            self.send(agents);
            return Outcome::Idle;
        }
        group.wait(false, deadline, || false, ())
    }

    // Agents.

    fn serve(&self, place: Place, came: Came) {
        let guard = self.lock();
        guard.begin(came);
        let (mut next, mut agents) = guard.next(place, false);
        let mut ran = 0;
        loop {
            self.send(agents);
            let (job, after, free) = match next {
                Next::Run(job) => (Some(job), Some(self.run(job, place)), false),
                Next::Farewell(job) | Next::Finish(job) => (Some(job), None, self.dispose(job)),
                Next::Free(job) => (None, None, self.spare(job)),
                Next::Request(job) => {
                    self.requests.push(Request::Job(job));
                    (None, None, false)
                }
                Next::Move(Place::Worker) => return self.work.push(()),
                Next::Move(_) => return self.loop_work.push(()),
                Next::Leave => return,
                Next::End => return self.end(),
            };
            ran += 1;
            let for_loop = match after {
                Some(After::Armed | After::Dispose) => job.filter(|job| job.kind.watched),
                _ => None,
            };
            let guard = self.lock();
            let mut spent = None;
            if let Some(job) = job {
                guard.returned();
                if self.settle(&guard, job, after, free) {
                    spent = Some(job);
                }
            }
            (next, agents) = guard.next(place, ran >= self.turn);
            if let Some(job) = for_loop {
                self.requests.push(Request::Job(job));
            }
            if let Some(job) = spent {
                job.free();
            }
        }
    }

    /// What follows from a job that was run, or disposed of. True if the caller is to free it.
    fn settle(&self, guard: &Guard<'_, Ptr>, job: Ptr, after: Option<After>, free: bool) -> bool {
        match after {
            None => {
                if free {
                    guard.count_out();
                }
                free
            }
            Some(After::Idle) => {
                guard.count_idle();
                false
            }
            Some(After::Armed) if !job.kind.watched => {
                let free = guard.enqueue(job) == Arrived::Free;
                if free {
                    guard.count_out();
                }
                free
            }
            Some(After::Dispose) if !job.kind.watched => {
                if job.kind.silent {
                    return guard.forget_run(job);
                }
                guard.farewell(job);
                false
            }
            Some(After::Armed | After::Dispose) => false,
        }
    }

    /// A job was disposed of on its way: count it out, and free it.
    fn spare(&self, job: Ptr) -> bool {
        self.change(|group| group.count_out());
        job.free();
        false
    }

    /// What callbacks of either kind do.
    fn call(&self, job: Ptr, number: usize) {
        let before = self.inside.fetch_add(1, Relaxed);
        assert!(self.width == 0 || before < self.width, "too many at once");
        job.own();
        if self.width == 1 {
            // SAFETY: loom reports any concurrent access to the cell.
            self.log.with_mut(|log| unsafe { (*log).push(number) });
        } else {
            self.step.load(Ordering::Relaxed);
        }
        self.inside.fetch_sub(1, Relaxed);
    }

    fn run(&self, job: Ptr, place: Place) -> After {
        assert_ne!(place, Place::Late, "a callback after the workers have left");
        assert_eq!(
            job.kind.in_loop,
            place == Place::Loop,
            "in the wrong thread"
        );
        self.call(job, job.number);
        if job.runs.fetch_add(1, Relaxed) == 0 && job.kind.again {
            let _ = self.rearm(job.number);
        }
        let disposal = if job.kind.watched { state::REQ } else { 0 };
        let state = &job.state;
        state.finish(&self.waiters, false, || true, job.queue(), disposal)
    }

    /// The done callback of a job. True if the caller is to free it.
    fn dispose(&self, job: Ptr) -> bool {
        job.state.begin_disposal();
        self.call(job, 100 + job.number);
        assert_eq!(job.disposals.fetch_add(1, Relaxed), 0, "disposed of twice");
        job.state.end_disposal()
    }

    /// The group's own end.
    fn end(&self) {
        // SAFETY: loom reports any concurrent access to the cells.
        unsafe {
            self.log.with_mut(|_| ());
            assert!(!self.ended.with_mut(|ended| (*ended, *ended = true).0));
        }
        self.memory.free();
    }

    // Threads.

    /// A worker: serves what it finds.
    fn work(&self) {
        while self.work.pop().is_some() {
            self.serve(Place::Worker, Came::FromWork);
        }
    }

    fn place(&self) -> Place {
        if self.late.get() {
            Place::Late
        } else {
            Place::Loop
        }
    }

    /// The loop: takes what it finds. A job fires as soon as it is armed.
    fn turns(&self) {
        loop {
            if let Some(request) = self.requests.pop() {
                match request {
                    Request::Job(job) => {
                        if job.state.take_request() == state::ARMED {
                            self.fire(job);
                        } else {
                            self.farewell(job);
                        }
                    }
                    Request::Members => self.finish_members(),
                }
            } else if self.loop_work.pop().is_some() {
                self.serve(self.place(), Came::FromLoop);
            } else {
                return;
            }
        }
    }

    fn fire(&self, job: Ptr) {
        if !job.state.dispatch() {
            return;
        }
        let free = self.change(|group| {
            let free = group.enqueue(job) == Arrived::Free;
            if free {
                group.count_out();
            }
            free
        });
        if free {
            job.free();
        }
    }

    /// The loop disposes of a job.
    fn farewell(&self, job: Ptr) {
        let mut spent = false;
        let here = self.change(|group| {
            if job.kind.silent {
                spent = group.forget(job);
            } else {
                group.farewell(job);
            }
            group.take_slot_here(self.place())
        });
        if spent {
            job.free();
        }
        if here {
            self.serve(self.place(), Came::Here);
        }
    }

    fn finish_members(&self) {
        while let Some((job, _)) = self.change(|group| group.next_member()) {
            let _ = job.state.take_request();
            self.farewell(job);
        }
    }

    /// Serve what is left. No other thread runs any more.
    fn rest(&self) {
        loop {
            self.work();
            self.turns();
            if self.work.is_empty() && self.loop_work.is_empty() && self.requests.is_empty() {
                return;
            }
        }
    }

    /// What ran, in order.
    fn log(&self) -> Vec<usize> {
        // SAFETY: loom reports any concurrent access to the cell.
        self.log.with(|log| unsafe { (*log).clone() })
    }

    fn has_ended(&self) -> bool {
        // SAFETY: loom reports any concurrent access to the cell.
        self.ended.with(|ended| unsafe { *ended })
    }

    /// End the group, with all that is in it.
    fn close(&self) {
        self.cancel_group();
        self.release();
        self.rest();
        assert!(self.has_ended());
    }
}

/// A thread that does `body` with the pool.
fn beside(pool: &Arc<Pool>, body: fn(&Pool)) -> JoinHandle<()> {
    let pool = Arc::clone(pool);
    thread::spawn(move || body(&pool))
}
