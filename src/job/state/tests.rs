// SPDX-License-Identifier: GPL-3.0-or-later
use super::snapshot::{CLAIMED, EXEC, STATE};
use super::*;

/// Every valid word: each state, with each combination of bits that it allows.
fn words() -> Vec<u32> {
    let mut all = Vec::new();
    for state in [WAITING, NEEDS_ARM, ARMED, RUNNING, NEEDS_DELETE, DELETED] {
        for bits in 0..64u32 {
            let word = state | bits << 3;
            let exec = word & EXEC != 0;
            let queued = word & (REQ | WORK) != 0;
            // CLOSE: after the last callback, in the work queue, and before the rest of the
            // disposal.
            let closes = word & (WORK | EXEC | DISPOSED) == WORK && state >= NEEDS_DELETE;
            let back = word & (WORK | DISPOSED) == 0;
            let possible = match state {
                _ if word & CLOSE != 0 && !closes => false,
                WAITING => bits == 0,
                NEEDS_ARM | RUNNING => exec && !queued && word & DISPOSED == 0,
                ARMED => !exec && word & DISPOSED == 0,
                NEEDS_DELETE => !(exec && queued) && word & DISPOSED == 0,
                // REQ is possible after a worker has closed the descriptor.
                _ => !exec && word & WAITED == 0 && (word & REQ == 0 || back),
            };
            if possible {
                all.push(word);
            }
        }
    }
    all
}

fn at(word: u32) -> State {
    State::new(word)
}

fn word(state: &State) -> u32 {
    state.word.load(Ordering::Relaxed)
}

#[test]
fn arm_moves_waiting_and_running_only() {
    for before in words() {
        for persist in [false, true] {
            let state = at(before);
            let got = state.arm(REQ, persist);
            let (want, after) = match before & STATE {
                WAITING => (Arm::Push, ARMED | REQ),
                RUNNING if !persist => (Arm::Recorded, before & !STATE | NEEDS_ARM),
                _ => (Arm::Refused, before),
            };
            assert_eq!((got, word(&state)), (want, after), "from {before:#b}");
        }
    }
}

#[test]
fn claim_takes_what_can_be_armed_and_refuses_all_others_that_arm() {
    for before in words() {
        for (own, persist) in [(false, false), (false, true), (true, false), (true, true)] {
            let state = at(before);
            let can = match before & STATE {
                WAITING => true,
                RUNNING => own || !persist,
                _ => false,
            };
            let claimed = if can { before | CLAIMED } else { before };
            assert_eq!((state.claim(own, persist), word(&state)), (can, claimed));
            if !can {
                continue;
            }
            assert!(!state.claim(true, false));
            assert_eq!(state.arm(REQ, false), Arm::Refused);
            assert_eq!(word(&state), claimed);
            let (want, after) = match before & STATE {
                WAITING => (Arm::Push, ARMED | REQ),
                _ => (Arm::Recorded, before & !STATE | NEEDS_ARM),
            };
            assert_eq!((state.arm_claimed(REQ), word(&state)), (want, after));
        }
    }
}

#[test]
fn a_claim_holds_up_neither_the_return_nor_the_end() {
    let waiters = Waiters::new();
    let state = at(RUNNING | EXEC);
    assert!(state.claim(false, false));
    assert_eq!(
        state.finish(&waiters, false, || true, REQ, REQ),
        After::Idle
    );
    assert_eq!(word(&state), WAITING | CLAIMED);
    assert_eq!(state.arm_claimed(REQ), Arm::Push);
    assert_eq!(word(&state), ARMED | REQ);

    let state = at(RUNNING | EXEC);
    assert!(state.claim(true, true));
    assert_eq!(state.end(&waiters, false), End::Marked);
    assert_eq!(state.arm_claimed(REQ), Arm::Refused);
    assert_eq!(
        state.finish(&waiters, true, || true, REQ, 0),
        After::Dispose
    );
    assert_eq!(state.now(), DELETED);
}

#[test]
fn end_follows_the_table() {
    let waiters = Waiters::new();
    for before in words() {
        for even_armed in [false, true] {
            let state = at(before);
            let got = state.end_from(&waiters, even_armed);
            let exec = before & EXEC != 0;
            let want = match before & STATE {
                NEEDS_DELETE | DELETED if exec => End::OverRunning,
                NEEDS_DELETE | DELETED => End::Over,
                ARMED if !even_armed => End::Armed,
                _ if exec => End::Marked,
                _ if before & REQ != 0 => End::Queued,
                WAITING => End::PushIdle,
                _ => End::Push,
            };
            assert_eq!(got, want, "from {before:#b}");
            let changed = !matches!(want, End::Over | End::OverRunning | End::Armed);
            if changed {
                assert_eq!(word(&state) & STATE, NEEDS_DELETE);
                assert_eq!(word(&state) & REQ != 0, !exec, "from {before:#b}");
                // The waiters of a running job are released when its callback returns, all others
                // now.
                assert_eq!(
                    word(&state) & WAITED,
                    if exec { before & WAITED } else { 0 }
                );
            } else {
                assert_eq!(word(&state), before);
            }
        }
    }
}

#[test]
fn only_an_armed_job_fires() {
    for before in words() {
        let armed = before & STATE == ARMED;
        let state = at(before);
        assert_eq!(state.begin(), armed, "from {before:#b}");
        assert_eq!(state.is_executing(), armed || before & EXEC != 0);
        let state = at(before);
        assert_eq!(state.dispatch(), armed, "from {before:#b}");
        assert_eq!(word(&state), if armed { before | WORK } else { before });
    }
}

#[test]
fn a_worker_runs_leaves_or_frees() {
    for before in words().into_iter().filter(|word| word & WORK != 0) {
        let state = at(before);
        let want = match before & STATE {
            ARMED => Work::Run,
            _ if before & DISPOSED != 0 => Work::Free,
            _ if before & CLOSE != 0 => Work::Close,
            _ => Work::Leave,
        };
        assert_eq!(state.take_work(), want, "from {before:#b}");
        assert_eq!(word(&state) & (WORK | CLOSE), 0);
    }
}

#[test]
fn a_close_is_pushed_unless_the_work_queue_holds_the_job() {
    for before in [NEEDS_DELETE, DELETED, NEEDS_DELETE | WORK] {
        for by_worker in [false, true] {
            let state = at(before);
            assert!(!state.take_close());
            assert_eq!(state.ask_for_close(), before & WORK == 0);
            if by_worker {
                assert_eq!(state.take_work(), Work::Close);
                state.closed();
                assert_eq!(state.take_request(), before & STATE);
            } else {
                assert!(state.take_close());
            }
            state.begin_disposal();
            assert!(state.end_disposal());
            assert_eq!(word(&state), DELETED);
        }
    }
}

#[test]
fn finish_follows_the_table() {
    let waiters = Waiters::new();
    for before in words().into_iter().filter(|word| word & EXEC != 0) {
        for persist in [false, true] {
            for again in [false, true] {
                let state = at(before);
                let got = state.finish(&waiters, persist, || again, WORK, REQ);
                let (want, after) = match before & STATE {
                    NEEDS_DELETE => (After::Dispose, NEEDS_DELETE | REQ),
                    NEEDS_ARM if again => (After::Armed, ARMED | WORK),
                    RUNNING if persist && again => (After::Armed, ARMED | WORK),
                    _ => (After::Idle, WAITING),
                };
                // Waiters keep waiting only if the job is armed again.
                let waited = if want == After::Armed {
                    before & WAITED
                } else {
                    0
                };
                assert_eq!(
                    (got, word(&state)),
                    (want, after | waited),
                    "from {before:#b}"
                );
            }
        }
    }
}

#[test]
fn finish_begins_the_disposal_of_who_disposes_at_once() {
    let waiters = Waiters::new();
    let state = at(NEEDS_DELETE | EXEC);
    let after = state.finish(&waiters, false, || true, REQ, 0);
    assert_eq!((after, word(&state)), (After::Dispose, DELETED));
    state.begin_disposal();
    assert!(state.end_disposal());
}

#[test]
fn memory_goes_with_the_last_that_holds_it() {
    // The loop is the last holder.
    let state = at(NEEDS_DELETE | WORK);
    state.begin_disposal();
    assert_eq!(state.take_work(), Work::Leave);
    assert!(state.end_disposal());
    // The worker is the last holder.
    let state = at(NEEDS_DELETE | WORK);
    state.begin_disposal();
    assert!(!state.end_disposal());
    assert_eq!(state.take_work(), Work::Free);
    // No worker is left.
    let state = at(NEEDS_DELETE | WORK);
    state.begin_disposal();
    assert!(!state.end_disposal());
    assert!(state.drop_work());
}

#[test]
fn waiting_is_marked_only_where_something_is_to_come() {
    for before in words() {
        let state = at(before);
        let want = match before & STATE {
            WAITING => Wait::Idle,
            NEEDS_DELETE | DELETED if before & EXEC == 0 => Wait::Deleting,
            _ => Wait::Marked,
        };
        assert_eq!(state.mark_waited(), want, "from {before:#b}");
    }
}
