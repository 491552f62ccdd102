// SPDX-License-Identifier: GPL-3.0-or-later
//! The library twice in one process: compiled in, and as the shared library that NS_SHARED_LIBRARY names, or
//! that `make` has built.

mod common;

use std::ffi::{c_int, c_void};
use std::mem::ManuallyDrop;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::*;
use nunc_stans::abi::{
    NS_JOB_PERSIST, NS_JOB_THREAD, ns_job_func_t, ns_job_t, ns_job_type_t, ns_result_t, ns_thrpool_config, ns_thrpool_t,
};
use nunc_stans_rs::Pool;

type Tp = *mut ns_thrpool_t;
type Job = *mut ns_job_t;

/// The functions of the shared library that are used here.
struct Shared {
    config_init: unsafe extern "C" fn(*mut ns_thrpool_config),
    new: unsafe extern "C" fn(*mut ns_thrpool_config) -> Tp,
    add: unsafe extern "C" fn(Tp, ns_job_type_t, ns_job_func_t, *mut c_void, *mut Job) -> ns_result_t,
    add_signal: unsafe extern "C" fn(Tp, c_int, ns_job_type_t, ns_job_func_t, *mut c_void, *mut Job) -> ns_result_t,
    done: unsafe extern "C" fn(Job) -> ns_result_t,
    cancel: unsafe extern "C" fn(Job) -> ns_result_t,
    shutdown: unsafe extern "C" fn(Tp),
    wait: unsafe extern "C" fn(Tp) -> ns_result_t,
    destroy: unsafe extern "C" fn(Tp),
}

impl Shared {
    fn load() -> Shared {
        let path = std::env::var_os("NS_SHARED_LIBRARY").unwrap_or("../../build/lib/libnunc-stans.so.0".into());
        // SAFETY: it is the library, whose functions have these types. It stays loaded.
        unsafe {
            let library = ManuallyDrop::new(libloading::Library::new(path).unwrap());
            let shared = Shared {
                config_init: *library.get(b"ns_thrpool_config_init").unwrap(),
                new: *library.get(b"ns_thrpool_new").unwrap(),
                add: *library.get(b"ns_add_job").unwrap(),
                add_signal: *library.get(b"ns_add_signal_job").unwrap(),
                done: *library.get(b"ns_job_done").unwrap(),
                cancel: *library.get(b"ns_job_cancel").unwrap(),
                shutdown: *library.get(b"ns_thrpool_shutdown").unwrap(),
                wait: *library.get(b"ns_thrpool_wait").unwrap(),
                destroy: *library.get(b"ns_thrpool_destroy").unwrap(),
            };
            assert_ne!(shared.new as usize, nunc_stans::capi::pool::ns_thrpool_new as *const () as usize);
            shared
        }
    }

    fn pool(&self) -> Tp {
        // SAFETY: as the C interface asks; so in the functions below.
        unsafe {
            let mut config = std::mem::zeroed();
            (self.config_init)(&mut config);
            let tp = (self.new)(&mut config);
            assert!(!tp.is_null());
            tp
        }
    }

    fn end(&self, tp: Tp) {
        // SAFETY: as in `pool`.
        unsafe {
            (self.shutdown)(tp);
            assert_eq!((self.wait)(tp), 0);
            (self.destroy)(tp);
        }
    }
}

static DONE: Mutex<Option<unsafe extern "C" fn(Job) -> ns_result_t>> = Mutex::new(None);
static RAN: AtomicUsize = AtomicUsize::new(0);
static SIGNALS: AtomicUsize = AtomicUsize::new(0);

unsafe extern "C" fn ran(job: Job) {
    RAN.fetch_add(1, Ordering::SeqCst);
    let done = DONE.lock().unwrap().unwrap();
    // SAFETY: the job is of the copy whose function this is, and in its callback.
    assert_eq!(unsafe { done(job) }, 0);
}

unsafe extern "C" fn signalled(_: Job) {
    SIGNALS.fetch_add(1, Ordering::SeqCst);
}

fn kill() {
    // SAFETY: jobs watch it.
    assert_eq!(unsafe { libc::kill(libc::getpid(), libc::SIGUSR1) }, 0);
}

#[test]
fn each_copy_has_its_own_pools_and_the_last_to_watch_has_the_signal() {
    let shared = Shared::load();
    *DONE.lock().unwrap() = Some(shared.done);
    let (pool, tp) = (Pool::new(2).unwrap(), shared.pool());
    let here = Count::default();
    for _ in 0..1000 {
        let here = here.clone();
        pool.post(move || here.up()).unwrap();
        // SAFETY: as in `Shared::pool`.
        let code = unsafe { (shared.add)(tp, NS_JOB_THREAD, Some(ran), std::ptr::null_mut(), std::ptr::null_mut()) };
        assert_eq!(code, 0);
    }
    here.wait(1000);
    eventually(|| RAN.load(Ordering::SeqCst) == 1000);

    // Each watches alone, one after the other.
    let mine = Count::default();
    let seen = mine.clone();
    let watch = pool.persist().on_signal(libc::SIGUSR1, move |_| seen.up()).unwrap();
    kill();
    mine.wait(1);
    let mut theirs = std::ptr::null_mut();
    // SAFETY: as in `Shared::pool`.
    let code = unsafe {
        let flags = NS_JOB_THREAD | NS_JOB_PERSIST;
        (shared.add_signal)(tp, libc::SIGUSR1, flags, Some(signalled), std::ptr::null_mut(), &mut theirs)
    };
    assert_eq!(code, 0);
    kill();
    eventually(|| SIGNALS.load(Ordering::SeqCst) > 0);
    assert_eq!((mine.get(), SIGNALS.load(Ordering::SeqCst)), (1, 1));
    // SAFETY: as in `Shared::pool`.
    unsafe { (shared.cancel)(theirs) };
    shared.end(tp);
    let before = mine.get();
    kill();
    mine.wait(before + 1);
    drop(watch);
    drop(pool);
    // SAFETY: it only looks at the disposition, which is what it was before both.
    unsafe {
        let mut now: libc::sigaction = std::mem::zeroed();
        assert_eq!(libc::sigaction(libc::SIGUSR1, std::ptr::null(), &mut now), 0);
        assert_eq!(now.sa_sigaction, libc::SIG_DFL);
    }
}
