// SPDX-License-Identifier: GPL-3.0-or-later
//! The work queue, and how workers sleep.

use loom::sync::Arc;
use loom::thread::{self, JoinHandle};

use super::explore;
use crate::sync::{AtomicUsize, Ordering};
use crate::workq::{Seat, WorkQueue};

type Queue = Arc<WorkQueue<usize>>;

fn workers(
    queue: &Queue,
    count: usize,
    body: fn(&WorkQueue<usize>, &mut Seat, usize),
) -> Vec<JoinHandle<()>> {
    (0..count)
        .map(|index| {
            let queue = Arc::clone(queue);
            thread::spawn(move || body(&queue, &mut queue.seat(index), index))
        })
        .collect()
}

fn join(threads: Vec<JoinHandle<()>>) {
    for thread in threads {
        thread.join().unwrap();
    }
}

/// A worker for a single item, which has to be woken for it: nobody closes.
fn take_one(queue: &WorkQueue<usize>, seat: &mut Seat, _index: usize) {
    assert!(queue.next(seat, || ()).is_some());
}

/// Workers until the close, who count what they take. An item is armed again as often as it says.
fn counting(queue: &Queue, taken: &Arc<AtomicUsize>, workers: usize) -> Vec<JoinHandle<()>> {
    (0..workers)
        .map(|index| {
            let (queue, taken) = (Arc::clone(queue), Arc::clone(taken));
            thread::spawn(move || {
                let mut seat = queue.seat(index);
                while let Some(again) = queue.next(&mut seat, || ()) {
                    taken.fetch_add(1, Ordering::Relaxed);
                    if again > 0 {
                        queue.push_local(&seat, again - 1);
                    }
                }
            })
        })
        .collect()
}

/// Every item is taken once, whoever sleeps when; everybody leaves after the close.
fn until_closed(workers: usize, producers: usize, items: usize) {
    let queue = Arc::new(WorkQueue::new(workers));
    let taken = Arc::new(AtomicUsize::new(0));
    let workers = counting(&queue, &taken, workers);
    let others: Vec<_> = (1..producers)
        .map(|_| {
            let queue = Arc::clone(&queue);
            thread::spawn(move || (0..items).for_each(|_| queue.push(0)))
        })
        .collect();
    (0..items).for_each(|_| queue.push(0));
    join(others);
    queue.close();
    join(workers);
    assert_eq!(taken.load(Ordering::Relaxed), producers * items);
}

#[test]
fn one_worker_two_producers() {
    explore("one worker, two producers, close", 3, || {
        until_closed(1, 2, 1)
    });
}

#[test]
fn one_worker_two_items() {
    explore("one worker, one producer of two, close", 4, || {
        until_closed(1, 1, 2)
    });
}

#[test]
fn two_workers_two_items() {
    explore("two workers, one producer of two, close", 2, || {
        until_closed(2, 1, 2)
    });
}

#[test]
fn two_workers_two_producers() {
    explore("two workers, two producers, close", 1, || {
        until_closed(2, 2, 1)
    });
}

#[test]
fn three_workers_one_item() {
    explore("three workers, one producer of one, close", 1, || {
        until_closed(3, 1, 1)
    });
}

#[test]
fn three_workers_three_items() {
    explore("three workers, a batch of two and one more", 1, || {
        let queue = Arc::new(WorkQueue::new(3));
        let workers = workers(&queue, 3, take_one);
        queue.push_quietly(1);
        queue.push_quietly(2);
        queue.notify(2);
        queue.push(3);
        join(workers);
    });
}

/// A worker that sleeps must be woken for each, or this never ends.
#[test]
fn a_worker_is_woken_without_a_close() {
    explore("hand-off, then another", 3, || {
        let queue = Arc::new(WorkQueue::new(1));
        let worker = workers(&queue, 1, |queue, seat, index| {
            take_one(queue, seat, index);
            take_one(queue, seat, index);
        });
        queue.push(1);
        queue.push(2);
        join(worker);
    });
}

/// Who is said to be on the way, and never comes, would strand the third.
#[test]
fn no_mark_is_left_behind() {
    explore("two producers, then a third item", 3, || {
        let queue = Arc::new(WorkQueue::new(1));
        let worker = workers(&queue, 1, |queue, seat, index| {
            (0..3).for_each(|_| take_one(queue, seat, index));
        });
        let other = {
            let queue = Arc::clone(&queue);
            thread::spawn(move || queue.push(1))
        };
        queue.push(2);
        other.join().unwrap();
        queue.push(3);
        join(worker);
    });
}

/// Two items for two workers, nobody else to wake the second: the first must.
#[test]
fn a_woken_worker_wakes_the_next() {
    explore("two workers that take one each", 2, || {
        let queue = Arc::new(WorkQueue::new(2));
        let workers = workers(&queue, 2, take_one);
        queue.push(1);
        queue.push(2);
        join(workers);
    });
}

/// The loop pushes what fired in a turn, and tells once.
#[test]
fn a_batch_wakes_as_many_as_it_takes() {
    explore("a batch of two for two workers", 2, || {
        let queue = Arc::new(WorkQueue::new(2));
        let workers = workers(&queue, 2, take_one);
        queue.push_quietly(1);
        queue.push_quietly(2);
        queue.notify(2);
        join(workers);
    });
}

/// What was meant for two that found their items without it is there when they go to sleep again:
/// it must not pass for a wake then.
#[test]
fn two_batches_one_after_the_other() {
    explore("two workers that take two each, of two batches", 2, || {
        let queue = Arc::new(WorkQueue::new(2));
        let workers = workers(&queue, 2, |queue, seat, index| {
            (0..2).for_each(|_| take_one(queue, seat, index));
        });
        for _ in 0..2 {
            queue.push_quietly(1);
            queue.push_quietly(2);
            queue.notify(2);
        }
        join(workers);
    });
}

/// The application pushes between the loop's push and its telling.
#[test]
fn a_batch_beside_another_push() {
    explore("a batch of one, and a push beside it", 2, || {
        let queue = Arc::new(WorkQueue::new(2));
        let workers = workers(&queue, 2, take_one);
        let other = {
            let queue = Arc::clone(&queue);
            thread::spawn(move || queue.push(1))
        };
        queue.push_quietly(2);
        queue.notify(1);
        other.join().unwrap();
        join(workers);
    });
}

/// A worker that has taken an item puts it back near itself, and takes one: the other, which may
/// be asleep, must be woken for the one that is left.
#[test]
fn what_is_left_near_a_worker_is_taken_by_another() {
    explore("one near, and one from outside, for two workers", 4, || {
        let queue = Arc::new(WorkQueue::new(2));
        let workers = workers(&queue, 2, |queue, seat, index| {
            if index == 0 {
                queue.push_local(seat, 1);
            }
            take_one(queue, seat, index);
        });
        queue.push(2);
        join(workers);
    });
}

/// Two are left near a worker, and nothing else wakes anybody: whoever takes one sees to the other.
#[test]
fn two_left_near_a_worker_are_taken_by_others() {
    explore("three near the first of three workers", 2, || {
        let queue = Arc::new(WorkQueue::new(3));
        let workers = workers(&queue, 3, |queue, seat, index| {
            if index == 0 {
                (0..3).for_each(|item| queue.push_local(seat, item));
            }
            take_one(queue, seat, index);
        });
        join(workers);
    });
}

/// One that was woken for what is near another relies on nobody who relies on it: an item comes
/// from outside as it arrives, and a third worker sleeps.
#[test]
fn an_item_beside_one_that_was_left_near() {
    explore("two near, one from outside, three workers", 2, || {
        let queue = Arc::new(WorkQueue::new(3));
        let workers = workers(&queue, 3, |queue, seat, index| {
            if index == 0 {
                queue.push_local(seat, 1);
                queue.push_local(seat, 2);
            }
            take_one(queue, seat, index);
        });
        queue.push(3);
        join(workers);
    });
}

/// What is armed again against the close is taken, by whomever.
#[test]
fn what_is_near_a_worker_at_the_close_is_taken() {
    explore("armed again, for two workers, close", 2, || {
        let queue = Arc::new(WorkQueue::new(2));
        let taken = Arc::new(AtomicUsize::new(0));
        let workers = counting(&queue, &taken, 2);
        queue.push(1);
        queue.close();
        join(workers);
        assert_eq!(taken.load(Ordering::Relaxed), 2);
    });
}
