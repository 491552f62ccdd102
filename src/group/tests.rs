// SPDX-License-Identifier: GPL-3.0-or-later
//! Random sequences of everything that happens to a group, in one thread, against a plain reference:
//! a list of the jobs whose turn is next. Several agents are in the middle of a job at a time. Jobs
//! and the group are freed when the rule says so, which Miri watches.

use std::cell::Cell;
use std::collections::VecDeque;

use super::core::*;
use crate::job::state::{self, After, Arm, End, State};
use crate::job::wait::Waiters;
use crate::list::Link;

#[repr(C)]
struct Job {
    link: Link,
    state: State,
    marks: Cell<u8>,
    number: usize,
    in_loop: bool,
    /// The loop arms it and disposes of it.
    watched: bool,
    silent: bool,
}

#[derive(Clone, Copy)]
struct Ptr(*mut Job);
impl std::ops::Deref for Ptr {
    type Target = Job;

    fn deref(&self) -> &Job {
        // SAFETY: freed by `Sim::free` alone, when nobody has it any more.
        unsafe { &*self.0 }
    }
}

impl Member for Ptr {
    fn link(self) -> *const Link {
        self.0.cast_const().cast()
    }

    unsafe fn of_link(link: *const Link) -> Self {
        Self(link.cast_mut().cast())
    }

    fn state(&self) -> &State {
        &self.state
    }

    fn is_for_loop(&self) -> bool {
        self.in_loop
    }

    fn is_own(&self) -> bool {
        !self.watched
    }

    fn marks(&self) -> u8 {
        self.marks.get()
    }

    fn set_marks(&self, marks: u8) {
        self.marks.set(marks);
    }
}

enum Request {
    Job(Ptr),
    Members,
}

/// An agent in the middle of a callback, or of a done callback.
struct Agent {
    place: Place,
    job: Ptr,
    is_farewell: bool,
}

struct Sim<'a> {
    core: Option<Box<Core<Ptr>>>,
    waiters: &'a Waiters,
    width: usize,
    seed: u64,
    /// Agents on the way.
    work: usize,
    loop_work: usize,
    requests: VecDeque<Request>,
    agents: Vec<Agent>,
    /// What the application may still name.
    known: Vec<Ptr>,
    /// How many these are.
    most: usize,
    /// The reference: the numbers of the jobs in the queue.
    queue: VecDeque<usize>,
    suspended: usize,
    cancelled: bool,
    holds: usize,
    made: usize,
    freed: usize,
}

const WORKERS: usize = 3;

impl<'a> Sim<'a> {
    fn random(&mut self, below: usize) -> usize {
        // Knuth's MMIX generator.
        self.seed = self
            .seed
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (self.seed >> 33) as usize % below
    }

    /// Do something under the lock, and send the agents that are wanted.
    fn change<R>(&mut self, change: impl FnOnce(&Guard<'_, Ptr>) -> R) -> R {
        let guard = self.core.as_ref().unwrap().lock(self.waiters);
        let result = change(&guard);
        let agents = guard.unlock();
        self.send(agents);
        result
    }

    fn send(&mut self, agents: Send) {
        self.work += usize::from(agents.to_worker);
        self.loop_work += usize::from(agents.to_loop);
        assert!(!agents.let_go);
    }

    fn free(&mut self, job: Ptr) {
        self.known.retain(|known| known.0 != job.0);
        // SAFETY: made by `add`; the rule says that nobody has it.
        drop(unsafe { Box::from_raw(job.0) });
        self.freed += 1;
    }

    fn add(&mut self) {
        let watched = self.random(3) == 0;
        let idle = watched || self.random(4) == 0;
        let job = Ptr(Box::into_raw(Box::new(Job {
            link: Link::new(),
            state: if idle {
                State::waiting()
            } else {
                State::armed(state::WORK)
            },
            marks: Cell::new(0),
            number: self.made,
            in_loop: self.random(3) == 0,
            watched,
            silent: self.random(2) == 0,
        })));
        let added = if !idle && self.width == 1 && self.random(2) == 0 {
            let pushed = self.core.as_ref().unwrap().push(job);
            pushed.map(|sends| {
                self.work += usize::from(sends && !job.in_loop);
                self.loop_work += usize::from(sends && job.in_loop);
            })
        } else {
            self.change(|group| group.add(job, !idle, false))
        };
        self.made += 1;
        assert_eq!(added.is_err(), self.cancelled);
        if added.is_err() {
            return self.free(job);
        }
        if !idle {
            self.queue.push_back(job.number);
        }
        self.known.push(job);
    }

    fn some_known(&mut self) -> Option<Ptr> {
        let at = self.random(self.known.len().max(1));
        self.known.get(at).copied()
    }

    fn rearm(&mut self, job: Ptr) {
        let queue = if job.watched { state::REQ } else { state::WORK };
        if self.change(|group| group.arm(job, queue, false)) == Arm::Push {
            match job.watched {
                true => self.requests.push_back(Request::Job(job)),
                false => self.queue.push_back(job.number),
            }
        }
    }

    fn cancel(&mut self, job: Ptr) {
        self.known.retain(|known| known.0 != job.0);
        self.queue.retain(|number| *number != job.number);
        match self.change(|group| group.end(job, true)) {
            End::Push | End::PushIdle => self.requests.push_back(Request::Job(job)),
            End::Queued | End::Marked => {}
            other => panic!("{other:?}"),
        }
    }

    fn cancel_group(&mut self) {
        let running = self.change(|group| {
            let first = group.cancel();
            (first, group.running())
        });
        assert_eq!(running.0, !self.cancelled);
        assert_eq!(running.1 as usize, self.agents.len());
        if running.0 {
            self.requests.push_back(Request::Members);
        }
        self.cancelled = true;
        self.queue.clear();
        self.known.clear();
    }

    fn release(&mut self) {
        self.holds -= 1;
        assert!(self.change(|group| group.release()));
    }

    /// The loop disposes of a job.
    fn farewell(&mut self, job: Ptr) {
        let mut spent = false;
        let here = self.change(|group| {
            if job.silent {
                spent = group.forget(job);
            } else {
                group.farewell(job);
            }
            group.take_slot_here(Place::Loop)
        });
        if spent {
            self.free(job);
        }
        if here {
            self.serve(Place::Loop, Came::Here);
        }
    }

    fn take_request(&mut self) {
        match self.requests.pop_front() {
            None => {}
            Some(Request::Members) => {
                let Some((job, _)) = self.change(|group| group.next_member()) else {
                    return;
                };
                self.requests.push_back(Request::Members);
                let _ = job.state.take_request();
                self.farewell(job);
            }
            Some(Request::Job(job)) if job.state.take_request() != state::ARMED => {
                self.farewell(job);
            }
            Some(Request::Job(job)) => {
                // It fires at once.
                assert!(job.state.dispatch());
                assert_eq!(self.change(|group| group.enqueue(job)), Arrived::Queued);
                if !self.cancelled {
                    self.queue.push_back(job.number);
                }
            }
        }
    }

    fn serve(&mut self, place: Place, came: Came) {
        let give_way = self.random(4) == 0;
        let guard = self.core.as_ref().unwrap().lock(self.waiters);
        guard.begin(came);
        let (next, agents) = guard.next(place, give_way);
        self.send(agents);
        self.follow(place, next);
    }

    /// The callback of this agent returns, and it asks what is next.
    fn step(&mut self, index: usize) {
        let agent = self.agents.swap_remove(index);
        let (place, job) = (agent.place, agent.job);
        let mut free = false;
        let mut after = None;
        if agent.is_farewell {
            free = job.state.end_disposal();
        } else {
            let queue = if job.watched { state::REQ } else { state::WORK };
            let disposal = if job.watched { state::REQ } else { 0 };
            let again = self.random(3) == 0;
            let state = &job.state;
            after = Some(state.finish(self.waiters, again, || true, queue, disposal));
        }
        let request = job.watched && matches!(after, Some(After::Armed | After::Dispose));
        let give_way = self.random(3) == 0;
        let guard = self.core.as_ref().unwrap().lock(self.waiters);
        guard.returned();
        match after {
            None if free => guard.count_out(),
            Some(After::Idle) => guard.count_idle(),
            Some(After::Armed) if !job.watched => {
                assert_eq!(guard.enqueue(job), Arrived::Queued);
                if !self.cancelled {
                    self.queue.push_back(job.number);
                }
            }
            Some(After::Dispose) if !job.watched => {
                if !job.silent {
                    guard.farewell(job);
                } else {
                    free = guard.forget(job);
                    assert!(free);
                }
            }
            _ => {}
        }
        let (next, agents) = guard.next(place, give_way);
        self.send(agents);
        if request {
            self.requests.push_back(Request::Job(job));
        }
        if free {
            self.free(job);
        }
        self.follow(place, next);
    }

    fn follow(&mut self, place: Place, next: Next<Ptr>) {
        let (job, is_farewell) = match next {
            Next::Run(job) => (job, false),
            Next::Farewell(job) | Next::Finish(job) => (job, true),
            Next::Request(job) => {
                self.requests.push_back(Request::Job(job));
                return self.serve(place, Came::Here);
            }
            Next::Free(_) => unreachable!("nobody disposes of what is on its way, in one thread"),
            Next::Move(Place::Worker) => return self.work += 1,
            Next::Move(_) => return self.loop_work += 1,
            Next::Leave => return,
            Next::End => {
                assert!(self.agents.is_empty() && self.holds == 0);
                // Its done callback asks, and no second agent ends it.
                assert_eq!(self.change(|group| group.length()), 0);
                assert_eq!(self.work + self.loop_work, 0);
                self.core = None;
                return;
            }
        };
        assert!(
            self.width == 0 || self.agents.len() < self.width,
            "too many at once"
        );
        if is_farewell {
            job.state.begin_disposal();
        } else {
            assert!(self.suspended == 0 && !self.cancelled);
            assert_eq!(job.in_loop, place == Place::Loop);
            let at = self.queue.iter().position(|number| *number == job.number);
            let at = at.expect("it is in the queue");
            assert!(self.width == 0 || at == 0, "out of order");
            self.queue.remove(at);
        }
        self.agents.push(Agent {
            place,
            job,
            is_farewell,
        });
    }

    /// What the pool's threads do. False if there is nothing to do.
    fn turn(&mut self) -> bool {
        let in_loop = self
            .agents
            .iter()
            .filter(|agent| agent.place == Place::Loop)
            .count();
        type Step<'a> = fn(&mut Sim<'a>);
        let mut all: [(bool, Step<'a>); 4] = [
            (!self.agents.is_empty(), |sim| {
                let index = sim.random(sim.agents.len());
                sim.step(index);
            }),
            (
                self.work > 0 && self.agents.len() - in_loop < WORKERS,
                |sim| {
                    sim.work -= 1;
                    sim.serve(Place::Worker, Came::FromWork);
                },
            ),
            (self.loop_work > 0 && in_loop == 0, |sim| {
                sim.loop_work -= 1;
                sim.serve(Place::Loop, Came::FromLoop);
            }),
            (
                !self.requests.is_empty() && in_loop == 0,
                Self::take_request,
            ),
        ];
        let first = self.random(all.len());
        all.rotate_left(first);
        let possible = all.iter().find(|(possible, _)| *possible);
        possible.inspect(|(_, act)| act(self)).is_some()
    }

    /// All that can run does.
    fn rest(&mut self) {
        while self.turn() {}
        assert!(self.queue.is_empty(), "left without an agent");
    }

    fn application(&mut self) {
        match self.random(16) {
            // Few jobs, so that the queue is often empty.
            0..6 if self.known.len() < self.most => self.add(),
            6..8 => {
                if let Some(job) = self.some_known() {
                    self.rearm(job);
                }
            }
            8 | 9 => {
                if let Some(job) = self.some_known() {
                    self.cancel(job);
                }
            }
            10 => {
                self.suspended += 1;
                assert!(self.change(|group| group.suspend()));
            }
            11 | 12 => {
                let resumed = self.change(|group| group.resume());
                assert_eq!(resumed, self.suspended > 0);
                self.suspended -= usize::from(resumed);
            }
            13 if self.random(8) == 0 => self.cancel_group(),
            14 if self.holds > 1 => self.release(),
            15 if self.holds < 3 => {
                self.holds += 1;
                self.change(|group| group.hold());
            }
            _ => {
                let length = self.change(|group| group.length());
                assert_eq!(length as usize, self.queue.len());
            }
        }
    }
}

fn sequence(width: usize, seed: u64, steps: usize) {
    let waiters = Waiters::new();
    let mut sim = Sim {
        core: Some(Box::new(Core::new(width))),
        waiters: &waiters,
        width,
        seed,
        work: 0,
        loop_work: 0,
        requests: VecDeque::new(),
        agents: Vec::new(),
        known: Vec::new(),
        most: 1 + seed as usize / 4 % 6,
        queue: VecDeque::new(),
        suspended: 0,
        cancelled: false,
        holds: 1,
        made: 0,
        freed: 0,
    };
    for _ in 0..steps {
        if sim.random(2) == 0 {
            sim.application();
        } else {
            sim.turn();
        }
        if sim.suspended == 0 && sim.random(8) == 0 {
            sim.rest();
        }
    }
    while sim.suspended > 0 {
        sim.suspended -= 1;
        assert!(sim.change(|group| group.resume()));
    }
    sim.rest();
    assert!(
        sim.change(|group| group.is_quiet(0)),
        "nothing runs, and it is not quiet"
    );
    if !sim.cancelled {
        sim.cancel_group();
    }
    while sim.holds > 0 {
        sim.release();
    }
    while sim.turn() {}
    assert!(sim.core.is_none(), "the group has not ended");
    assert_eq!(sim.freed, sim.made);
}

#[test]
fn groups_of_each_width_against_a_reference() {
    let (sequences, steps) = if cfg!(miri) { (12, 120) } else { (1000, 300) };
    for width in 0..4 {
        for seed in 0..sequences {
            let seed = seed * 4 + width as u64;
            println!("width {width}, seed {seed}");
            sequence(width, seed, steps);
        }
    }
}
