// SPDX-License-Identifier: GPL-3.0-or-later
//! What is used as it should be leaves no warning in the log: no group that is still held, no job that is idle.

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::*;
use nunc_stans_rs::{Pool, set_log};

#[test]
fn nothing_is_left_for_the_library_to_complain_of() {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let seen = lines.clone();
    set_log(move |priority, line| seen.lock().unwrap().push((priority, line.to_string())));
    for group_first in [true, false] {
        let pool = Pool::new(1).unwrap();
        let (group, ran) = (pool.group(1).unwrap(), Count::default());
        let (seen, own) = (ran.clone(), group.clone());
        let idle = group.run(move |_| touch((&own, seen.up()))).unwrap();
        ran.wait(1);
        group.after(Duration::MAX, |_| {}).unwrap().detach();
        pool.group(0).unwrap().post(|| {}).unwrap();
        if group_first {
            drop((idle, group, pool));
        } else {
            drop(pool);
            drop((idle, group));
        }
    }
    // One that is dropped by its own callback, too.
    let pool = Arc::new(Pool::new(1).unwrap());
    let (handle, mine, go) = (pool.to_handle(), Mutex::new(Some(pool.clone())), Count::default());
    let wait = go.clone();
    handle.post(move || touch((wait.wait(1), mine.lock().unwrap().take()))).unwrap();
    drop(pool);
    go.up();
    eventually(|| handle.post(|| {}).is_err());
    let lines = lines.lock().unwrap();
    assert!(lines.iter().any(|line| line.0 > libc::LOG_WARNING), "there is a log");
    assert_eq!(
        lines.iter().filter(|line| line.0 <= libc::LOG_WARNING).collect::<Vec<_>>(),
        Vec::<&(i32, String)>::new()
    );
}
