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

/// A worker that takes one item and must be woken for it: no close wakes it.
fn take_one(queue: &WorkQueue<usize>, seat: &mut Seat, _index: usize) {
    assert!(queue.next(seat, || ()).is_some());
}

/// Workers that count what they take, until the close. Each item's value says how often it is armed
/// again.
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

/// Every item is taken once, however the workers sleep, and every worker leaves after the close.
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

/// A sleeping worker must be woken for each item, or the test never ends.
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

/// A mark that says "a worker is on the way" and stays set without one would strand the third item.
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

/// Two items for two workers. Nothing else wakes the second worker, so the first must.
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

/// The loop pushes the jobs that fired in a turn, and notifies once.
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

/// A wake for two workers that have already found their items is still pending when they sleep
/// again. It must not count as a wake for the second batch.
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

/// The application pushes between the loop's push and its notification.
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

/// A worker that has taken an item puts it back into its local queue and takes one more. The other
/// worker, which may be asleep, must be woken for the item that is left.
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

/// Two items are left in a worker's local queue, and nothing else wakes a worker: each worker that
/// takes one must see to the other.
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

/// A worker that was woken for another worker's local queue must not rely on a worker that relies
/// on it: an item arrives from outside meanwhile, and a third worker sleeps.
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

/// A job that is armed again during the close is taken, by any worker.
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
